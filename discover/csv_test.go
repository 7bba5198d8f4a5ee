package discover

import (
	"bytes"
	"path"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestParseCSV(t *testing.T) {
	entries, bad := ParseCSV([]byte("# devices\n\ndev, /dev/dri/card*\r\n  lib ,/usr//lib/libcuda.so.1.1/ \nsym,/etc/vulkan/icd.d/nvidia_icd.json\ndir, /dev/dri/by-path\n" +
		"dev /dev/nvmap\nblk, /dev/sda\nlib, usr/lib/x.so\nlib, /usr/lib/../../etc/shadow\nlib, \nlib, /a[\nlib, /a\x1bb\nlib, /" + strings.Repeat("a", 5000)))
	want := []CSVEntry{{3, "dev", "/dev/dri/card*"}, {4, "lib", "/usr/lib/libcuda.so.1.1"}, {5, "sym", "/etc/vulkan/icd.d/nvidia_icd.json"}, {6, "dir", "/dev/dri/by-path"}}
	if diff := cmp.Diff(want, entries); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	for i, b := range bad {
		if b.Line != 7+i || b.Err == nil {
			t.Errorf("%+v", b)
		}
	}
	if len(bad) != 8 {
		t.Errorf("%d lines are not understood, want 8", len(bad))
	}
	entries, bad = ParseCSV(bytes.Repeat([]byte("dev, /dev/nvmap\n"), maxCSVEntries+2))
	if len(entries) != maxCSVEntries || len(bad) != 2 || bad[0].Line != maxCSVEntries+1 {
		t.Errorf("%d entries, %v", len(entries), bad)
	}
}

func FuzzParseCSV(f *testing.F) {
	f.Add([]byte("dev, /dev/dri/card*\nsym, /usr/lib/aarch64-linux-gnu/tegra\n"))
	f.Add([]byte("lib, /../etc/shadow\ndir,/\n#\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, bad := ParseCSV(data)
		line := 0
		for _, e := range entries {
			if e.Line <= line || !path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path || strings.ContainsAny(e.Path, "\x00\n") {
				t.Errorf("%+v after line %d", e, line)
			}
			line = e.Line
		}
		if max := bytes.Count(data, []byte("\n")) + 1; len(entries)+len(bad) > max {
			t.Errorf("%d lines of %d", len(entries)+len(bad), max)
		}
	})
}

// tegraHost is a host of files, with the lists' lines.
func tegraHost(t *testing.T, lines string, files fstest.MapFS) (Host, *Inventory) {
	t.Helper()
	files[csvDir+"/l4t.csv"] = &fstest.MapFile{Data: []byte(lines)}
	tree := NewTree("/", files)
	dev, err := tree.WithNodes([]byte("dev/nvmap 10 1 0666\ndev/nvidia0 195 0 0666\n"))
	if err != nil {
		t.Fatal(err)
	}
	return Host{Driver: tree, Dev: dev, Arch: "arm64"}, &Inventory{}
}

func TestAListCostsOnlyItsBadLines(t *testing.T) {
	host, inv := tegraHost(t, strings.Join([]string{
		"dev, /dev/nvmap", "dev, /dev/nv*", "dev, /dev/file", "dir, /", "dir, /dev", "lib, /run/docker.sock", "sym, /usr/lib/all", "lib, /usr/lib/dir", "dir, /usr/lib/a",
		"lib, /usr/lib/*", "sym, /usr/lib/loop", "sym, /usr/lib/gone", "dir, /usr/lib/dir", "dev, /dev/absent",
	}, "\n"), fstest.MapFS{
		"dev/file": {}, "run/docker.sock": {}, "usr/lib/a": {}, "usr/lib/all": link("/"), "usr/lib/dir/x": {}, "usr/lib/loop": link("loop"), "usr/lib/gone": link("nowhere"),
	})
	l := readCSV(host, inv)
	var nodes, files []string
	for _, n := range l.nodes {
		nodes = append(nodes, n.Path)
	}
	for _, f := range l.files {
		files = append(files, f.name)
	}
	if diff := cmp.Diff([]string{"/dev/nvmap", "/dev/nvidia0"}, nodes); diff != "" {
		t.Errorf("nodes: %s", diff)
	}
	if diff := cmp.Diff([]string{"usr/lib/a", "usr/lib/dir"}, files); diff != "" {
		t.Errorf("files: %s", diff)
	}
	if len(inv.Findings) != 2 || inv.Findings[0].ID != ListLineInvalid || !strings.HasSuffix(inv.Findings[0].Subject, "l4t.csv, line 3") || inv.Findings[1].ID != ListPathMissing {
		t.Errorf("%+v", inv.Findings)
	}
}

// A path belongs to the type by which it can be used, whatever a line before says.
func TestAPathIsJudgedByEachOfItsLines(t *testing.T) {
	host, inv := tegraHost(t, "lib, /usr/lib/dir\ndir, /usr/lib/dir\n", fstest.MapFS{"usr/lib/dir/x": {}})
	if l := readCSV(host, inv); len(l.files) != 1 || !l.files[0].dir {
		t.Errorf("%+v", l.files)
	}
}
