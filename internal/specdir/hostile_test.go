package specdir_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/ownedits"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/spectext"
)

const specHead = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n"

// numbered is a text of many pieces with a number in each.
func numbered(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// bomb is YAML whose aliases stand for many times what is there.
func bomb(levels int) string {
	var b strings.Builder
	b.WriteString("x0: &x0 [/dev/null]\n")
	for i := 1; i < levels; i++ {
		fmt.Fprintf(&b, "x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d,", i-1), 10), ","))
	}
	return b.String()
}

// hostileSpecs are files of a spec directory that were written to keep their readers
// busy, and some that come close to what is read. Those that engines can use are ok.
var hostileSpecs = map[string]struct {
	text func() string
	ok   bool
}{
	"nested arrays":    {func() string { return strings.Repeat("[", 6<<20) }, false},
	"nested objects":   {func() string { return strings.Repeat(`{"a":`, 1<<20) }, false},
	"nested, in lines": {func() string { return strings.Repeat("- ", 60_000) + "x" }, false},
	"deep, few lines": {func() string {
		var b strings.Builder
		for i := range 3000 {
			b.WriteString(strings.Repeat(" ", i) + "a:\n")
		}
		return b.String()
	}, false},
	"aliases":           {func() string { return specHead + bomb(40) }, false},
	"aliases as mounts": {func() string { return specHead + bomb(9) + "devices: *x8\n" }, false},
	"a chain of aliases": {func() string {
		return "x0: &x0 [a]\n" + numbered(30_000, "y%[1]d: &y%[1]d [*x0]\n") + specHead
	}, false},
	"mounts by alias": {func() string {
		return specHead + "containerEdits:\n  mounts: [&m {hostPath: /a, containerPath: /b}" + strings.Repeat(", *m", 60_000) + "]\n" +
			"devices: [{name: \"0\", containerEdits: {env: [A=1]}}]\n"
	}, true},
	"one key many times": {func() string { return specHead + strings.Repeat("a: 1\n", 60_000) }, false},
	"one key of many":    {func() string { return specHead + "annotations:\n" + strings.Repeat("  a/b: c\n", 60_000) }, false},
	"unknown fields":     {func() string { return specHead + numbered(8_000, "a%d: 1\n") }, false},
	"many keys":          {func() string { return specHead + "annotations:\n" + numbered(60_000, "  a/b%d: c\n") }, false},
	"small values":       {func() string { return specHead + "x: [" + strings.Repeat("a,", 5<<20) + "]" }, false},
	"lines":              {func() string { return specHead + strings.Repeat("\n", 10<<20) }, false},
	"too large":          {func() string { return specHead + "# " + strings.Repeat("x", 17<<20) }, false},
	"one comment":        {func() string { return oneDevice + "# " + strings.Repeat("x", 2<<20) }, true},
	"many devices, many mounts": {func() string {
		return specHead + "containerEdits:\n  mounts: [" + numbered(10_000, "{hostPath: /a, containerPath: /%d},") + "]\n" +
			"devices: [" + numbered(9_000, "{name: d%d, containerEdits: {env: [A=1]}},") + "]\n"
	}, true},
}

const oneDevice = specHead + "devices: [{name: \"0\", containerEdits: {env: [A=1]}}]\n"

// Whatever lies in a directory that engines read, looking at it ends and takes memory
// that has something to do with its size.
func TestHostileSpecFiles(t *testing.T) {
	for name, c := range hostileSpecs {
		t.Run(name, func(t *testing.T) {
			hosttest.Bounded(t, 1<<30, func() {
				dir := t.TempDir()
				file := filepath.Join(dir, "vendor.yaml")
				data := []byte(c.text())
				if err := os.WriteFile(file, data, 0o600); err != nil {
					t.Fatal(err)
				}
				_, err := specdir.Read(file)
				if (err == nil) != c.ok || err != nil && len(err.Error()) > 2000 {
					t.Errorf("Read: %v", err)
				}
				if _, _, err := spectext.Parse(data); (err == nil) != c.ok || err != nil && len(err.Error()) > 2000 {
					t.Errorf("Parse: %v", err)
				}
				if _, err := ownedits.Parse(data); err == nil || len(err.Error()) > 2000 {
					t.Errorf("ParseOwnEdits: %v", err)
				}
				devices, broken := specdir.ReadDirectories([]string{dir}).Devices()
				if (len(devices) > 0) != c.ok || (len(broken) == 0) != c.ok {
					t.Errorf("Devices: %d devices, %v", len(devices), broken)
				}
				found := specdir.ReadDirectories([]string{dir}).Neighbours(filepath.Join(dir, "nvidia.yaml"), &specs.Spec{Kind: "nvidia.com/gpu", Devices: []specs.Device{{Name: "0"}}})
				if shares := c.ok && strings.Contains(string(data), `name: "0"`); shares != (len(found) == 1) {
					t.Errorf("Neighbours: %v", found)
				}
			})
		})
	}
}

// What is not a regular file is not opened.
func TestOddSpecFiles(t *testing.T) {
	dir := t.TempDir()
	for name, put := range map[string]func(file string) error{
		"fifo":   func(file string) error { return unix.Mkfifo(file, 0o644) },
		"socket": func(file string) error { return unix.Mknod(file, unix.S_IFSOCK|0o644, 0) },
		"sparse": func(file string) error {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(file, 200<<30)
		},
		"link": func(file string) error { return os.Symlink("fifo.yaml", file) },
		"zero": func(file string) error { return os.Symlink("/dev/zero", file) },
	} {
		if err := put(filepath.Join(dir, name+".yaml")); err != nil {
			t.Fatal(err)
		}
	}
	if devices, broken := specdir.ReadDirectories([]string{dir}).Devices(); len(devices) != 0 || len(broken) != 5 {
		t.Error(devices, broken)
	}
	if found := specdir.ReadDirectories([]string{dir}).Neighbours(filepath.Join(dir, "nvidia.yaml"), &specs.Spec{Kind: "nvidia.com/gpu"}); len(found) != 0 {
		t.Error(found)
	}
}
