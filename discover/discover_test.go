package discover_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/elfstub"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// findings are those of a cause that contain a text.
func findings(inv *discover.Inventory, id discover.ID, text string) (list []discover.Finding) {
	for _, f := range inv.Findings {
		if (id == "" || f.ID == id) && strings.Contains(f.Subject+": "+f.Message, text) {
			list = append(list, f)
		}
	}
	return list
}

// discovered discovers a host and passes over the companion files it lacks, as
// every simulated host does, and over the platform libraries of EGL that are left out.
func discovered(t *testing.T, host hosttree.Host, probe nvmlprobe.Func) *discover.Inventory {
	t.Helper()
	inv := hosttest.Discover(t, host, probe)
	inv.Findings = slices.DeleteFunc(inv.Findings, func(f discover.Finding) bool {
		return f.ID == discover.FileMissing || f.ID == discover.FileLeftOut && strings.Contains(f.Subject, "libnvidia-egl-")
	})
	return inv
}

func wantFinding(t *testing.T, inv *discover.Inventory, id discover.ID, severity discover.Severity, text string) {
	t.Helper()
	got := findings(inv, id, text)
	if len(got) != 1 || got[0].Severity != severity {
		t.Errorf("findings of %s with %q: %+v; want one, %s\nall: %+v", id, text, got, severity, inv.Findings)
	}
}

// changed is a probe whose report was changed.
func changed(t *testing.T, probe nvmlprobe.Func, change func(*nvmlprobe.Report) error) nvmlprobe.Func {
	t.Helper()
	return func(ctx context.Context, library string) (*nvmlprobe.Report, error) {
		r, err := probe(ctx, library)
		if err != nil {
			t.Errorf("report: %v", err)
			return nil, err
		}
		return r, change(r)
	}
}

func TestHealthyHostHasNoFinding(t *testing.T) {
	for _, name := range []string{"demo", "h100x8", "a100-mixed-mig", "driver-container", "nixos", "fedora", "gh200-aarch64"} {
		d := hosttest.Load(t, name)
		inv := discovered(t, hosttest.Open(t, d, t.TempDir()), d.Probe())
		if len(inv.Findings) > 0 {
			t.Errorf("%s: %+v", name, inv.Findings)
		}
	}
}

func TestIndexIsNotMinor(t *testing.T) {
	d := hosttest.Load(t, "h100x8")
	inv := discovered(t, hosttest.Open(t, d, t.TempDir()), d.Probe())
	var minors []int
	for i, g := range inv.GPUs {
		minors = append(minors, g.Minor)
		if g.Index != i || g.Node == nil || g.Node.Have.Minor != uint32(g.Minor) {
			t.Errorf("place %d: index %d, node %+v", i, g.Index, g.Node)
		}
	}
	if want := []int{3, 2, 1, 0, 7, 6, 5, 4}; !slices.Equal(minors, want) {
		t.Errorf("minors %v; want %v", minors, want)
	}
}

func TestDisagreementOfNVMLAndProcfsIsAFinding(t *testing.T) {
	minor := 9
	for text, change := range map[string]func(r *nvmlprobe.Report){
		"NVML says 999.88.77":         func(r *nvmlprobe.Report) { r.DriverVersion = "999.88.77" },
		"has another UUID":            func(r *nvmlprobe.Report) { r.GPUs[1].UUID = "GPU-00000000-0000-4000-8000-000000000000" },
		"has another minor number: 9": func(r *nvmlprobe.Report) { r.GPUs[1].Minor = &minor },
		"in procfs but not in NVML":   func(r *nvmlprobe.Report) { r.GPUs = r.GPUs[:2] },
		"in NVML but not in procfs": func(r *nvmlprobe.Report) {
			r.GPUs = append(r.GPUs, nvmlprobe.GPU{Index: 3, PCIBusID: "00000000:F0:00.0"})
		},
		"nvmlDeviceGetName: Unknown Error": func(r *nvmlprobe.Report) { r.GPUs[0].Errors = []string{"nvmlDeviceGetName: Unknown Error"} },
		"NVML has another index: 7":        func(r *nvmlprobe.Report) { r.GPUs[2].Index = 7 },
		"GPU 1 (0000:43:00.0": func(r *nvmlprobe.Report) {
			r.GPUs[1] = nvmlprobe.GPU{Index: 1, Lost: true, Errors: []string{"handle"}}
		},
		"nvmlDeviceGetMinorNumber: Timeout": func(r *nvmlprobe.Report) {
			r.GPUs[0].Minor, r.GPUs[0].Errors = nil, []string{"nvmlDeviceGetMinorNumber: Timeout"}
		},
	} {
		d := hosttest.Load(t, "missing-node")
		d.MissingNodes = nil
		probe := changed(t, d.Probe(), func(r *nvmlprobe.Report) error { change(r); return nil })
		inv := discovered(t, hosttest.Open(t, d, t.TempDir()), probe)
		wantFinding(t, inv, "", discover.Severity(cmp.Or(map[string]string{"GPU 1 (0000:43:00.0": "broken"}[text], "warning")), text)
		for i := range inv.GPUs {
			if g := &inv.GPUs[i]; !g.Lost && !g.Usable() {
				t.Errorf("%s: %s is not usable any more", text, g.Name())
			}
		}
		if len(inv.Findings) != 1 {
			t.Errorf("%s: %d findings: %+v", text, len(inv.Findings), inv.Findings)
		}
	}
}

func TestProbeThatBrokeOffIsBelievedAsFarAsItWent(t *testing.T) {
	d := hosttest.Load(t, "lost-gpu")
	probe := changed(t, d.Probe(), func(r *nvmlprobe.Report) error {
		r.GPUs = r.GPUs[:2]
		return &nvmlprobe.Error{Kind: nvmlprobe.Timeout, Message: "nvmlDeviceGetName of GPU 2 did not return within 10s"}
	})
	inv := discovered(t, hosttest.Open(t, d, t.TempDir()), probe)
	wantFinding(t, inv, discover.NVMLTimeout, discover.Warning, "nvmlDeviceGetName of GPU 2 did not return")
	wantFinding(t, inv, discover.GPULost, discover.Broken, "lost")
	if len(inv.Findings) != 2 {
		t.Errorf("a GPU that was not asked is no disagreement: %+v", inv.Findings)
	}
	if !inv.GPUs[0].Usable() || inv.GPUs[1].Usable() || !inv.GPUs[2].Usable() || !inv.GPUs[3].Usable() {
		t.Errorf("usable: %+v; want all but GPU 1", inv.GPUs)
	}
}

func TestNVMLFillsWhatProcfsLacks(t *testing.T) {
	d := hosttest.Load(t, "missing-node")
	d.MissingNodes = nil
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	file := filepath.Join(dir, "proc/driver/nvidia/gpus/0000:43:00.0/information")
	overwrite(t, file, "Model: \t\t Unknown\nGPU UUID: \t GPU-????????-????-????-????-????????????\nBus Location: \t 0000:43:00.0\n")
	inv := discovered(t, host, d.Probe())
	g := inv.GPUs[1]
	if g.Model != "NVIDIA L4" || !strings.HasPrefix(g.UUID, "GPU-") || g.Minor != 1 || len(inv.Findings) > 0 {
		t.Errorf("%+v, findings %+v", g, inv.Findings)
	}
	inv = discovered(t, hosttest.Reopen(t, d, dir), nil)
	wantFinding(t, inv, discover.GPUMinorUnknown, discover.Broken, "GPU 1 (0000:43:00.0): the driver does not tell its minor number")
}

func overwrite(t *testing.T, file, content string) {
	t.Helper()
	if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestUnreadableSourcesAreFindingsThatNameTheFile(t *testing.T) {
	for _, c := range []struct {
		file string
		id   discover.ID
		text string
	}{
		{"proc/driver/nvidia/version", discover.DriverUnreadable, "/proc/driver/nvidia/version: no line"},
		{"proc/devices", discover.NodesUnknown, "/proc/devices: no section"},
		{"proc/driver/nvidia/gpus/0000:1b:00.0/information", discover.GPUUnreadable, "/proc/driver/nvidia/gpus/0000:1b:00.0/information: no line"},
		{"etc/ld.so.cache", discover.LoaderCacheUnreadable, "/etc/ld.so.cache"},
		{"usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15", discover.LibraryUnreadable, "libcuda.so.550.54.15: not an ELF file"},
		{"proc/driver/nvidia-caps/mig-minors", discover.MIGMinorsUnreadable, "/proc/driver/nvidia-caps/mig-minors: no line"},
	} {
		d := hosttest.Load(t, "all-mig")
		dir := t.TempDir()
		host := hosttest.Open(t, d, dir)
		overwrite(t, filepath.Join(dir, c.file), "garbage\n")
		inv := discovered(t, host, d.Probe())
		if len(findings(inv, c.id, c.text)) != 1 {
			t.Errorf("%s: %+v; want a finding of %s with %q", c.file, inv.Findings, c.id, c.text)
		}
	}
}

func TestStaleNodeIsNotTaken(t *testing.T) {
	d := hosttest.Load(t, "missing-node")
	d.MissingNodes = nil
	dir := t.TempDir()
	hosttest.Open(t, d, dir)
	table := filepath.Join(dir, "dev-nodes")
	data, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	data = regexp.MustCompile(`dev/nvidia-uvm \d+ 0`).ReplaceAll(data, []byte("dev/nvidia-uvm 99 0"))
	data = []byte(strings.ReplaceAll(string(data), "dev/nvidia2 195 2", "dev/nvidia2 195 1"))
	overwrite(t, table, string(data))
	inv := discovered(t, hosttest.Reopen(t, d, dir), d.Probe())
	wantFinding(t, inv, discover.NodeWrong, discover.Broken, "/dev/nvidia-uvm: is 99:0, the driver has ")
	wantFinding(t, inv, discover.NodeWrong, discover.Broken, "/dev/nvidia2: is 195:1, the driver has 195:2")
	if inv.GPUs[2].Usable() || slices.ContainsFunc(inv.ControlNodes, func(n discover.Node) bool { return n.Path == "/dev/nvidia-uvm" }) {
		t.Error("a stale node was taken")
	}
}

func TestModuleThatIsNotLoadedIsAFinding(t *testing.T) {
	d := hosttest.Load(t, "uvm-missing")
	d.MissingNodes = nil
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	devices := filepath.Join(dir, "proc/devices")
	data, err := os.ReadFile(devices)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, devices, regexp.MustCompile(`.* nvidia-uvm\n`).ReplaceAllString(string(data), ""))
	inv := discovered(t, host, d.Probe())
	wantFinding(t, inv, discover.UVMNotLoaded, discover.Broken, "nvidia-uvm: the kernel module is not loaded")
}

func TestMIGDeviceNeedsBothItsNodes(t *testing.T) {
	d := hosttest.Load(t, "all-mig")
	d.MissingNodes = []string{"nvidia-caps/nvidia-cap13"} // compute instance 0 of GPU instance 1 of GPU 0
	inv := discovered(t, hosttest.Open(t, d, t.TempDir()), d.Probe())
	wantFinding(t, inv, discover.NodeMissing, discover.Broken, "/dev/nvidia-caps/nvidia-cap13: does not exist")
	if n := inv.GPUs[0].MIGDevices[0].Nodes; len(n) != 0 {
		t.Errorf("half of its nodes were taken: %+v", n)
	}
	if n := inv.GPUs[0].MIGDevices[1].Nodes; len(n) != 2 {
		t.Errorf("the other MIG device has %d nodes; want 2", len(n))
	}
}

func TestMIGDevicesOfOneSideOnlyAreLeftOut(t *testing.T) {
	d := hosttest.Load(t, "all-mig")
	probe := changed(t, d.Probe(), func(r *nvmlprobe.Report) error {
		r.GPUs[0].MIGDevices[0].GPUInstance = 5
		r.GPUs[1].MIGDevices[1].Errors = []string{"nvmlDeviceGetUUID: Unknown Error"}
		return nil
	})
	inv := discovered(t, hosttest.Open(t, d, t.TempDir()), probe)
	wantFinding(t, inv, discover.MIGNotInProcfs, discover.Warning, "in NVML but not in procfs (GPU instance 5, compute instance 0)")
	wantFinding(t, inv, discover.MIGNotInNVML, discover.Warning, "GPU instance 1, compute instance 0 is in procfs but not in NVML")
	wantFinding(t, inv, discover.NVMLCallFailed, discover.Warning, "nvmlDeviceGetUUID: Unknown Error")
	if len(inv.GPUs[0].MIGDevices) != 1 || len(inv.GPUs[1].MIGDevices) != 2 {
		t.Errorf("MIG devices: %+v, %+v; want one and two", inv.GPUs[0].MIGDevices, inv.GPUs[1].MIGDevices)
	}
}

func TestCapabilityMinorIsTheDriversOwn(t *testing.T) {
	d := hosttest.Load(t, "all-mig")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	access := filepath.Join(dir, "proc/driver/nvidia/capabilities/gpu0/mig/gi1/access")
	overwrite(t, access, "DeviceFileMinor: 13\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
	inv := discovered(t, host, d.Probe())
	wantFinding(t, inv, discover.MIGMinorDiffers, discover.Warning, "has minor 13, the table mig-minors 12")
	if got := inv.GPUs[0].MIGDevices[0].Nodes[0].Path; got != "/dev/nvidia-caps/nvidia-cap13" {
		t.Errorf("%s; want the node the kernel names", got)
	}
	// Without the file the table has to do; without either there is no device.
	if err := os.Remove(access); err != nil {
		t.Fatal(err)
	}
	inv = discovered(t, hosttest.Reopen(t, d, dir), d.Probe())
	if got := inv.GPUs[0].MIGDevices[0].Nodes; len(got) != 2 || got[0].Path != "/dev/nvidia-caps/nvidia-cap12" {
		t.Errorf("by the table: %+v", got)
	}
	if err := os.Remove(filepath.Join(dir, "proc/driver/nvidia-caps/mig-minors")); err != nil {
		t.Fatal(err)
	}
	inv = discovered(t, hosttest.Reopen(t, d, dir), d.Probe())
	wantFinding(t, inv, discover.MIGCapabilityUnusable, discover.Broken, "access capability")
}

func TestLibrarySearchPath(t *testing.T) {
	d := hosttest.Load(t, "missing-node")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	from, to := filepath.Join(dir, "usr/lib/x86_64-linux-gnu"), filepath.Join(dir, "opt/driver/libs")
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.Rename(from, to)); err != nil {
		t.Fatal(err)
	}
	if inv := discovered(t, host, d.Probe()); len(inv.Libraries) > 0 || len(findings(inv, discover.LibrariesMissing, "not found below /")) != 1 {
		t.Errorf("libraries out of the way were found: %+v, %+v", inv.Libraries, inv.Findings)
	}
	inv, err := discover.Run(context.Background(), hosttest.Reopen(t, d, dir), discover.Options{
		LibrarySearchPath: []string{"/opt/driver/libs", "/none"}, Probe: d.Probe()})
	if err != nil || len(inv.Libraries) == 0 || inv.Libraries[0].HostPath != "/opt/driver/libs/libcuda.so.550.54.15" {
		t.Errorf("%+v, %v", inv.Libraries, err)
	}
	wantFinding(t, inv, discover.LibraryPathInvalid, discover.Warning, "/none: ")
}

func TestLibraryOfAnotherArchitectureIsLeftOut(t *testing.T) {
	arm, amd := hosttest.Load(t, "gh200-aarch64"), hosttest.Load(t, "missing-node")
	armDir, dir := t.TempDir(), t.TempDir()
	hosttest.Open(t, arm, armDir)
	host := hosttest.Open(t, amd, dir)
	name := "libnvidia-ptxjitcompiler.so.550.54.15"
	foreign, err := os.ReadFile(filepath.Join(armDir, "usr/lib/aarch64-linux-gnu", name))
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, filepath.Join(dir, "usr/lib/x86_64-linux-gnu", name), string(foreign))
	inv := discovered(t, host, amd.Probe())
	wantFinding(t, inv, discover.LibraryOtherArch, discover.Warning, "a library for arm64, not amd64")
}

func TestLibraryWithAVersionOfItsOwnGivesWayToTheDrivers(t *testing.T) {
	d, dir := hosttest.Load(t, "h100x8"), t.TempDir() // driver 550
	hosttest.Open(t, d, dir)
	old := "usr/lib/x86_64-linux-gnu/libnvidia-nvvm.so.4.0.0" // of a driver up to r510
	if err := os.WriteFile(filepath.Join(dir, old), elfstub.SharedObject("amd64", "libnvidia-nvvm.so.4"), 0o644); err != nil {
		t.Fatal(err)
	}
	inv := discovered(t, hosttest.Reopen(t, d, dir), d.Probe())
	wantFinding(t, inv, discover.FileLeftOut, discover.Note, "/"+old)
	for _, l := range inv.Libraries {
		if l.SONAME == "libnvidia-nvvm.so.4" && (l.Name != "libnvidia-nvvm.so."+d.Driver.Version || l.Shadowed) {
			t.Errorf("libnvidia-nvvm.so.4 is %+v", l)
		}
	}
}

func TestDeviceThatIsNoCharacterDeviceIsNotTaken(t *testing.T) {
	d := hosttest.Load(t, "missing-node")
	dir := t.TempDir()
	hosttest.Open(t, d, dir)
	if err := os.WriteFile(filepath.Join(dir, "dev/nvidia1"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	inv := discovered(t, hosttest.Reopen(t, d, dir), d.Probe())
	wantFinding(t, inv, discover.NodeNotADevice, discover.Broken, "/dev/nvidia1: is a regular file and not a device node")
}

func TestGPUForAVirtualMachineIsLeftOutQuietly(t *testing.T) {
	d := hosttest.Load(t, "nouveau")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	driver := filepath.Join(dir, "sys/bus/pci/devices/0000:01:00.0/driver")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "sys/bus/pci/drivers/vfio-pci"), 0o755), os.Remove(driver),
		os.Symlink("../../../bus/pci/drivers/vfio-pci", driver)); err != nil {
		t.Fatal(err)
	}
	inv := discovered(t, host, d.Probe())
	wantFinding(t, inv, discover.GPUPassthrough, discover.Note, "bound to vfio-pci")
}

func TestEndedContextEndsTheRun(t *testing.T) {
	d := hosttest.Load(t, "demo")
	host := hosttest.Open(t, d, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	probe := func(ctx context.Context, _ string) (*nvmlprobe.Report, error) {
		cancel()
		return nil, ctx.Err()
	}
	if _, err := discover.Run(ctx, host, discover.Options{Probe: probe}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want %v", err, context.Canceled)
	}
}

func TestInventoryIsJSON(t *testing.T) {
	d := hosttest.Load(t, "a100-mixed-mig")
	inv := discovered(t, hosttest.Open(t, d, t.TempDir()), d.Probe())
	data, err := json.Marshal(inv)
	if err != nil {
		t.Fatal(err)
	}
	var back discover.Inventory
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.GPUs) != 4 || back.GPUs[1].MIGDevices[2].Profile != "1c.2g.10gb" || back.Driver.CUDAVersion != "12.2" {
		t.Errorf("read back as %+v", back)
	}
}

// Old kernel modules cut the PCI domain to 16 bits in procfs, where sysfs may have it in full
// or be of no help. It is one GPU all the same.
func TestGPUsOfNVMLAreThoseOfProcfs(t *testing.T) {
	d := hosttest.Load(t, "pci-domain") // NVML's GPU 0 is in MIG mode
	unchanged := func(*nvmlprobe.Report) {}
	indexes := []discover.ID{discover.GPUIndexDiffers, discover.GPUIndexDiffers}
	for _, c := range []struct {
		by       string
		sysfs    bool
		change   func(r *nvmlprobe.Report)
		findings []discover.ID
	}{
		{"the address that sysfs has", true, unchanged, nil},
		{"UUID", false, unchanged, indexes},
		{"minor number", false, func(r *nvmlprobe.Report) { r.GPUs[0].UUID, r.GPUs[1].UUID = "", "" }, indexes},
		{"the part of the address that is there", false, func(r *nvmlprobe.Report) {
			r.GPUs[1] = nvmlprobe.GPU{Index: 1, PCIBusID: r.GPUs[1].PCIBusID, Lost: true, Errors: []string{"GPU is lost"}}
		}, append([]discover.ID{discover.GPULost}, indexes...)},
		{"nothing, as the UUID is another", true, func(r *nvmlprobe.Report) {
			r.GPUs[1].UUID, r.GPUs[1].PCIBusID = "GPU-00000000-0000-4000-8000-000000000000", "0000FF2B:00:00.0"
		}, []discover.ID{discover.GPUNotInNVML, discover.GPUNotInProcfs}},
	} {
		dir := t.TempDir()
		host := hosttest.Open(t, d, dir)
		if !c.sysfs {
			removeAll(t, dir, "sys")
		}
		inv := discovered(t, host, changed(t, d.Probe(), func(r *nvmlprobe.Report) error {
			c.change(r)
			return nil
		}))
		var ids []discover.ID
		for _, f := range inv.Findings {
			if f.Severity.Serious() { // without sysfs there are no DRM nodes
				ids = append(ids, f.ID)
			}
		}
		if slices.Sort(ids); !slices.Equal(ids, slices.Sorted(slices.Values(c.findings))) {
			t.Errorf("by %s: findings %+v, want %q", c.by, inv.Findings, c.findings)
		}
		for i := range inv.GPUs {
			g := &inv.GPUs[i]
			if mig := g.Minor == 0; g.MIGEnabled != mig || mig && (len(g.MIGDevices) != 1 || g.MIGDevices[0].UUID == "") {
				t.Errorf("by %s: %s has MIG devices %+v", c.by, g.Name(), g.MIGDevices)
			}
		}
	}
}

func removeAll(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// GPUs that NVIDIA's driver does not have are findings beside those that it has; virtual
// functions are parts of others.
func TestGPUsOnTheBusThatTheDriverDoesNotHave(t *testing.T) {
	d := hosttest.Load(t, "passthrough")
	inv := discovered(t, hosttest.Open(t, d, t.TempDir()), d.Probe())
	wantFinding(t, inv, discover.GPUPassthrough, discover.Note, "is bound to vfio-pci")
	wantFinding(t, inv, discover.GPUUnbound, discover.Warning, "no kernel driver is bound to it")
	if len(inv.Findings) != 2 || len(inv.GPUs) != 2 || len(inv.PCI) != 4 {
		t.Errorf("%d GPUs, %d on the bus, findings %+v", len(inv.GPUs), len(inv.PCI), inv.Findings)
	}
	// Not even where procfs has one.
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	gpus := filepath.Join(dir, "proc/driver/nvidia/gpus")
	if err := os.Rename(filepath.Join(gpus, "0000:1b:00.0"), filepath.Join(gpus, "0000:43:00.4")); err != nil {
		t.Fatal(err)
	}
	if inv := discovered(t, host, nil); len(inv.GPUs) != 1 {
		t.Errorf("a virtual function is a GPU: %+v", inv.GPUs)
	}
}

func TestNVMLIsAskedIfNeeded(t *testing.T) {
	const pci = "sys/bus/pci/devices/0000:43:00.0/"
	remove := func(name string) func(dir string) error {
		return func(dir string) error { return os.RemoveAll(filepath.Join(dir, name)) }
	}
	write := func(name, content string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644) }
	}
	for _, c := range []struct {
		name, host string
		change     func(dir string) error
		want       int
	}{
		{"no GPU has MIG mode", "missing-node", nil, 0},
		{"a laptop", "fedora", nil, 0},
		{"a GPU is excluded", "excluded-gpu", nil, 0},
		{"a GPU has MIG mode", "two-gpus", nil, 1},
		{"MIG devices", "a100-mixed-mig", nil, 1},
		{"graphics in MIG devices", "gfx-mig", nil, 1},
		{"an unknown device ID", "missing-node", write(pci+"device", "0xfff0\n"), 1},
		{"no device ID", "missing-node", remove(pci + "device"), 1},
		{"a GPU of procfs is not on the bus", "missing-node", remove("sys/bus/pci/devices/0000:43:00.0"), 1},
		{"a GPU of procfs is not bound to the driver", "missing-node", remove(pci + "driver"), 1},
		{"a GPU of the bus is not in procfs", "missing-node", remove("proc/driver/nvidia/gpus/0000:43:00.0"), 1},
		{"procfs has no UUID yet", "missing-node", write("proc/driver/nvidia/gpus/0000:43:00.0/information", "Device Minor: 1\nGPU UUID: GPU-????????\n"), 1},
		{"procfs has no minor number", "missing-node", write("proc/driver/nvidia/gpus/0000:43:00.0/information", "GPU UUID: GPU-9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1a\n"), 1},
		{"no sysfs", "missing-node", remove("sys"), 1},
		{"no GPU", "no-gpu", nil, 0},
	} {
		d := hosttest.Load(t, c.host)
		dir := t.TempDir()
		host := hosttest.Open(t, d, dir)
		if c.change != nil {
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			host = hosttest.Reopen(t, d, dir)
		}
		var asked atomic.Int64
		probe := func(ctx context.Context, library string) (*nvmlprobe.Report, error) {
			asked.Add(1)
			return d.Probe()(ctx, library)
		}
		inv, err := discover.Run(t.Context(), host, discover.Options{Probe: probe, ProbeIfNeeded: true})
		if err != nil {
			t.Fatal(err)
		}
		if n := int(asked.Load()); n != c.want {
			t.Errorf("%s: NVML was asked %d times; want %d", c.name, n, c.want)
		}
		if c.want > 0 {
			continue
		}
		// Nothing but the CUDA version is missing, and it is not guessed.
		without := discovered(t, hosttest.Reopen(t, d, dir), nil)
		if !reflect.DeepEqual(without.GPUs, inv.GPUs) || inv.Driver.CUDAVersion != "" {
			t.Errorf("%s: CUDA %q, GPUs %+v; want none, and %+v", c.name, inv.Driver.CUDAVersion, inv.GPUs, without.GPUs)
		}
	}
}
