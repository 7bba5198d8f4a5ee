package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/table"
)

// setLog installs the logger of the configuration. This is the one place that decides how
// messages look: sentences for a person at a terminal, logfmt or JSON for a service.
func setLog(c *config.Config, color bool) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		panic(err) // package config has checked it
	}
	terminal := table.IsTerminal(os.Stderr)
	o := &slog.HandlerOptions{Level: level}
	switch {
	case c.LogFormat == config.LogJSON:
		o.ReplaceAttr = without(sentenceKey)
		slog.SetDefault(slog.New(slog.NewJSONHandler(printable.JSON(os.Stderr), o)))
	case c.LogFormat == config.LogHuman, c.LogFormat == config.LogAuto && terminal:
		slog.SetDefault(slog.New(&humanHandler{w: os.Stderr, level: level, color: color && terminal, clock: terminal && c.Command == serviceCommand}))
	default:
		// The journal adds the time itself.
		o.ReplaceAttr = without(slog.TimeKey, sentenceKey)
		slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, o)))
	}
}

// without leaves out attributes.
func without(keys ...string) func([]string, slog.Attr) slog.Attr {
	return func(groups []string, a slog.Attr) slog.Attr {
		for _, key := range keys {
			if len(groups) == 0 && a.Key == key {
				return slog.Attr{}
			}
		}
		return a
	}
}

// sentenceKey is the attribute of a message with what a person reads in its place.
const sentenceKey = "sentence"

// say logs the success of a command: a sentence for a person, a message with attributes for
// programs.
func say(sentence, message string, attrs ...any) {
	slog.Info(message, append(attrs, sentenceKey, sentence)...)
}

// humanHandler writes messages as a person reads them: "warning: a message (path: /x)". A sentence
// may have several lines; nothing else can look like a message of its own.
type humanHandler struct {
	w            io.Writer
	level        slog.Level
	color, clock bool
	attrs        []slog.Attr
}

func (h *humanHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *humanHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = slices.Concat(h.attrs, attrs)
	return &next
}

// WithGroup leaves groups out: no message has any.
func (h *humanHandler) WithGroup(string) slog.Handler { return h }

func (h *humanHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool { attrs = append(attrs, a); return true })
	text, details := r.Message, []string{}
	for _, a := range attrs {
		switch value := a.Value.Resolve().String(); {
		case a.Key == sentenceKey:
			return h.write(&r, printable.Text(value))
		case value != "":
			details = append(details, a.Key+": "+value)
		}
	}
	if len(details) > 0 {
		text += " (" + strings.Join(details, "; ") + ")"
	}
	return h.write(&r, oneLine(strings.ReplaceAll(text, "\n", "; ")))
}

func (h *humanHandler) write(r *slog.Record, text string) error {
	prefix := ""
	switch {
	case r.Level >= slog.LevelError:
		prefix = table.Red.Paint("error:", h.color) + " "
	case r.Level >= slog.LevelWarn:
		prefix = table.Yellow.Paint("warning:", h.color) + " "
	case r.Level < slog.LevelInfo:
		prefix = "debug: "
	}
	if h.clock && !r.Time.IsZero() {
		prefix = r.Time.Format("15:04:05 ") + prefix
	}
	_, err := fmt.Fprintln(h.w, prefix+text)
	return err
}
