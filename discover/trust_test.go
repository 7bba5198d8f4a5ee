package discover

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
)

func TestOneFindingForAllThatLeadsThroughADirectory(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o755), os.Chmod(open, 0o777), os.WriteFile(filepath.Join(dir, "own"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	host := hosttree.Host{Driver: hosttree.DirTree(dir)}
	host.Dev = host.Driver
	inv := &Inventory{Libraries: []Library{{Name: "own", Path: "/own"}, {Name: "none", Path: "/none"}}}
	for i := range 5 {
		name := fmt.Sprintf("open/f%d", i)
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		inv.Libraries = append(inv.Libraries, Library{Path: "/" + name}, Library{Path: "/" + name})
		inv.Files = append(inv.Files, File{Kind: driverfiles.Config, HostPath: filepath.Join(dir, name)})
	}
	inv.GPUs = []GPU{{Node: &Node{Path: "/open/f0"}, DRM: []Node{{Path: "/own"}, {Path: "/open/f1"}},
		MIGDevices: []MIGDevice{{Nodes: []Node{{Path: "/own"}, {Path: "/open/f2"}}}, {Nodes: []Node{{Path: "/planned"}}}}}}
	if err := (trusts{}).Discover(t.Context(), host, inv); err != nil {
		t.Fatal(err)
	}
	if len(inv.Libraries) != 1 || inv.Libraries[0].Name != "own" || len(inv.Files) != 0 {
		t.Errorf("libraries %+v, files %+v", inv.Libraries, inv.Files)
	}
	if g := &inv.GPUs[0]; g.Node != nil || g.Usable() || len(g.DRM) != 1 || g.MIGDevices[0].Nodes != nil || g.MIGDevices[1].Nodes == nil {
		t.Errorf("%+v", g)
	}
	if len(inv.Findings) != 1 {
		t.Fatalf("findings %+v", inv.Findings)
	}
	f := inv.Findings[0]
	want := fmt.Sprintf("can be written by everyone: 5 paths are left out (%s/f0, %s/f1, %s/f2, …), since others than root decide what is there", open, open, open)
	if f.Subject != open || f.ID != Untrusted || f.Severity != Warning || f.Message != want {
		t.Errorf("%+v; want %q", f, want)
	}
}

// The record of what is looked at for a capture has the same rule.
func TestTheRuleStaysWithTheTree(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "dev/f")
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o644), os.Chmod(file, 0o666)); err != nil {
		t.Fatal(err)
	}
	tree, err := hosttree.DirTree(dir).WithNodes([]byte("dev/nvidia0 195 0 0666 12345 12345\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tree := range []hosttree.Tree{hosttree.DirTree(dir), tree, tree.Record(hosttree.NewLookups())} {
		if err := tree.Check("dev/f"); err == nil || !strings.Contains(err.Error(), "can be written by everyone") {
			t.Error(err)
		}
	}
	if err := tree.Check("dev/nvidia0"); err != nil {
		t.Errorf("a node of the table: %v", err)
	}
}
