package specwatch

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// Mounts at what a generation looked at, and on the way to it, are events; hundreds of others
// are not.
func TestMounts(t *testing.T) {
	dir := t.TempDir()
	wanted, link := filepath.Join(dir, "run/driver"), filepath.Join(dir, "current")
	must(t, os.MkdirAll(filepath.Join(wanted, "usr/lib"), 0o755), os.Symlink("run", link), os.MkdirAll(filepath.Join(dir, "other"), 0o755))
	mount := func(at string) {
		t.Helper()
		if err := unix.Mount("cdigen-test", at, "tmpfs", 0, "size=64k"); err != nil {
			hosttest.SkipWithout(t, "mount", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	}
	l := hosttree.NewLookups()
	l.AddFile(filepath.Join(link, "driver/usr/lib/libcuda.so.1"))
	s := &Mounts{}
	s.Update(l)
	events := listen(t, s)
	await(t, events, "watching")
	quiet := func(what string) {
		t.Helper()
		mount(wanted) // seen after whatever was before
		if e := await(t, events, ""); e.Detail != "mounted "+wanted {
			t.Errorf("%s: event %v", what, e)
		}
		must(t, unix.Unmount(wanted, 0))
		await(t, events, "unmounted "+wanted)
	}
	for i := range 200 {
		at := filepath.Join(dir, "other", strconv.Itoa(i))
		must(t, os.Mkdir(at, 0o755))
		mount(at)
	}
	quiet("mounts elsewhere")
	mount(filepath.Join(dir, "run")) // above it
	await(t, events, "mounted "+filepath.Join(dir, "run"))
	must(t, unix.Mount("", filepath.Join(dir, "run"), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	await(t, events, filepath.Join(dir, "run"))
	must(t, unix.Unmount(filepath.Join(dir, "run"), 0))
	await(t, events, "unmounted "+filepath.Join(dir, "run"))

	// What the next generation looks at matters from then on, and what mattered to the last one
	// until then.
	l = hosttree.NewLookups()
	l.AddFile(filepath.Join(dir, "other/7/x"))
	mount(wanted)
	s.Update(l)
	await(t, events, "mounted "+wanted)
	must(t, unix.Unmount(wanted, 0))
	time.Sleep(5 * minGather)
	must(t, unix.Unmount(filepath.Join(dir, "other/7"), 0))
	if e := await(t, events, ""); e.Detail != "unmounted "+filepath.Join(dir, "other/7") {
		t.Errorf("event %v", e)
	}
}
