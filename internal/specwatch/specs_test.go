package specwatch

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttest"
)

// drain drops the events that have come so far, with those of the last moment.
func drain(events <-chan Event) {
	time.Sleep(5 * minGather)
	for len(events) > 0 {
		<-events
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Every change of a file in a directory of specs is noticed, a write to a file that stays
// open included, except our own.
func TestSpecs(t *testing.T) {
	dir := t.TempDir()
	output, other := filepath.Join(dir, "etc/nvidia.yaml"), filepath.Join(dir, "run/other.yaml")
	write(t, output, "")
	write(t, other, "")
	s := &Specs{Output: output, Dirs: []string{filepath.Dir(output), filepath.Dir(other)}, Ignore: func(path string) bool {
		return strings.HasSuffix(path, ".cdigen-new")
	}}
	events := listen(t, s)
	await(t, events, "watching")
	f, err := os.OpenFile(other, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	for _, c := range []struct {
		name   string
		change func() error
		want   string
	}{
		{"a write to an open file", func() error { _, err := f.WriteString("a"); return err }, other},
		{"truncated", func() error { return os.Truncate(output, 0) }, output},
		{"mode", func() error { return os.Chmod(output, 0o640) }, output}, //nolint:gosec // as a user might
		{"removed", func() error { return os.Remove(output) }, output},
		{"replaced by a link", func() error { return os.Symlink("/dev/null", output) }, output},
		{"another file", func() error { return os.WriteFile(filepath.Join(dir, "run/new.json"), nil, 0o600) }, "new.json"},
		{"the directory's mode", func() error { return os.Chmod(filepath.Dir(other), 0o700) }, filepath.Dir(other)}, //nolint:gosec // a directory
	} {
		drain(events)
		must(t, c.change())
		if e := await(t, events, c.want); e.Source != "specs" || e.Full {
			t.Errorf("%s: event %v", c.name, e)
		}
	}
	drain(events)
	write(t, filepath.Join(dir, "etc/.nvidia.yaml.cdigen-new"), "x")
	write(t, output+".end", "")
	for e := range events {
		if strings.HasSuffix(e.Detail, ".end") {
			break
		}
		t.Errorf("event of our own file: %v", e)
	}
}

// A directory that is moved, removed and made again, or replaced by a link, is watched again
// after the next generation.
func TestSpecsFollowsPaths(t *testing.T) {
	dir := t.TempDir()
	cdi := filepath.Join(dir, "cdi")
	output := filepath.Join(cdi, "nvidia.yaml")
	write(t, output, "")
	s := &Specs{Output: output}
	events := listen(t, s)
	await(t, events, "watching")
	for _, c := range []struct {
		name   string
		change func() error
	}{
		{"removed and made again", func() error { return errors.Join(os.RemoveAll(cdi), os.Mkdir(cdi, 0o755)) }},
		{"moved and made again", func() error { return errors.Join(os.Rename(cdi, cdi+"-old"), os.Mkdir(cdi, 0o755)) }},
		{"moved and back", func() error { return errors.Join(os.Rename(cdi, cdi+"-moved"), os.Rename(cdi+"-moved", cdi)) }},
		{"exchanged", func() error {
			return unix.Renameat2(unix.AT_FDCWD, cdi, unix.AT_FDCWD, cdi+"-old", unix.RENAME_EXCHANGE)
		}},
		{"replaced by a link", func() error { return errors.Join(os.RemoveAll(cdi), os.Symlink("cdi-old", cdi)) }},
	} {
		drain(events)
		must(t, c.change())
		// The event of the directory itself: at that of a file in it the end of the watch may be
		// unknown still, and another directory may have the inode.
		for await(t, events, cdi).Detail != cdi {
			continue
		}
		s.Update()
		await(t, events, "new directories")
		s.Update() // changes nothing
		write(t, output, c.name)
		await(t, events, output)
	}
	// A directory that comes when it is looked at the next time.
	must(t, os.Remove(cdi))
	s.Update()
	drain(events)
	write(t, output, "")
	s.Update()
	await(t, events, "new directories")
}

// A mount over a directory of specs is an event of [Mounts], after which the directory that
// shows is watched; and so is its end.
func TestSpecsFollowsMounts(t *testing.T) {
	dir := t.TempDir()
	output := filepath.Join(dir, "nvidia.yaml")
	s := &Specs{Output: output}
	events := listen(t, s)
	await(t, events, "watching")
	drain(events)
	if err := unix.Mount("cdigen-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		hosttest.SkipWithout(t, "mount", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	must(t, os.Chmod(dir, 0o755)) //nolint:gosec // as it was
	s.Update()
	await(t, events, "new directories")
	write(t, output, "")
	await(t, events, output)
	drain(events)
	must(t, unix.Unmount(dir, unix.MNT_DETACH))
	s.Update()
	await(t, events, "new directories")
	write(t, output, "")
	await(t, events, output)
}

// Two paths of one directory have one watch, by the path of the output.
func TestSpecsWatchesADirectoryOnce(t *testing.T) {
	dir := t.TempDir()
	output := filepath.Join(dir, "run/cdi/nvidia.yaml")
	write(t, output, "")
	must(t, os.Symlink("run", filepath.Join(dir, "alias")))
	s := &Specs{Output: output, Dirs: []string{filepath.Join(dir, "alias/cdi"), filepath.Join(dir, "missing")}}
	private, _, others := s.directories()
	if len(private) != 1 || private[filepath.Dir(output)] == (identity{}) || others != nil {
		t.Errorf("watched %v, polled %v", private, others)
	}
}

// Directories that other users can write to are polled.
func TestSpecsPollsSharedDirectories(t *testing.T) {
	_, dir := sharedDirectory(t)
	output := filepath.Join(dir, "nvidia.yaml")
	write(t, output, "")
	s := &Specs{Output: output}
	private, _, others := s.directories()
	if len(private) != 0 || !slices.Equal(others, []string{dir}) {
		t.Errorf("watched %v, polled %v", private, others)
	}
	events := listen(t, s)
	await(t, events, "watching")
	drain(events)
	write(t, output, "edited in place")
	await(t, events, output)
}

// A change of the settings file is not an event, but its own function is called: at the start,
// since it may have changed before, and for each change.
func TestSpecsSettings(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "etc/cdigen/cdigen.env")
	output := filepath.Join(dir, "cdi/nvidia.yaml")
	write(t, output, "")
	calls := make(chan struct{}, 1000)
	s := &Specs{Output: output, Settings: file, SettingsChanged: func() { calls <- struct{}{} }}
	called := func(what string) {
		t.Helper()
		select {
		case <-calls:
		case <-time.After(patience):
			t.Fatalf("%s: not noticed", what)
		}
		time.Sleep(5 * minGather)
		for len(calls) > 0 {
			<-calls
		}
	}
	events := listen(t, s)
	await(t, events, "watching")
	called("the start")
	write(t, file, "A=1\n")
	s.Update() // Files has seen the directory
	called("the directory came")
	drain(events)
	write(t, file, "A=2\n")
	called("a write")
	write(t, file+".new", "A=3\n")
	must(t, os.Rename(file+".new", file))
	called("replaced")
	must(t, os.Remove(file))
	called("removed")
	// passed waits until all changes so far have been handled, by two files that come one after
	// the other: changes that are gathered together are handled in no order.
	passed := func(marks ...string) {
		t.Helper()
		for _, mark := range marks {
			mark = filepath.Join(filepath.Dir(output), mark)
			write(t, mark, "")
			for e := await(t, events, ""); e.Detail != mark; e = await(t, events, "") {
				if filepath.Dir(e.Detail) != filepath.Dir(output) {
					t.Errorf("event %v", e)
				}
			}
		}
	}
	passed("a", "b")
	for len(calls) > 0 {
		<-calls
	}
	write(t, filepath.Join(filepath.Dir(file), "other.env"), "")
	passed("c", "d")
	if len(calls) > 0 {
		t.Error("another file in the directory counts")
	}
}
