package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// The host of these tests: 8 GPUs, two of them in MIG mode.
const description = "testdata/hosts/demo.yaml"

// build compiles the programs under test.
var build = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(work, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	err := command(repository(), "go", "build", "-buildvcs=false", "-o", bin+"/", "./cmd/cdigen", "./cmd/cdigen-nvml", "./cmd/cdigen-hook")
	return bin, err
})

// simulated is the root directory of the simulated host, with device nodes,
// driver libraries and a fake NVML library in it.
var simulated = sync.OnceValues(func() (string, error) {
	nvml, err := fakenvml.Build()
	if err != nil {
		return "", err
	}
	d, err := simhost.Load(filepath.Join(repository(), description))
	if err != nil {
		return "", err
	}
	host := filepath.Join(work, "host")
	return host, d.Build(host, simhost.Options{NVMLLibrary: nvml})
})

// repository is the root of the source tree: go test runs in the package's folder.
func repository() string { return filepath.Join("..", "..") }

// command runs a program in dir. Its error has what the program printed.
func command(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, lastBytes(out, 2000))
	}
	return nil
}

// publish has cdigen publish the spec of the simulated host where every engine
// looks for it: in /etc/cdi, its default.
func publish(t *testing.T, args ...string) {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	host := simulatedHost(t)
	args = slices.Concat([]string{"generate", "--strict"}, hosttest.Flags(host, host), args)
	if err := command(work, filepath.Join(bin, "cdigen"), args...); err != nil {
		t.Fatal(err)
	}
}

func simulatedHost(t *testing.T) string {
	t.Helper()
	host, err := simulated()
	if err != nil {
		t.Fatal(err)
	}
	return host
}
