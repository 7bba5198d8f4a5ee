package edits

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/editset"
	"github.com/cdigen/cdigen/internal/hosttest"
)

func library(name, soname, dir string, names ...string) discover.Library {
	path := "/usr/lib/x86_64-linux-gnu/" + strings.TrimPrefix(dir+"/", "/") + name
	return discover.Library{Name: name, SONAME: soname, Dir: dir, Names: names, Path: path, HostPath: "/run/nvidia/driver" + path}
}

func targets(e specs.ContainerEdits, source string) (list []string) {
	for _, m := range e.Mounts {
		if strings.HasSuffix(m.HostPath, "/"+source) {
			list = append(list, m.ContainerPath)
		}
	}
	return list
}

func TestLibrariesAreMountedUnderTheNamesProgramsLoad(t *testing.T) {
	inv := &discover.Inventory{Arch: "amd64", Libraries: []discover.Library{
		library("libGLX_nvidia.so.550.54.15", "libGLX_nvidia.so.0", ""),
		library("libcuda.so.550.54.15", "libcuda.so.1", "", "libcuda.so"),
		library("libnvidia-eglcore.so.550.54.15", "libnvidia-eglcore.so.550.54.15", ""),
		library("libnvidia-none.so.550.54.15", "", ""),
		library("libvdpau_nvidia.so.550.54.15", "libvdpau_nvidia.so.1", "vdpau"),
	}}
	e := Common(inv, Options{Layout: "auto"})
	for source, names := range map[string][]string{
		"libGLX_nvidia.so.550.54.15":     {"libGLX_nvidia.so.0"},
		"libcuda.so.550.54.15":           {"libcuda.so", "libcuda.so.1"},
		"libnvidia-eglcore.so.550.54.15": {"libnvidia-eglcore.so.550.54.15"},
		"libnvidia-none.so.550.54.15":    {"libnvidia-none.so.550.54.15"},
		"libvdpau_nvidia.so.550.54.15":   {"vdpau/libvdpau_nvidia.so.1"},
	} {
		var want []string
		for _, dir := range []string{"/usr/lib/x86_64-linux-gnu/", "/usr/lib64/"} {
			for _, name := range names {
				want = append(want, dir+name)
			}
		}
		if got := targets(e, source); !slices.Equal(got, want) {
			t.Errorf("%s is mounted as %q; want %q", source, got, want)
		}
	}
	for _, m := range e.Mounts {
		if !slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "noexec") || !strings.HasPrefix(m.HostPath, "/run/nvidia/driver/") {
			t.Errorf("mount %+v", m)
		}
	}
}

func TestNoTargetIsMountedTwice(t *testing.T) {
	first, second := library("libcuda.so.550.54.15", "libcuda.so.1", "", "libcuda.so"), library("libcuda-other.so.550.54.15", "libcuda.so.1", "")
	e := Common(&discover.Inventory{Arch: "amd64", Libraries: []discover.Library{first, second}}, Options{Layout: "fedora"})
	if len(e.Mounts) != 2 || e.Mounts[0].HostPath != first.HostPath {
		t.Errorf("%d mounts, the first of %s; want libcuda.so and libcuda.so.1 once each, of %s", len(e.Mounts), e.Mounts[0].HostPath, first.HostPath)
	}
}

func TestLayouts(t *testing.T) {
	for _, c := range []struct {
		name, arch, private string
		dirs, dirs32        []string
	}{
		{"auto", "amd64", "", []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib64"}, []string{"/usr/lib/i386-linux-gnu", "/usr/lib"}},
		{"auto", "arm64", "", []string{"/usr/lib/aarch64-linux-gnu", "/usr/lib64"}, []string{"/usr/lib/i386-linux-gnu", "/usr/lib"}},
		{"debian", "amd64", "", []string{"/usr/lib/x86_64-linux-gnu"}, []string{"/usr/lib/i386-linux-gnu"}},
		{"fedora", "amd64", "", []string{"/usr/lib64"}, []string{"/usr/lib"}},
		{"private", "amd64", "", []string{"/usr/local/nvidia/lib64"}, []string{"/usr/local/nvidia/lib"}},
		{"private", "amd64", "/opt/gpu/lib", []string{"/opt/gpu/lib"}, []string{"/opt/gpu/lib32"}},
		{"private", "amd64", "/opt/gpu//lib/", []string{"/opt/gpu/lib"}, []string{"/opt/gpu/lib32"}},
		{"nix", "amd64", "", []string{"/run/opengl-driver/lib"}, []string{"/run/opengl-driver-32/lib"}},
	} {
		o := Options{Layout: c.name, PrivateDir: c.private}
		l := o.layout(&discover.Inventory{Arch: c.arch})
		if err := o.Check(); err != nil || !slices.Equal(l.dirs, c.dirs) || !slices.Equal(l.dirs32, c.dirs32) {
			t.Errorf("%s on %s: %q, %q, %v; want %q, %q", c.name, c.arch, l.dirs, l.dirs32, err, c.dirs, c.dirs32)
		}
	}
	for _, bad := range [][2]string{{"alpine", ""}, {"private", "lib64"}} {
		if err := (&Options{Layout: bad[0], PrivateDir: bad[1]}).Check(); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// mountsOf are the targets by an inventory of one library of each sort and one
// file of each kind.
func mountsOf(t *testing.T, o Options) []string {
	t.Helper()
	lib := func(name, soname string, c ...driverfiles.Capability) discover.Library {
		l := library(name, soname, "")
		l.Capabilities = c
		return l
	}
	o.Layout = "debian"
	e := Common(&discover.Inventory{Arch: "amd64",
		Libraries: []discover.Library{
			lib("libcuda.so.550.54.15", "libcuda.so.1", driverfiles.Compute),
			lib("libcuda.so.550.54.15", "libcuda.so.1", driverfiles.Compute, driverfiles.Compat32),
			lib("libGLX_nvidia.so.550.54.15", "libGLX_nvidia.so.0", driverfiles.Graphics),
			lib("libnvidia-new.so.550.54.15", "libnvidia-new.so.1"),
		},
		Files: []discover.File{
			{Kind: driverfiles.Binary, HostPath: "/usr/bin/nvidia-smi", Targets: []string{"/usr/bin/nvidia-smi"}, Capabilities: []driverfiles.Capability{driverfiles.Utility}},
			{Kind: driverfiles.Socket, HostPath: "/run/s/socket", Targets: []string{"/run/s/socket"}, Capabilities: []driverfiles.Capability{driverfiles.Utility}},
			{Kind: driverfiles.Directory, HostPath: "/srv/mps", Targets: []string{"/srv/mps"}, Capabilities: []driverfiles.Capability{driverfiles.Compute}},
		},
	}, o)
	var list []string
	for _, m := range e.Mounts {
		list = append(list, m.ContainerPath)
		writable := m.ContainerPath == "/run/s/socket" || m.ContainerPath == "/srv/mps"
		if slices.Contains(m.Options, "ro") == writable || slices.Contains(m.Options, "noexec") != writable {
			t.Errorf("%s has options %q", m.ContainerPath, m.Options)
		}
	}
	if slices.Contains(list, "/srv/mps") != slices.Contains(e.Env, "CUDA_MPS_PIPE_DIRECTORY=/srv/mps") {
		t.Errorf("env %q with mounts %q", e.Env, list)
	}
	return list
}

func TestCapabilitiesDecideWhatGoesIn(t *testing.T) {
	const dir, dir32 = "/usr/lib/x86_64-linux-gnu/", "/usr/lib/i386-linux-gnu/"
	for _, c := range []struct {
		asked []driverfiles.Capability
		want  []string
	}{
		{nil, []string{"/run/s/socket", "/srv/mps", "/usr/bin/nvidia-smi", dir32 + "libcuda.so.1", dir + "libGLX_nvidia.so.0", dir + "libcuda.so.1", dir + "libnvidia-new.so.1"}},
		{[]driverfiles.Capability{driverfiles.Compute}, []string{"/srv/mps", dir + "libcuda.so.1", dir + "libnvidia-new.so.1"}},
		{[]driverfiles.Capability{driverfiles.Utility}, []string{"/run/s/socket", "/usr/bin/nvidia-smi", dir + "libnvidia-new.so.1"}},
		{[]driverfiles.Capability{driverfiles.Graphics, driverfiles.Compat32}, []string{dir + "libGLX_nvidia.so.0", dir + "libnvidia-new.so.1"}},
		{[]driverfiles.Capability{driverfiles.Compute, driverfiles.Compat32}, []string{"/srv/mps", dir32 + "libcuda.so.1", dir + "libcuda.so.1", dir + "libnvidia-new.so.1"}},
	} {
		if got := mountsOf(t, Options{Capabilities: c.asked}); !slices.Equal(got, c.want) {
			t.Errorf("%v: %q; want %q", c.asked, got, c.want)
		}
	}
	got := mountsOf(t, Options{VersionedNames: true, Capabilities: []driverfiles.Capability{driverfiles.Graphics}})
	if want := []string{dir + "libGLX_nvidia.so.0", dir + "libGLX_nvidia.so.550.54.15", dir + "libnvidia-new.so.1", dir + "libnvidia-new.so.550.54.15"}; !slices.Equal(got, want) {
		t.Errorf("versioned names: %q; want %q", got, want)
	}
}

// CUDA looks for the server of its multi-process service in /tmp/nvidia-mps without being told.
func TestOnlyAnUnusualMPSDirectoryHasAVariable(t *testing.T) {
	for dir, want := range map[string][]string{"/tmp/nvidia-mps": nil, "/srv/mps": {"CUDA_MPS_PIPE_DIRECTORY=/srv/mps"}} {
		e := Common(&discover.Inventory{Arch: "amd64", Files: []discover.File{{Kind: driverfiles.Directory, HostPath: dir, Targets: []string{dir}}}}, Options{})
		if got := e.Env[1:]; !slices.Equal(got, want) || len(targets(e, path.Base(dir))) != 1 {
			t.Errorf("%s: environment %q, mounts %+v; want %q", dir, got, e.Mounts, want)
		}
	}
}

func TestNodesGoByCapability(t *testing.T) {
	gpu := node("/dev/nvidia0")
	g := &discover.GPU{Node: &gpu, DRM: []discover.Node{node("/dev/dri/card1")}}
	inv := &discover.Inventory{Arch: "amd64", ControlNodes: []discover.Node{node("/dev/nvidiactl"), node("/dev/nvidia-uvm"), node("/dev/nvidia-modeset")}}
	for _, c := range []struct {
		asked           driverfiles.Capability
		common, devices []string
	}{
		{driverfiles.Compute, []string{"/dev/nvidiactl", "/dev/nvidia-uvm"}, []string{"/dev/nvidia0"}},
		{driverfiles.Utility, []string{"/dev/nvidiactl"}, []string{"/dev/nvidia0"}},
		{driverfiles.Graphics, []string{"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-modeset"}, []string{"/dev/nvidia0", "/dev/dri/card1"}},
	} {
		o := Options{Capabilities: []driverfiles.Capability{c.asked}}
		if got := nodePaths(Common(inv, o)); !slices.Equal(got, c.common) {
			t.Errorf("%s: %q; want %q", c.asked, got, c.common)
		}
		if got := nodePaths(GPU(g, o)); !slices.Equal(got, c.devices) {
			t.Errorf("%s: %q; want %q", c.asked, got, c.devices)
		}
	}
}

func TestOwnEditsGoBeforeTheDriversOwn(t *testing.T) {
	base := specs.ContainerEdits{
		Env:         []string{"A=1", "B=2"},
		DeviceNodes: []*specs.DeviceNode{{Path: "/dev/nvidia0"}},
		Mounts:      []*specs.Mount{{HostPath: "/driver/x", ContainerPath: "/x"}},
	}
	merged := editset.Merge(base, specs.ContainerEdits{
		Env:         []string{"B=3", "C=4"},
		DeviceNodes: []*specs.DeviceNode{{Path: "/dev/nvidia0", Permissions: "r"}, {Path: "/dev/infiniband/uverbs0"}},
		Mounts:      []*specs.Mount{{HostPath: "/mine", ContainerPath: "/x"}},
	})
	if !slices.Equal(merged.Env, []string{"A=1", "B=3", "C=4"}) || len(merged.DeviceNodes) != 2 || merged.DeviceNodes[0].Permissions != "r" ||
		len(merged.Mounts) != 1 || merged.Mounts[0].HostPath != "/mine" {
		t.Errorf("merged: %+v", merged)
	}
	if !slices.Equal(base.Env, []string{"A=1", "B=2"}) || base.Mounts[0].HostPath != "/driver/x" {
		t.Errorf("the base was changed: %+v", base)
	}
}

func node(path string) discover.Node {
	return discover.Node{Path: path, HostPath: "/host" + path, Have: &devnode.Attr{Major: 195}}
}

func nodePaths(e specs.ContainerEdits) (list []string) {
	for _, n := range e.DeviceNodes {
		list = append(list, n.Path)
	}
	return list
}

func TestMIGDeviceHasItsCapabilitiesAndGraphicsOnlyByProfile(t *testing.T) {
	gpu := node("/dev/nvidia3")
	g := &discover.GPU{Node: &gpu, DRM: []discover.Node{node("/dev/dri/card1"), node("/dev/dri/renderD128")}}
	d := &discover.MIGDevice{Nodes: []discover.Node{node("/dev/nvidia-caps/nvidia-cap12"), node("/dev/nvidia-caps/nvidia-cap13")}}
	compute := []string{"/dev/nvidia3", "/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13"}
	if got := nodePaths(MIGDevice(g, d, Options{})); !slices.Equal(got, compute) {
		t.Errorf("compute profile: %q; want %q", got, compute)
	}
	d.Graphics = true
	if got, want := nodePaths(MIGDevice(g, d, Options{})), slices.Concat(compute, []string{"/dev/dri/card1", "/dev/dri/renderD128"}); !slices.Equal(got, want) {
		t.Errorf("graphics profile: %q; want %q", got, want)
	}
	if got, want := nodePaths(GPU(g, Options{})), []string{"/dev/nvidia3", "/dev/dri/card1", "/dev/dri/renderD128"}; !slices.Equal(got, want) {
		t.Errorf("full GPU: %q; want %q", got, want)
	}
	all := editset.Union([]specs.ContainerEdits{GPU(g, Options{}), MIGDevice(g, d, Options{})})
	if got, want := nodePaths(all), []string{"/dev/nvidia3", "/dev/dri/card1", "/dev/dri/renderD128", "/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13"}; !slices.Equal(got, want) {
		t.Errorf("union: %q; want each node once, %q", got, want)
	}
}

func TestDevicesThatAreNotUsableHaveNoEdits(t *testing.T) {
	gpu := node("/dev/nvidia3")
	mig := &discover.MIGDevice{Nodes: []discover.Node{node("/dev/nvidia-caps/nvidia-cap12")}}
	for _, e := range []specs.ContainerEdits{
		GPU(&discover.GPU{}, Options{}), GPU(&discover.GPU{Node: &gpu, Lost: true}, Options{}), MIGDevice(&discover.GPU{Node: &gpu, Excluded: true}, mig, Options{}), MIGDevice(&discover.GPU{}, mig, Options{}), MIGDevice(&discover.GPU{Node: &gpu}, &discover.MIGDevice{}, Options{}),
	} {
		if nodePaths(e) != nil {
			t.Errorf("nodes %q", nodePaths(e))
		}
	}
}

func TestNodesHaveAModeNoNumbersAndAHostPathOnlyWhereItDiffers(t *testing.T) {
	same := discover.Node{Path: "/dev/nvidiactl", HostPath: "/dev/nvidiactl", Have: &devnode.Attr{Major: 195, Minor: 255}}
	e := Common(&discover.Inventory{Arch: "amd64", ControlNodes: []discover.Node{same, node("/dev/nvidia-uvm")}}, Options{})
	mode := fs.FileMode(0o666)
	want := []*specs.DeviceNode{{Path: "/dev/nvidiactl", FileMode: &mode}, {Path: "/dev/nvidia-uvm", HostPath: "/host/dev/nvidia-uvm", FileMode: &mode}}
	if diff := cmp.Diff(want, e.DeviceNodes); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !slices.Equal(e.Env, []string{"NVIDIA_VISIBLE_DEVICES=void"}) || len(e.Hooks) > 0 {
		t.Errorf("env %q, %d hooks; want NVIDIA_VISIBLE_DEVICES=void and no hook", e.Env, len(e.Hooks))
	}
}

// otherPackage is who has a file of a name, or of names that a pattern stands for.
type otherPackage struct{ distribution, name, file string }

// libraryPath is a path in a container with one directory for those of all distributions.
func libraryPath(file string) string {
	for _, dir := range []string{"/usr/lib64/", "/usr/lib/x86_64-linux-gnu/", "/usr/lib/i386-linux-gnu/"} {
		if name, ok := strings.CutPrefix(file, dir); ok {
			return "/usr/lib/" + name
		}
	}
	return file
}

// otherPackages are those of distributions that are not of the driver.
func otherPackages(t *testing.T) (list []otherPackage) {
	t.Helper()
	data, err := os.ReadFile(hosttest.Path("other-packages.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); !strings.HasPrefix(line, "#") && len(fields) == 3 {
			list = append(list, otherPackage{fields[0], fields[1], libraryPath(fields[2])})
		}
	}
	if owner(list, "/usr/lib64/libGLX_indirect.so.0") == nil || owner(list, "/usr/lib64/libcuda.so.1") != nil {
		t.Fatal("the list of other packages is not what it is taken for")
	}
	return list
}

// owner returns the package that has a file of a name, or nil.
func owner(list []otherPackage, file string) *otherPackage {
	for i := range list {
		if ok, _ := path.Match(list[i].file, libraryPath(file)); ok {
			return &list[i]
		}
	}
	return nil
}

func TestNoMountIsWhereAnotherPackageHasAFile(t *testing.T) {
	others := otherPackages(t)
	for _, p := range readDriverPackages(t) {
		inv := p.discover(t)
		for _, name := range Layouts {
			e := Common(inv, Options{Layout: name, VersionedNames: true})
			if len(e.Mounts) < len(driverfiles.Libraries) {
				t.Fatalf("%s %s, %s: only %d mounts", p.distribution, p.version, name, len(e.Mounts))
			}
			for _, m := range e.Mounts {
				if by := owner(others, m.ContainerPath); by != nil || driverfiles.OtherPackage(m.ContainerPath) != nil {
					t.Errorf("%s %s, layout %s: mounts at %s, which is of %+v", p.distribution, p.version, name, m.ContainerPath, by)
				}
			}
		}
	}
	// The tables have names of older drivers too.
	for _, e := range driverfiles.Libraries {
		for _, name := range append([]string{e.Stem + ".so.0", e.Stem + ".so.1", e.Stem + ".so.2", e.Stem + ".so.4"}, e.Names...) {
			if by := owner(others, path.Join("/usr/lib", e.Dir, name)); by != nil || driverfiles.OtherPackage(name) != nil {
				t.Errorf("%s is in the table, and of %+v", name, by)
			}
		}
	}
	for _, e := range driverfiles.Files {
		for _, target := range e.Targets {
			if strings.HasSuffix(target, "/") {
				target += path.Base(e.Name)
			}
			for _, o := range others {
				if ok, _ := path.Match(target, o.file); ok {
					t.Errorf("%s is in the table, and of %+v", target, o)
				}
			}
		}
	}
}

func TestNamesOfOtherPackagesAreTheirs(t *testing.T) {
	others := otherPackages(t)
	for _, row := range driverfiles.Others {
		owners := map[string][]string{}
		for _, o := range others {
			// A pattern of the list stands for a name.
			name := strings.NewReplacer("*.so.*", ".so.1", ".so.*", ".so.1", "*", "").Replace(path.Base(o.file))
			if ok, _ := path.Match(row.Name, name); ok {
				owners[o.distribution] = append(owners[o.distribution], o.name)
			}
		}
		if len(owners) == 0 {
			t.Errorf("%s: no package of the list has such a file", row.Name)
		}
		for part := range strings.SplitSeq(row.Packages, "; ") {
			distribution, names, ok := strings.Cut(part, ": ")
			if found := owners[distribution]; ok && len(found) > 0 && !slices.ContainsFunc(strings.Split(names, ", "), func(n string) bool { return slices.Contains(found, n) }) {
				t.Errorf("%s: of %s it is in %q, not in %s", row.Name, distribution, found, names)
			}
		}
	}
}

func TestCompanionFilesOfALibraryAreBesideIt(t *testing.T) {
	inv := &discover.Inventory{Arch: "amd64",
		Libraries: []discover.Library{library("libGLX_nvidia.so.580.95.05", "libGLX_nvidia.so.0", "")},
		Files:     []discover.File{{Kind: driverfiles.Plugin, HostPath: "/usr/lib/nvidia/wine/nvngx.dll", Targets: []string{"nvidia/wine/nvngx.dll"}}},
	}
	for _, name := range Layouts {
		e := Common(inv, Options{Layout: name})
		var want []string
		for _, glx := range targets(e, "libGLX_nvidia.so.580.95.05") {
			want = append(want, path.Join(path.Dir(glx), "nvidia/wine/nvngx.dll"))
		}
		if got := targets(e, "nvngx.dll"); len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("layout %s: %q; want %q", name, got, want)
		}
	}
}

func TestBothLibrariesOfOneSONAMEAreReachable(t *testing.T) {
	second := library("libnvidia-other.so.580.95.05", "libnvidia-new.so.1", "")
	second.Shadowed = true
	e := Common(&discover.Inventory{Arch: "amd64", Libraries: []discover.Library{library("libnvidia-new.so.580.95.05", "libnvidia-new.so.1", ""), second}},
		Options{Layout: "debian"})
	if got := targets(e, "libnvidia-other.so.580.95.05"); !slices.Equal(got, []string{"/usr/lib/x86_64-linux-gnu/libnvidia-other.so.580.95.05"}) {
		t.Errorf("the second is mounted as %q", got)
	}
}

// What everybody may open needs no group, and the group of root gives no right.
func TestGroupsAndNumbersOfNodesAreAnOption(t *testing.T) {
	node := func(path string, major, minor, gid uint32, mode fs.FileMode) discover.Node {
		return discover.Node{Path: path, HostPath: path, Have: &devnode.Attr{Major: major, Minor: minor, Mode: mode, GID: gid}}
	}
	nodes := []discover.Node{
		node("/dev/dri/renderD128", 226, 128, 105, 0o660), node("/dev/dri/card0", 226, 0, 44, 0o660), node("/dev/dri/by-path/card", 226, 0, 44, 0o660),
		node("/dev/nvidia0", 195, 0, 44, 0o666), node("/dev/nvmap", 10, 1, 0, 0o660), node("/dev/x", 10, 2, 50, 0o604), {Path: "/dev/y", HostPath: "/dev/y"},
		{Path: "/dev/z", HostPath: "/dev/z", Have: &devnode.Attr{Other: "a directory"}},
	}
	plain := Nodes(nodes, Options{})
	if plain.AdditionalGIDs != nil || plain.DeviceNodes[0].Type != "" || plain.DeviceNodes[0].Major != 0 {
		t.Errorf("%+v", plain)
	}
	e := Nodes(nodes, Options{NodeGroups: true, PinNumbers: true})
	if !slices.Equal(e.AdditionalGIDs, []uint32{44, 105}) {
		t.Errorf("groups %v", e.AdditionalGIDs)
	}
	if n := e.DeviceNodes[0]; n.Type != "c" || n.Major != 226 || n.Minor != 128 {
		t.Errorf("%+v", n)
	}
	for _, n := range e.DeviceNodes[6:] {
		if n.Type != "" {
			t.Errorf("a node whose numbers are not known: %+v", n)
		}
	}
	if all := editset.Union([]specs.ContainerEdits{e, {AdditionalGIDs: []uint32{44, 7}}}); !slices.Equal(all.AdditionalGIDs, []uint32{7, 44, 105}) {
		t.Errorf("groups of all %v", all.AdditionalGIDs)
	}
}
