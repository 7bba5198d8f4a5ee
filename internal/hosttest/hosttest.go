// Package hosttest opens simulated hosts for the tests of other packages.
package hosttest

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// root is the top of the source tree.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../..")
}

// Path of a file below testdata.
func Path(elem ...string) string {
	return filepath.Join(append([]string{root(), "testdata"}, elem...)...)
}

// Load reads testdata/hosts/<name>.yaml.
func Load(t testing.TB, name string) *simhost.Description {
	t.Helper()
	d, err := simhost.Load(Path("hosts", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	d.Arch = cmp.Or(d.Arch, "amd64")
	return d
}

// Hosts returns the names of all hosts of testdata/hosts.
func Hosts(t testing.TB) (names []string) {
	t.Helper()
	files, err := filepath.Glob(Path("hosts", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no hosts: %v", err)
	}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".yaml"))
	}
	return names
}

// Simulated discovers a host of testdata/hosts.
func Simulated(t testing.TB, name string) *discover.Inventory {
	t.Helper()
	d := Load(t, name)
	return Discover(t, Open(t, d, t.TempDir()), d.Probe())
}

// Open builds a host in dir and opens it as if it were the whole machine, so
// that no path of a temporary directory gets into what is made of it.
func Open(t testing.TB, d *simhost.Description, dir string) hosttree.Host {
	t.Helper()
	if err := d.Build(dir, simhost.Options{}); err != nil {
		t.Fatal(err)
	}
	return Reopen(t, d, dir)
}

// Reopen opens a host that was built in dir before and perhaps changed since.
func Reopen(t testing.TB, d *simhost.Description, dir string) hosttree.Host {
	t.Helper()
	tree := func(hostPath, dir string) hosttree.Tree { return hosttree.NewTree(hostPath, os.DirFS(dir)) }
	table, err := os.ReadFile(filepath.Join(dir, simhost.NodeTable))
	if err != nil {
		t.Fatal(err)
	}
	dev, err := tree("/", dir).WithNodes(table)
	if err != nil {
		t.Fatal(err)
	}
	return hosttree.Host{
		Arch: d.Arch, Driver: tree(d.DriverRoot("/"), d.DriverRoot(dir)), Dev: dev,
		Proc: tree("/proc", filepath.Join(dir, "proc")), Sys: tree("/sys", filepath.Join(dir, "sys")),
	}
}

// Discover reads a host with all modules.
func Discover(t testing.TB, host hosttree.Host, probe nvmlprobe.Func) *discover.Inventory {
	t.Helper()
	inv, err := discover.Run(context.Background(), host, discover.Options{Probe: probe})
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// SkipWithout skips a test for want of set-up. In CI nothing is to be skipped for
// that: with CI=true the test fails.
func SkipWithout(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("no %s: %v", what, err)
	}
	t.Skipf("no %s: %v", what, err)
}
