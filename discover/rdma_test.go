package discover_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// beside discovers what a host has beside NVIDIA's driver, after a change of its directory.
func beside(t *testing.T, d *simhost.Description, o discover.Options, change func(dir string)) *discover.Inventory {
	t.Helper()
	dir := t.TempDir()
	hosttest.Open(t, d, dir)
	if change != nil {
		change(dir)
	}
	o.WithoutDriver = true
	inv, err := discover.Run(t.Context(), hosttest.Reopen(t, d, dir), o)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func names(nodes []discover.Node) string {
	var list []string
	for _, n := range nodes {
		list = append(list, strings.TrimPrefix(n.Path, "/dev/"))
	}
	return strings.Join(list, " ")
}

func nicNames(inv *discover.Inventory) (list []string) {
	for _, nic := range inv.NICs {
		list = append(list, nic.Name+" "+nic.PCI+" "+names(nic.Nodes))
	}
	return list
}

func findingIDs(inv *discover.Inventory) (ids []discover.ID) {
	for _, f := range inv.Findings {
		ids = append(ids, f.ID)
	}
	return ids
}

func TestNetworkCardsAreNVIDIAsOnly(t *testing.T) {
	d := hosttest.Load(t, "everything")
	inv := beside(t, d, discover.Options{NICs: true}, nil)
	want := []string{
		"mlx5_0 0000:18:00.0 infiniband/uverbs0 infiniband/issm0 infiniband/umad0 infiniband/rdma_cm",
		"mlx5_1 0000:5d:00.0 infiniband/uverbs1 infiniband/issm1 infiniband/issm2 infiniband/umad1 infiniband/umad2 infiniband/rdma_cm",
		"mlx5_2 0000:5d:00.0 infiniband/uverbs2 infiniband/rdma_cm",
	}
	if got := nicNames(inv); !slices.Equal(got, want) || len(inv.Findings) > 0 {
		t.Errorf("got\n%s\nwant\n%s\nfindings %v", strings.Join(got, "\n"), strings.Join(want, "\n"), inv.Findings)
	}
	if inv := beside(t, d, discover.Options{}, nil); len(inv.NICs) > 0 {
		t.Error("network cards were not asked for")
	}
}

func TestANetworkCardWithoutItsNodeIsLeftOut(t *testing.T) {
	d := hosttest.Load(t, "everything")
	d.MissingNodes = []string{"infiniband/uverbs0", "infiniband/umad1", "infiniband/rdma_cm"}
	inv := beside(t, d, discover.Options{NICs: true}, func(dir string) {
		// Another driver has the number of the third card's node now.
		if err := os.WriteFile(filepath.Join(dir, "sys/class/infiniband_verbs/uverbs2/dev"), []byte("231:300\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	want := []string{"mlx5_1 0000:5d:00.0 infiniband/uverbs1 infiniband/issm1 infiniband/issm2 infiniband/umad2"}
	if got := nicNames(inv); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	ids := findingIDs(inv)
	if !slices.Equal(ids, []discover.ID{discover.NodeMissing, discover.NodeMissing, discover.NodeWrong}) {
		t.Errorf("findings %v", inv.Findings)
	}
	if f := inv.Findings[0]; f.Severity != discover.Warning || f.Message != "does not exist: its network card is left out" {
		t.Errorf("finding %v", f)
	}
}

func TestLibrariesOfNetworkCards(t *testing.T) {
	d := hosttest.Load(t, "everything")
	const lib = "usr/lib/x86_64-linux-gnu/"
	files := []string{
		lib + "libibverbs.so.1.14", lib + "librdmacm.so.1", lib + "libmlx5.so.1.25", "lib/x86_64-linux-gnu/libnl-3.so.200",
		lib + "libibverbs/libefa-rdmav34.so", "etc/libibverbs.d/mlx5.driver", "etc/libibverbs.d/efa.driver",
	}
	inv := beside(t, d, discover.Options{NICs: true, NICLibraries: true}, func(dir string) {
		for _, name := range files {
			file := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for name, target := range map[string]string{
			"libibverbs.so.1": "libibverbs.so.1.14", "libmlx5.so.1": "libmlx5.so.1.25", "libibverbs/libmlx5-rdmav34.so": "../libmlx5.so.1.25",
		} {
			if err := os.Symlink(target, filepath.Join(dir, lib, name)); err != nil {
				t.Fatal(err)
			}
		}
	})
	var got []string
	for _, f := range inv.NICFiles {
		got = append(got, strings.Join(f.Targets, " ")+" <- "+f.HostPath)
	}
	want := []string{
		"libibverbs.so.1 <- /" + lib + "libibverbs.so.1.14",
		"librdmacm.so.1 <- /" + lib + "librdmacm.so.1",
		"libmlx5.so.1 <- /" + lib + "libmlx5.so.1.25",
		"libnl-3.so.200 <- /lib/x86_64-linux-gnu/libnl-3.so.200",
		"/" + lib + "libibverbs/libmlx5-rdmav34.so <- /" + lib + "libmlx5.so.1.25",
		"/etc/libibverbs.d/mlx5.driver <- /etc/libibverbs.d/mlx5.driver",
	}
	if !slices.Equal(got, want) || len(inv.Findings) > 0 {
		t.Errorf("got\n%s\nwant\n%s\nfindings %v", strings.Join(got, "\n"), strings.Join(want, "\n"), inv.Findings)
	}
	if inv := beside(t, d, discover.Options{NICs: true, NICLibraries: true}, nil); !slices.Equal(findingIDs(inv), []discover.ID{discover.NICLibrariesMissing}) {
		t.Errorf("without libraries: %v", inv.Findings)
	}
}

func TestGPUsForVirtualMachines(t *testing.T) {
	for _, c := range []struct {
		how  discover.Options
		want []string
	}{
		{discover.Options{Passthrough: true}, []string{"0 0000:01:00.0 vfio/12", "1 0000:21:00.0 ", "2 0000:41:00.0 vfio/33", "3 0000:42:00.0 vfio/33", "4 0000:61:00.0 "}},
		{discover.Options{Passthrough: true, SharedNode: true}, []string{"0 0000:01:00.0 vfio/12 vfio/vfio", "1 0000:21:00.0 ", "2 0000:41:00.0 vfio/33 vfio/vfio", "3 0000:42:00.0 vfio/33 vfio/vfio", "4 0000:61:00.0 "}},
		{discover.Options{Passthrough: true, IOMMUFD: true, SharedNode: true}, []string{
			"0 0000:01:00.0 vfio/devices/vfio0 vfio/devices/vfio1 iommu", "1 0000:21:00.0 ",
			"2 0000:41:00.0 vfio/devices/vfio3 vfio/devices/vfio4 iommu", "3 0000:42:00.0 vfio/devices/vfio3 vfio/devices/vfio4 iommu", "4 0000:61:00.0 ",
		}},
	} {
		inv := beside(t, hosttest.Load(t, "vfio"), c.how, nil)
		var got []string
		for _, g := range inv.Passed {
			got = append(got, g.Name+" "+g.PCI+" "+names(g.Nodes))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: got\n%s\nwant\n%s", c.how, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
		if !slices.Equal(findingIDs(inv), []discover.ID{discover.GPUNotPassed, discover.GPUNotPassed}) {
			t.Errorf("%+v: findings %v", c.how, inv.Findings)
		}
	}
}

func TestIOMMUFDNeedsTheKernelsNodes(t *testing.T) {
	d := hosttest.Load(t, "vfio")
	d.IOMMUFD = false
	inv := beside(t, d, discover.Options{Passthrough: true, IOMMUFD: true}, nil)
	for _, g := range inv.Passed {
		if g.Nodes != nil {
			t.Errorf("%s has %v", g.PCI, g.Nodes)
		}
	}
	if f := inv.Findings[0]; f.ID != discover.GPUNotPassed || !strings.Contains(f.Message, "VFIO_DEVICE_CDEV") {
		t.Errorf("finding %v", f)
	}
}

// Bridges of an IOMMU group stay with the kernel.
func TestABridgeInTheGroupDoesNotMatter(t *testing.T) {
	d := hosttest.Load(t, "vfio")
	inv := beside(t, d, discover.Options{Passthrough: true}, func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "sys/bus/pci/devices/0000:21:00.1/class"), []byte("0x060400\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	if got := names(inv.Passed[1].Nodes); got != "vfio/20" {
		t.Errorf("got %q", got)
	}
}

// Who can exchange a node decides which device a virtual machine gets.
func TestNodesOfVirtualMachinesThatOthersCanChange(t *testing.T) {
	d := hosttest.Load(t, "vfio")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	table, err := os.ReadFile(filepath.Join(dir, simhost.NodeTable))
	if err != nil {
		t.Fatal(err)
	}
	vfio := filepath.Join(dir, "dev/vfio")
	for mode, want := range map[os.FileMode]string{0o755: "", 0o777: vfio + "/12 can be changed by others than root"} {
		if err := errors.Join(os.MkdirAll(vfio, 0o755), os.Chmod(vfio, mode)); err != nil {
			t.Fatal(err)
		}
		if host.Dev, err = hosttree.DirTree(dir).WithNodes(table); err != nil {
			t.Fatal(err)
		}
		inv, err := discover.Run(t.Context(), host, discover.Options{Passthrough: true, WithoutDriver: true})
		if err != nil {
			t.Fatal(err)
		}
		if g := inv.Passed[0]; g.Problem != want || (g.Nodes == nil) != (want != "") {
			t.Errorf("in a directory of mode %o: %q, nodes %s", mode, g.Problem, names(g.Nodes))
		}
	}
}

// countingFS counts what is looked up.
type countingFS struct {
	fs.ReadLinkFS
	n int
}

func (c *countingFS) Open(name string) (fs.File, error) {
	c.n++
	return c.ReadLinkFS.Open(name)
}

func (c *countingFS) ReadLink(name string) (string, error) {
	c.n++
	return c.ReadLinkFS.ReadLink(name)
}

func (c *countingFS) Lstat(name string) (fs.FileInfo, error) {
	c.n++
	return c.ReadLinkFS.Lstat(name)
}

// A host without any of them pays for the kinds with a look at one directory.
func TestKindsCostNothingWhereTheHostHasNone(t *testing.T) {
	d := hosttest.Load(t, "h100x8")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	count := func(o discover.Options) int {
		sys := &countingFS{ReadLinkFS: os.DirFS(filepath.Join(dir, "sys")).(fs.ReadLinkFS)}
		host.Sys = hosttree.NewTree("/sys", sys)
		if _, err := discover.Run(t.Context(), host, o); err != nil {
			t.Fatal(err)
		}
		return sys.n
	}
	without := count(discover.Options{})
	with := count(discover.Options{NICs: true, Passthrough: true, HostNodes: true})
	if with > without+3 {
		t.Errorf("%d lookups in sysfs, and %d with all kinds", without, with)
	}
}
