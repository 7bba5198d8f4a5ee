package nvmlprobe_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cdigen/cdigen/internal/nvmlprobe"
	"github.com/cdigen/cdigen/internal/trust"
)

// The test itself is the probe that is held: a script would be opened by its name.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "--library" {
		fmt.Println(`{"driverVersion": "550.54.15", "gpus": []}`)
		return
	}
	os.Exit(m.Run())
}

// A program that was found and held runs also when its name leads elsewhere, as after a change of
// the root directory.
func TestAHeldProbeRuns(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if path, err := nvmlprobe.Hold(); path != "" || err != nil || nvmlprobe.Find() != "" {
		t.Fatalf("found %q, %v where there is none", path, err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "cdigen-nvml")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(program))
	if found := nvmlprobe.Find(); found != program {
		t.Fatalf("found %q; want %q", found, program)
	}
	others := filepath.Join(t.TempDir(), "cdigen-nvml")
	if err := errors.Join(os.WriteFile(others, nil, 0o700), os.Chmod(others, 0o777)); err != nil { //nolint:gosec // that is the test
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(others))
	if path, err := nvmlprobe.Hold(); path != "" || !errors.As(err, new(*trust.Error)) {
		t.Errorf("a program that everyone can change: %q, %v", path, err)
	}
	t.Setenv("PATH", filepath.Dir(program))
	held, err := nvmlprobe.Hold()
	if err != nil || !strings.HasPrefix(held, "/proc/self/fd/") {
		t.Fatal(held, err)
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	report, err := nvmlprobe.Command(held, time.Minute)(context.Background(), "/lib/x")
	if err != nil || report.DriverVersion != "550.54.15" {
		t.Errorf("%+v, %v", report, err)
	}
}
