package kmod

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/hosttest"
)

// installed makes a root with a modprobe in one of its directories that writes down how it
// was called. It is static, since the root has nothing else.
func installed(t *testing.T, dir string) string {
	t.Helper()
	root := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(root, dir)+"/modprobe", "./testdata/modprobe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return root
}

func TestModprobeRunsInItsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chroot takes root's rights")
	}
	for _, dir := range []string{"sbin", "usr/sbin", "usr/bin"} {
		root := installed(t, dir)
		if err := Load(t.Context(), root, "nvidia-uvm"); err != nil {
			t.Error(err)
			continue
		}
		said, err := os.ReadFile(filepath.Join(root, "called"))
		want := "[-- nvidia-uvm] [PATH=/sbin:/usr/sbin:/bin:/usr/bin LC_ALL=C] /\n"
		if string(said) != want {
			t.Errorf("%s: %q, %v; want %q", dir, said, err, want)
		}
	}
	root := installed(t, "sbin")
	for module, want := range map[string]string{
		"nvidia-none": "load the kernel module nvidia-none: modprobe: FATAL: Module nvidia-none not found in directory /lib/modules/6.1.0",
		"silent":      "load the kernel module silent: exit status 3",
	} {
		if err := Load(t.Context(), root, module); err == nil || err.Error() != want {
			t.Errorf("%v; want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Load(ctx, root, "nvidia"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

func TestModprobeOfPATHIsThatOfThisSystem(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"$0 $*\" >" + dir + "/called\n"
	if err := os.WriteFile(filepath.Join(dir, "modprobe"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if err := Load(t.Context(), "/", "nvidia"); err != nil {
		t.Fatal(err)
	}
	if said, err := os.ReadFile(dir + "/called"); string(said) != dir+"/modprobe -- nvidia\n" {
		t.Errorf("%q, %v", said, err)
	}
}

func TestARootWithoutModprobeIsTold(t *testing.T) {
	root := t.TempDir()
	if err := Load(t.Context(), root, "nvidia"); err == nil || !strings.Contains(err.Error(), "there is no modprobe in "+root) {
		t.Errorf("%v", err)
	}
	if err := Load(t.Context(), root+"/none", "nvidia"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestWhoMayNotChangeTheRootIsTold(t *testing.T) {
	root := installed(t, "sbin")
	hosttest.WithoutRights(t, func() {
		if err := Load(t.Context(), root, "nvidia"); err == nil || !strings.Contains(err.Error(), "operation not permitted: run as root") {
			t.Errorf("%v", err)
		}
	})
}
