package rundir

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestMain makes the test binary a program that prints the directory, for tests that ask
// as another user.
func TestMain(m *testing.M) {
	if os.Getenv("PRINT_RUNDIR") != "" {
		_, _ = os.Stdout.WriteString(Default())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestDefaultOfAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run a program as another user")
	}
	const uid = 12345
	base, err := os.MkdirTemp("", "rundir") //nolint:usetesting // below t.TempDir an ordinary user cannot reach
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	own, foreign, binary := filepath.Join(base, "own"), filepath.Join(base, "foreign"), filepath.Join(base, "program")
	for _, err := range []error{
		os.Chmod(base, 0o755), os.WriteFile(binary, program, 0o755), os.Mkdir(own, 0o700), os.Chown(own, uid, uid), os.Mkdir(foreign, 0o777),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		env  []string
		want string
	}{
		{"XDG_RUNTIME_DIR", []string{"XDG_RUNTIME_DIR=" + own, "HOME=" + foreign}, own + "/cdigen"},
		{"XDG_RUNTIME_DIR of another user", []string{"XDG_RUNTIME_DIR=" + foreign, "HOME=" + own}, own + "/.cache/cdigen"},
		{"no XDG_RUNTIME_DIR", []string{"HOME=" + own}, own + "/.cache/cdigen"},
		{"a relative path", []string{"XDG_RUNTIME_DIR=own", "HOME=" + own}, own + "/.cache/cdigen"},
		{"the home directory of another user", []string{"HOME=" + foreign}, ""},
		{"nothing", nil, ""},
	} {
		cmd := exec.Command(binary)
		cmd.Dir, cmd.Env = "/", slices.Concat(c.env, []string{"PRINT_RUNDIR=1"})
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, out, err, c.want)
		}
	}
}

func TestDefaultOfRootIgnoresTheEnvironment(t *testing.T) {
	if os.Geteuid() != 0 || !writable("/run") {
		t.Skip("not root with a writable /run")
	}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	if got := Default(); got != System {
		t.Errorf("%s; want %s", got, System)
	}
}
