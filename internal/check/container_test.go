package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// contained is a container's root that is not to lead out of itself, with a directory of
// the host beside it.
type contained struct{ root, host string }

func newContained(t *testing.T) contained {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can make device nodes")
	}
	c := contained{t.TempDir(), t.TempDir()}
	c.node(t, "dev/nvidia0", 195, 0)
	for _, name := range []string{"card7", "nvidia-secret"} {
		if err := unix.Mknod(filepath.Join(c.host, name), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c contained) node(t *testing.T, name string, major, minor uint32) {
	t.Helper()
	at := filepath.Join(c.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), unix.Mknod(at, unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor)))); err != nil {
		t.Fatal(err)
	}
}

func (c contained) paths(t *testing.T) string {
	t.Helper()
	list, err := nodesBelow(c.root)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, n := range list {
		paths = append(paths, n.Path)
	}
	return strings.Join(paths, " ")
}

// A container chooses the links in its /dev. They must not show what the host has.
func TestLinksOfAContainerLeadNowhereOnTheHost(t *testing.T) {
	for _, name := range []string{"dev/nvidia-caps", "dev/dri", "dev/nvidia-caps-imex-channels", "dev"} {
		for _, target := range []func(c contained) string{
			func(c contained) string { return c.host },
			func(c contained) string { return strings.Repeat("../", 40) + c.host[1:] },
			func(c contained) string { return "/proc/self/root" + c.host },
			func(c contained) string { return fmt.Sprintf("/proc/%d/root%s", os.Getpid(), c.host) },
		} {
			c := newContained(t)
			at := filepath.Join(c.root, name)
			if err := errors.Join(os.RemoveAll(at), os.Symlink(target(c), at)); err != nil {
				t.Fatal(err)
			}
			list, err := nodesBelow(c.root)
			if name == "dev" {
				if err == nil {
					t.Errorf("%s -> %s: %v", name, target(c), list)
				}
				continue
			}
			if got := c.paths(t); got != "/dev/nvidia0" {
				t.Errorf("%s -> %s: %s", name, target(c), got)
			}
		}
	}
	// Inside of it they lead as they do in the container.
	c := newContained(t)
	c.node(t, "caps/nvidia-cap1", 240, 1)
	if err := os.Symlink("/caps", filepath.Join(c.root, "dev/nvidia-caps")); err != nil {
		t.Fatal(err)
	}
	if got := c.paths(t); got != "/dev/nvidia0 /dev/nvidia-caps/nvidia-cap1" {
		t.Error(got)
	}
}

// Whatever lies in a container's /dev, it is looked at and not opened.
func TestOddFilesOfAContainer(t *testing.T) {
	c := newContained(t)
	at := func(name string) string { return filepath.Join(c.root, "dev", name) }
	err := errors.Join(
		unix.Mkfifo(at("nvidia-fifo"), 0o600), unix.Mkfifo(at("dri"), 0o600),
		unix.Mknod(at("nvidia-caps-imex-channels"), unix.S_IFSOCK|0o600, 0),
		unix.Mknod(at("nvidia-block"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))),
		os.WriteFile(at("nvidia-huge"), nil, 0o600), os.Truncate(at("nvidia-huge"), 200<<30),
		os.Symlink("/dev/nvidia0", at("nvidia-link")), os.MkdirAll(at(strings.Repeat("nvidia-deep/", 300)), 0o700),
		os.Symlink("nvidia-caps", at("nvidia-caps")),
	)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := nodesBelow(c.root); err == nil || !errors.Is(err, unix.ELOOP) {
		t.Error(list, err)
	}
	if err := os.Remove(at("nvidia-caps")); err != nil {
		t.Fatal(err)
	}
	if got := c.paths(t); got != "/dev/nvidia0" {
		t.Error(got)
	}
	if err := os.Mkdir(at("nvidia-caps"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range maxContainerNames + 1 {
		if err := os.Symlink("x", at(fmt.Sprint("nvidia-caps/", i))); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := nodesBelow(c.root); err == nil || !strings.Contains(err.Error(), "list /dev/nvidia-caps: more than 16384 names") {
		t.Error(list, err)
	}
}

// Containers whose file systems do not answer keep a limited number of threads.
func TestLooksIntoContainersAreLimited(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range cap(slots()) {
		slots() <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := (&Container{Root: root}).findNodes(ctx)
	for range cap(slots()) {
		<-slots()
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("more are looked into: %v", err)
	}
	if _, err := (&Container{Root: root}).findNodes(context.Background()); err != nil {
		t.Error(err)
	}
}
