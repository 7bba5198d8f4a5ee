package discover

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// tegraHost is a host of files, with the lists' lines.
func tegraHost(t *testing.T, lines string, files fstest.MapFS) (hosttree.Host, *Inventory) {
	t.Helper()
	files[driverfiles.CSVDir+"/l4t.csv"] = &fstest.MapFile{Data: []byte(lines)}
	tree := hosttree.NewTree("/", files)
	dev, err := tree.WithNodes([]byte("dev/nvmap 10 1 0666\ndev/nvidia0 195 0 0666\n"))
	if err != nil {
		t.Fatal(err)
	}
	return hosttree.Host{Driver: tree, Dev: dev, Arch: "arm64"}, &Inventory{}
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
