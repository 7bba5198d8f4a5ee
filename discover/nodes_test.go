package discover_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// driverNodes are the lines of a simulated host's table that are the driver's own.
func driverNodes(t *testing.T, dir string) (lines []string) {
	t.Helper()
	table, err := os.ReadFile(filepath.Join(dir, simhost.NodeTable))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if name, _, _ := strings.Cut(line, " "); devnode.IsDriver(name) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// expected are the nodes that a host should have, and what is wrong with them or cannot be
// known.
func expected(t *testing.T, host hosttree.Host, o discover.Options) (nodes []discover.Node, err error) {
	t.Helper()
	inv, err := discover.Run(t.Context(), host, o)
	if err != nil {
		t.Fatal(err)
	}
	var errs []error
	missing := map[string]bool{}
	for _, f := range inv.Findings {
		switch f.ID {
		case discover.DriverNotLoaded:
			return nil, errNotLoaded
		case discover.NodesUnknown:
			return nil, errors.New(f.Subject + ": " + f.Message)
		case discover.DriverFileUnreadable, discover.GPUUnreadable, discover.GPUMinorUnknown:
			errs = append(errs, errors.New(f.Subject+": "+f.Message))
		}
	}
	for _, n := range inv.Nodes {
		if n.Problem == "" {
			nodes = append(nodes, n)
		} else if n.Module == "" || !missing[n.Module] {
			missing[n.Module] = true
			errs = append(errs, errors.New(n.HostPath+": "+n.Problem))
		}
	}
	return nodes, errors.Join(errs...)
}

var errNotLoaded = errors.New("not loaded")

// modules are the kernel modules of a host.
func modules(t *testing.T, host hosttree.Host) []discover.KernelModule {
	t.Helper()
	inv, err := discover.Run(t.Context(), host, discover.Options{NodesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	return inv.Modules
}

// asTable writes nodes as simulated hosts list theirs.
func asTable(nodes []discover.Node) (lines []string) {
	for _, n := range nodes {
		line := fmt.Sprintf("%s %d %d %04o", n.Path[1:], n.Want.Major, n.Want.Minor, n.Want.Mode)
		if n.Want.UID != 0 || n.Want.GID != 0 {
			line += fmt.Sprintf(" %d %d", n.Want.UID, n.Want.GID)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// node is an expected node by its path.
func node(t *testing.T, nodes []discover.Node, path string) discover.Node {
	t.Helper()
	at := slices.IndexFunc(nodes, func(n discover.Node) bool { return n.Path == path })
	if at < 0 {
		t.Fatalf("no node %s in %+v", path, nodes)
	}
	return nodes[at]
}

func TestExpectedNodesAreThoseOfWholeHosts(t *testing.T) {
	for _, name := range hosttest.Hosts(t) {
		d := hosttest.Load(t, name)
		d.MissingNodes, d.BesideNodes = nil, nil // those of other drivers are not expected
		dir := t.TempDir()
		nodes, err := expected(t, hosttest.Open(t, d, dir), discover.Options{NodesOnly: true})
		switch want := driverNodes(t, dir); {
		case len(want) == 0:
			if !errors.Is(err, errNotLoaded) {
				t.Errorf("%s: %v; want an error that the driver is not loaded", name, err)
			}
		case err != nil && !slices.Contains(d.Driver.NotLoaded, "nvidia-uvm") || !slices.Equal(asTable(nodes), want):
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, strings.Join(asTable(nodes), "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestNodesOfAModuleThatIsNotLoadedAreAnError(t *testing.T) {
	d := hosttest.Load(t, "uvm-not-loaded")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	nodes, err := expected(t, host, discover.Options{NodesOnly: true})
	if err == nil || err.Error() != "/dev/nvidia-uvm: the kernel module nvidia-uvm is not loaded" {
		t.Errorf("%v; want one error, for /dev/nvidia-uvm", err)
	}
	// A host for computing alone does without nvidia-modeset.
	if want := driverNodes(t, dir); !slices.Equal(asTable(nodes), want) {
		t.Errorf("%v; want %v", asTable(nodes), want)
	}
	for _, m := range modules(t, host) {
		if m.Loaded != (m.Name == "nvidia") || m.Required != m.Loaded {
			t.Errorf("%+v", m)
		}
	}
}

func TestExpectedNodesFollowTheDriversParameters(t *testing.T) {
	d := hosttest.Load(t, "imex")
	d.Driver.Parameters["DeviceFileUID"], d.Driver.Parameters["ModifyDeviceFiles"] = 7, 0
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	nodes, err := expected(t, host, discover.Options{NodesOnly: true, IMEXChannels: []int{5, 5, 0}})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-modeset", "/dev/nvidia-caps-imex-channels/channel0", "/dev/nvidia-caps-imex-channels/channel5"} {
		if n := node(t, nodes, path); n.Want.Mode != 0o660 || n.Want.UID != 7 || n.Want.GID != 44 {
			t.Errorf("%s: %+v; want 0660 7:44", path, n)
		}
	}
	for path, mode := range map[string]os.FileMode{
		"/dev/nvidia-uvm": 0o666, "/dev/nvidia-nvlink": 0o666, "/dev/nvidia-nvswitchctl": 0o666, "/dev/nvidia-nvswitch1": 0o666,
		"/dev/nvidia-caps/nvidia-cap0": 0o400, "/dev/nvidia-caps/nvidia-cap2": 0o444, "/dev/nvidia-caps/nvidia-cap4323": 0o400,
	} {
		if n := node(t, nodes, path); n.Want.Mode != mode || n.Want.UID != 0 || n.Want.GID != 0 {
			t.Errorf("%s: %+v; want %04o of root", path, n, mode)
		}
	}
	for _, n := range nodes {
		if !n.Unmanaged {
			t.Errorf("%s: user space may make it, though the driver was told otherwise", n.Path)
		}
	}
	write(t, filepath.Join(dir, "proc/driver/nvidia/params"), "ModifyDeviceFiles: 1\nImexChannelCount: 2\n")
	write(t, filepath.Join(dir, "proc/driver/nvidia/capabilities/mig/config"), "DeviceFileMinor: 1\nDeviceFileMode: 256\nDeviceFileModify: 0\n")
	write(t, filepath.Join(dir, "proc/driver/nvidia/capabilities/mig/monitor"), "DeviceFileMinor: 2\nDeviceFileMode: 288\nDeviceFileModify: 1\n")
	nodes, err = expected(t, hosttest.Reopen(t, d, dir), discover.Options{NodesOnly: true, IMEXChannels: []int{1, 2}})
	if want := "/dev/nvidia-caps-imex-channels/channel2: the driver has 2 channels"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %q", err, want)
	}
	if n := node(t, nodes, "/dev/nvidia-caps/nvidia-cap1"); !n.Unmanaged {
		t.Errorf("one capability is not to be changed: %+v", n)
	}
	if n := node(t, nodes, "/dev/nvidia-caps/nvidia-cap2"); n.Unmanaged || n.Want.Mode != 0o440 {
		t.Errorf("mode 0440 in its file: %+v", n)
	}
	node(t, nodes, "/dev/nvidia-caps-imex-channels/channel1")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestChannelsThatHaveANodeAreExpected(t *testing.T) {
	d := hosttest.Load(t, "imex")
	dir := t.TempDir()
	if err := d.Build(dir, simhost.Options{}); err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile(filepath.Join(dir, simhost.NodeTable))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, simhost.NodeTable), string(table)+"dev/nvidia-caps-imex-channels/channel300 9 9 0600\ndev/nvidia-caps-imex-channels/channel9999 9 9 0600\n")
	nodes, err := expected(t, hosttest.Reopen(t, d, dir), discover.Options{NodesOnly: true})
	if n := node(t, nodes, "/dev/nvidia-caps-imex-channels/channel300"); err != nil || n.Want.Minor != 300 || n.Kind != discover.IMEXNode {
		t.Errorf("%+v, %v; want minor 300", n, err)
	}
	for _, n := range nodes {
		if n.Want.Minor == 9999 {
			t.Errorf("a channel that the driver does not have: %+v", n)
		}
	}
}

func TestPossibleNodesAreAllThereCanBe(t *testing.T) {
	d := hosttest.Load(t, "a100-mixed-mig")
	d.Driver.NotLoaded = []string{"nvidia-modeset"}
	host := hosttest.Open(t, d, t.TempDir())
	now, err := expected(t, host, discover.Options{NodesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	all, err := expected(t, host, discover.Options{NodesOnly: true, PossibleNodes: true})
	if err != nil {
		t.Fatal(err)
	}
	gpus := 0
	for _, n := range now {
		if n.Kind == discover.GPUNode {
			gpus++
		}
		if !slices.ContainsFunc(all, func(a discover.Node) bool { return a.Path == n.Path && *a.Want == *n.Want }) {
			t.Errorf("%+v is not among all", n)
		}
	}
	capabilities := 0
	for _, n := range all {
		if strings.HasPrefix(n.Path, "/dev/nvidia-caps/") {
			capabilities++
		}
	}
	// NVLink's, MIG's two, and for each GPU 15 GPU instances of 8 compute instances.
	if want := 3 + gpus*15*9; capabilities != want {
		t.Errorf("%d capabilities of %d GPUs; want %d", capabilities, gpus, want)
	}
	node(t, all, "/dev/nvidia-modeset")
	control, err := expected(t, host, discover.Options{NodesOnly: true, ControlNodesOnly: true})
	if len(control) != 3 || err != nil {
		t.Errorf("control nodes: %+v, %v; want three", control, err)
	}
}

func TestModesetIsFoundByItsModuleWhereDriversHaveOneName(t *testing.T) {
	d := hosttest.Load(t, "t4-r470") // nvidia-frontend stands for all
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	nodes, err := expected(t, host, discover.Options{NodesOnly: true})
	if n := node(t, nodes, "/dev/nvidia-modeset"); err != nil || n.Want.Major != 195 || n.Want.Minor != 254 {
		t.Errorf("%+v, %v", n, err)
	}
	write(t, filepath.Join(dir, "proc/modules"), "nvidia_current_modeset 1306624 0 - Live 0x0\n")
	if modules := modules(t, hosttest.Reopen(t, d, dir)); !modules[2].Loaded {
		t.Errorf("Debian's name of the module: %+v", modules)
	}
	write(t, filepath.Join(dir, "proc/modules"), "xnvidia_modeset 1 0 - Live 0x0\nnvidia_modesets 1 0 - Live 0x0\n")
	if modules := modules(t, hosttest.Reopen(t, d, dir)); modules[2].Loaded || !modules[0].Loaded || !modules[1].Loaded {
		t.Errorf("no such module: %+v", modules)
	}
}

func TestOneUnreadablePartLeavesTheOtherNodes(t *testing.T) {
	for path, c := range map[string]struct{ text, want string }{
		"driver/nvidia/capabilities/mig/config":         {"nothing\n", "/proc/driver/nvidia/capabilities/mig/config: no line DeviceFileMinor"},
		"driver/nvidia/gpus/0000:43:00.0/information":   {"Model: X\n", "GPU 1 (0000:43:00.0): the driver does not tell its minor number"},
		"driver/nvidia/gpus/nonsense/information":       {"Model: X\n", `"nonsense" is not a PCI address`},
		"driver/nvidia-nvswitch/permissions":            {"DeviceFileMode: x\n", "/proc/driver/nvidia-nvswitch/permissions: DeviceFileMode"},
		"driver/nvidia-nvlink/capabilities/fabric-mgmt": {"DeviceFileMinor: 0\nDeviceFileMode: -1\n", "fabric-mgmt: DeviceFileMode"},
		"driver/nvidia-caps/mig-minors":                 {"config 1\n", "/proc/driver/nvidia-caps/mig-minors: no line"},
	} {
		d := hosttest.Load(t, "demo")
		d.NVSwitches = 1
		dir := t.TempDir()
		if err := d.Build(dir, simhost.Options{}); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "proc", path), c.text)
		nodes, err := expected(t, hosttest.Reopen(t, d, dir), discover.Options{NodesOnly: true, PossibleNodes: true})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want %q and nothing else", path, err, c.want)
		}
		for _, other := range []string{"/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap2", "/dev/nvidia-nvswitch0"} {
			node(t, nodes, other)
		}
	}
}

func TestNothingIsGuessedOfWhoMayOpenNodes(t *testing.T) {
	d := hosttest.Load(t, "demo")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	if err := os.Remove(filepath.Join(dir, "proc/driver/nvidia/params")); err != nil {
		t.Fatal(err)
	}
	// As nvidia-modprobe does it.
	nodes, err := expected(t, host, discover.Options{NodesOnly: true})
	if n := node(t, nodes, "/dev/nvidia0"); err != nil || n.Want.Mode != 0o666 || n.Unmanaged {
		t.Errorf("without parameters: %+v, %v; want the defaults", n, err)
	}
	write(t, filepath.Join(dir, "proc/driver/nvidia/params"), "DeviceFileMode: rw\n")
	if nodes, err := expected(t, hosttest.Reopen(t, d, dir), discover.Options{NodesOnly: true}); err == nil || nodes != nil {
		t.Errorf("a mode that is no number: %v, %v; want an error and no node", nodes, err)
	}
	write(t, filepath.Join(dir, "proc/devices"), "nothing\n")
	if _, err := expected(t, hosttest.Reopen(t, d, dir), discover.Options{NodesOnly: true}); err == nil {
		t.Error("no device numbers: no error")
	}
}

func TestPresentNodesHaveTheDriversNumbers(t *testing.T) {
	d := hosttest.Load(t, "demo")
	dir := t.TempDir()
	if err := d.Build(dir, simhost.Options{}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, simhost.NodeTable)
	table, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// GPU 2's node is from another system, that of UVM from another boot. nvidia-fs is
	// NVIDIA's too, nvidia-uvm-mine has a number that is nobody's.
	text := strings.Replace(string(table), "dev/nvidia2 195 2", "dev/nvidia2 195 7", 1)
	text = strings.Replace(text, "dev/nvidia-uvm 508", "dev/nvidia-uvm 9", 1)
	write(t, file, text+"dev/nvidia-fs0 222 0 0666\ndev/nvidia-mine 223 0 0666\n")
	devices := filepath.Join(dir, "proc/devices")
	data, err := os.ReadFile(devices)
	if err != nil {
		t.Fatal(err)
	}
	write(t, devices, strings.Replace(string(data), "Character devices:\n", "Character devices:\n222 nvidia-fs\n", 1))
	host := hosttest.Reopen(t, d, dir)
	inv, err := discover.Run(t.Context(), host, discover.Options{NodesOnly: true, OtherNodes: true})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range inv.Nodes {
		if n.Usable() {
			names = append(names, n.Path)
		}
	}
	for _, want := range []discover.Finding{
		{ID: discover.NodeWrong, Severity: discover.Broken, Subject: "/dev/nvidia2", Message: "is 195:7, the driver has 195:2: its GPU is left out"},
		{ID: discover.NodeWrong, Severity: discover.Broken, Subject: "/dev/nvidia-uvm", Message: "is 9:0, the driver has 508:0: CUDA does not start"},
	} {
		if !slices.Contains(inv.Findings, want) {
			t.Errorf("%+v; want %+v", inv.Findings, want)
		}
	}
	for name, want := range map[string]bool{
		"/dev/nvidia0": true, "/dev/nvidiactl": true, "/dev/nvidia-uvm-tools": true, "/dev/nvidia-fs0": true, "/dev/nvidia-caps/nvidia-cap1": true,
		"/dev/nvidia2": false, "/dev/nvidia-uvm": false, "/dev/nvidia-mine": false, "/dev/dri/card1": false,
	} {
		if slices.Contains(names, name) != want {
			t.Errorf("%s: present %v; want %v", name, !want, want)
		}
	}
}
