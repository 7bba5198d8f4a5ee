package main

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// buildHook builds the program as the Makefile does.
func buildHook(t testing.TB) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "cdigen-hook")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// CVE-2025-23266: hooks were given the image's LD_PRELOAD. No loader is run for
// this program, and no part of it asks the environment for anything.
func TestProgramIsStatic(t *testing.T) {
	f, err := elf.Open(buildHook(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the program has a header of type %v", p.Type)
		}
	}
}

// The program starts with every container, so it has no command-line library and
// none of CDI in it.
func TestProgramIsSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, not := range []string{"spf13", "cncf.io", "go-nvml", "yaml", "net", "os/exec", "plugin"} {
		for dep := range strings.Lines(string(out)) {
			if dep = strings.TrimSpace(dep); dep == not || strings.Contains(dep, not) && not != "net" {
				t.Errorf("the program has %s in it", dep)
			}
		}
	}
}

func TestStatuses(t *testing.T) {
	program := buildHook(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"root": {"path": "/"}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	state := `{"bundle": "` + dir + `"}`
	for _, c := range []struct {
		args, stdin string
		status      int
		stdout      string
		stderr      string
	}{
		{"", "", 0, "usage: cdigen-hook HOOK", ""},
		{"--help", "", 0, "usage: cdigen-hook HOOK", ""},
		{"--version", "", 0, "cdigen-hook devel", ""},
		{"later --flag x", "", 0, "", `unknown hook "later": nothing done`},
		{"noop", "", 0, "", ""},
		{"apply --later --steps=ldcache", state, 0, "", "the container's root / is the root of the host"},
		{"apply --steps=ldcache", state, 0, "", "is the root of the host"},
		{"apply --steps=ldcache --strict", state, 1, "", "is the root of the host"},
		{"update-ldcache --folder /usr/lib", "{", 0, "", "read the container's state"},
		{"update-ldcache --folder /usr/lib --strict", "", 1, "", "read the container's state"},
		{"create-symlinks --link a::/b", `{"root": "` + dir + `/rootfs"}`, 0, "", "is not a mount point"},
		{"create-symlinks --link a::/b", `{"root": ""}`, 0, "", "has no root"},
	} {
		cmd := exec.Command(program, strings.Fields(c.args)...)
		cmd.Stdin = strings.NewReader(c.stdin)
		// An image may set what it likes.
		cmd.Env = []string{"LD_PRELOAD=/nowhere.so", "LD_LIBRARY_PATH=/", "LD_AUDIT=/nowhere.so", "GCONV_PATH=/", "GODEBUG=madvdontneed=1", "GOTRACEBACK=crash", "PATH=", "NVIDIA_CTK_DEBUG=true"}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != c.status {
			t.Errorf("%s: exit status %d, want %d", c.args, got, c.status)
		}
		if !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) || c.stderr == "" && stderr.Len() > 0 {
			t.Errorf("%s printed %q and %q", c.args, stdout.String(), stderr.String())
		}
	}
}

// Who never writes the state must not keep a container from starting: the hook
// gives up before the runtime ends it.
func TestStateThatNeverEnds(t *testing.T) {
	cmd := exec.Command(buildHook(t), "apply", "--steps=ldcache")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "not done within 5s") {
		t.Error(err, string(out))
	}
}

// BenchmarkStart is what the program costs when it does nothing.
func BenchmarkStart(b *testing.B) {
	program := buildHook(b)
	for b.Loop() {
		if err := exec.Command(program, "noop").Run(); err != nil {
			b.Fatal(err)
		}
	}
}
