package hosttree_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cdigen/cdigen/internal/hosttree"
)

// What a discovery looked up is recorded whether it exists or not, with the way to it.
func TestLookups(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"usr/lib", "real", "dev"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/real", filepath.Join(dir, "opt")); err != nil {
		t.Fatal(err)
	}
	l := hosttree.NewLookups()
	host := hosttree.Local("amd64", dir, dir, "/proc", "/sys").Record(l)
	if _, err := host.Driver.Stat("/opt/driver/libcuda.so.1"); err == nil {
		t.Fatal("a file that is not there")
	}
	if _, err := host.Driver.ReadDir("/usr/lib"); err != nil {
		t.Fatal(err)
	}
	l.AddFile("/etc/cdi/nvidia.yaml")
	for name, want := range map[string]bool{
		filepath.Join(dir, "opt"):                    true, // a link on the way
		filepath.Join(dir, "real/driver"):            true, // where it ends for now
		filepath.Join(dir, "real/other"):             false,
		filepath.Join(dir, "usr"):                    true,
		filepath.Join(dir, "usr/lib/libanything.so"): true,
		filepath.Join(dir, "usr/bin"):                false,
		"/etc/cdi/nvidia.yaml":                       true,
		"/etc/cdi/other.yaml":                        false,
		"/etc/cdi":                                   true,
	} {
		if got := l.Has(name); got != want {
			t.Errorf("%s: looked up: %v, want %v", name, got, want)
		}
	}
	for _, want := range []string{filepath.Join(dir, "real"), filepath.Join(dir, "usr/lib"), "/etc/cdi", dir} {
		if !slices.Contains(l.Directories(), want) {
			t.Errorf("%s is not among the directories", want)
		}
	}
}
