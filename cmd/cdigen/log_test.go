package main

import (
	"log/slog"
	"strings"
	"testing"
)

func TestMessagesForAPerson(t *testing.T) {
	for _, c := range []struct {
		name string
		log  func(l *slog.Logger)
		want string
	}{
		{"a sentence", func(l *slog.Logger) { l.Info("published", "path", "/x", sentenceKey, "Published /x.\nTry: y") }, "Published /x.\nTry: y\n"},
		{"details", func(l *slog.Logger) { l.Info("published", "path", "/x", "empty", "", "devices", 3) }, "published (path: /x; devices: 3)\n"},
		{"of a logger", func(l *slog.Logger) { l.With("source", "uevent").Warn("down", "error", "no\x1b[31m") }, "warning: down (source: uevent; error: no\\u001b[31m)\n"},
		{"of a file whose name is like a message", func(l *slog.Logger) { l.Warn("down", "path", "/x\nerror: y") }, "warning: down (path: /x; error: y)\n"},
		{"an error", func(l *slog.Logger) { l.Error("failed") }, "error: failed\n"},
		{"below the level", func(l *slog.Logger) { l.Debug("discovered") }, ""},
	} {
		var b strings.Builder
		c.log(slog.New(&humanHandler{w: &b, level: slog.LevelInfo}))
		if b.String() != c.want {
			t.Errorf("%s: got %q, want %q", c.name, b.String(), c.want)
		}
	}
	var b strings.Builder
	slog.New(&humanHandler{w: &b, level: slog.LevelInfo, color: true}).Warn("x")
	if want := "\x1b[33mwarning:\x1b[0m x\n"; b.String() != want {
		t.Errorf("in color: got %q, want %q", b.String(), want)
	}
}
