package kmod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cdigen/cdigen/internal/hosttest"
)

// TestMain is the tests, or a modprobe that writes down how it was called: in another
// root there is nothing that a script could run with.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "modprobe" {
		os.Exit(m.Run())
	}
	if os.Args[2] == "nvidia-none" {
		fmt.Fprintln(os.Stderr, "modprobe: FATAL: Module nvidia-none not found\n  in directory /lib/modules/6.1.0")
		syscall.Exit(1)
	}
	if os.Args[2] == "silent" {
		syscall.Exit(3)
	}
	wd, _ := os.Getwd()
	said := fmt.Sprintln(os.Args[1:], os.Environ(), wd)
	if err := os.WriteFile("/called", []byte(said), 0o644); err != nil {
		syscall.Exit(2)
	}
	syscall.Exit(0)
}

// installed makes a root with this program as modprobe in one of its directories.
func installed(t *testing.T, dir string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, dir, "modprobe"), program, 0o755); err != nil {
		t.Fatal(err)
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
