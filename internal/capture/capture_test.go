package capture_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/internal/capture"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/redact"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/spec"
)

// secrets of the machine that the simulated hosts in these tests are said to be.
var secrets = redact.Identifiers{
	Hosts: []string{"gpu-node-17", "buildhost.example.org"}, Users: []string{"jane"}, Serials: []string{"J1003QZ3"},
}

// everything is what all kinds need of a discovery.
func everything(o discover.Options) discover.Options {
	for i := range spec.Kinds {
		spec.Kinds[i].Look(&o)
	}
	return o
}

// found is what a discovery makes of a host: the specs of all kinds, or why there is none, and
// findings.
func found(t *testing.T, inv *discover.Inventory) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "driver %+v\n", inv.Driver)
	for _, f := range inv.Findings {
		fmt.Fprintf(&b, "%+v\n", f)
	}
	for i := range spec.Kinds {
		kind := &spec.Kinds[i]
		s, left, err := spec.New(inv, spec.Options{
			Of: kind, Vendor: kind.Prefix + "nvidia.com", Class: kind.Class, Names: []spec.NameStrategy{spec.Index, spec.UUID, spec.PCI},
			Edits: edits.Options{Capabilities: kind.Capabilities},
		})
		for _, f := range left {
			fmt.Fprintf(&b, "%s: %+v\n", kind.Name, f)
		}
		if err != nil {
			fmt.Fprintln(&b, kind.Name, err)
			continue
		}
		data, err := spectext.Encode(s, spectext.YAML)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(data.Bytes())
	}
	return b.String()
}

// again discovers a captured host.
func again(t *testing.T, text []byte) string {
	t.Helper()
	c, err := capture.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	inv, err := discover.Run(context.Background(), c.Host(), everything(c.Options()))
	if err != nil {
		t.Fatal(err)
	}
	return found(t, inv)
}

func record(t *testing.T, host hosttree.Host, o discover.Options, r *redact.Redactor) (text []byte, inv *discover.Inventory) {
	t.Helper()
	c, inv, err := capture.Record(context.Background(), host, everything(o), r, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if text, err = c.Encode(); err != nil {
		t.Fatal(err)
	}
	return text, inv
}

// A captured host gives the very spec and findings that the host itself gives, but for
// its identifiers, of which none is anywhere in the capture.
func TestCaptureIsTheHostWithoutItsIdentifiers(t *testing.T) {
	for _, name := range hosttest.Hosts(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, dir := hosttest.Load(t, name), t.TempDir()
			host := hosttest.Open(t, d, dir)
			r := redact.New([]byte(name), secrets)
			text, inv := record(t, host, discover.Options{Probe: d.Probe()}, r)
			if diff := cmp.Diff(capture.Text(r, found(t, inv)), again(t, text)); diff != "" {
				t.Errorf("the capture is another host (-host +capture):\n%s", diff)
			}
			if again := r.Text(string(text)); again != string(text) {
				t.Errorf("the text as a whole has identifiers (-text +redacted):\n%s", cmp.Diff(string(text), again))
			}
			// That nothing is left is not the redactor's word alone.
			uuids := regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
			for _, original := range append(originals(t, dir, uuids), "buildhost") {
				if strings.Contains(string(text), original) {
					t.Errorf("%s is in the capture", original)
				}
			}
			for _, uuid := range uuids.FindAllString(string(text), -1) {
				if !strings.HasPrefix(uuid, "00000000-") {
					t.Errorf("%s is in the capture", uuid)
				}
			}
		})
	}
}

// originals are all texts of a form in the files of a simulated host.
func originals(t *testing.T, dir string, form *regexp.Regexp) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		for _, match := range form.FindAll(data, -1) {
			list = append(list, string(match))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// A machine has more than a simulated host: sockets, firmware, broken libraries,
// processes, other PCI devices, and its owner's names all over.
func TestCaptureOfAHostWithItsOwnersNames(t *testing.T) {
	d := hosttest.Load(t, "two-gpus")
	d.NVML = simhost.NVML{}
	dir := t.TempDir()
	hosttest.Open(t, d, dir)
	write := func(mode os.FileMode, text string, elem ...string) {
		t.Helper()
		file := filepath.Join(append([]string{dir}, elem...)...)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.RemoveAll(file), os.WriteFile(file, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
	}
	write(0o644, "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  "+d.Driver.Version+"  Release Build  (root@gpu-node-17)  Thu\n", "proc/driver/nvidia/version")
	write(0o644, "sshd\n", "proc/78/comm")
	write(0o644, "6.1.0\n", "proc/sys/kernel/osrelease")
	write(0o644, "", "home/jane/mps/control")
	write(0o644, "", "lib/firmware/nvidia", d.Driver.Version, "gsp_ga10x.bin")
	write(0o600, "{}", "usr/share/glvnd/egl_vendor.d/10_nvidia.json")
	write(0o644, "no library", "usr/lib/x86_64-linux-gnu/libnvidia-odd.so."+d.Driver.Version)
	write(0o644, "no newline at the end", "proc/driver/nvidia/gpus/note")
	write(0o644, "", "proc/driver/nvidia/empty")
	if err := os.MkdirAll(filepath.Join(dir, "run/nvidia-persistenced"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(dir, "run/nvidia-persistenced")) // the address of a socket is short
	socket, err := net.Listen("unix", "socket")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "dev/char"), 0o755), os.Symlink("../nvidia0", filepath.Join(dir, "dev/char/195:0")),
		os.Symlink("../null", filepath.Join(dir, "dev/char/1:3"))); err != nil {
		t.Fatal(err)
	}
	r := redact.New([]byte("key"), secrets)
	text, inv := record(t, hosttest.Reopen(t, d, dir), discover.Options{Probe: d.Probe(), LibrarySearchPath: []string{"/home/jane"}, MPSDirectory: "/home/jane/mps"}, r)
	was := found(t, inv)
	if diff := cmp.Diff(capture.Text(r, strings.ReplaceAll(was, `"note"`, strconv.Quote(r.Name("note")))), again(t, text)); diff != "" {
		t.Errorf("the capture is another host (-host +capture):\n%s", diff)
	}
	for _, want := range []string{"nvidia-persistenced/socket", "gsp_ga10x.bin", "10_nvidia.json", "/home/jane/mps", "libnvidia-odd"} {
		if !strings.Contains(was, want) {
			t.Errorf("the discovery has not found %s", want)
		}
	}
	for _, want := range []string{"dev/char/195:0: {link: ../nvidia0}", "driver/nvidia/redacted-name-", "'Character devices:'", `["0x10de"]`, "DeviceFileMode: 438", "vendor:"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in the capture", want)
		}
	}
	for _, secret := range []string{"gpu-node-17", "jane", "sshd", "root@", "Release Build", "GCC", "ttyS", "Video BIOS", "RegistryDwords", "1:3", "libsystem", "libz", "0x8086"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%q is in the capture", secret)
		}
	}
}

func TestCaptureOfAContainerHasNoEnvironment(t *testing.T) {
	d, dir := hosttest.Load(t, "two-gpus"), t.TempDir()
	d.MissingNodes = []string{"nvidia1"}
	hosttest.Open(t, d, dir)
	file := filepath.Join(dir, "proc/1/environ")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("TOKEN=hunter2\x00container=lxc\x00PATH=/bin\x00"), 0o600)); err != nil {
		t.Fatal(err)
	}
	text, inv := record(t, hosttest.Reopen(t, d, dir), discover.Options{Probe: d.Probe()}, redact.New(nil, redact.Identifiers{}))
	if !strings.Contains(string(text), "1/environ: {lines: [container=lxc]}") || strings.Contains(string(text), "hunter2") {
		t.Errorf("%s", text)
	}
	if !slices.ContainsFunc(inv.GPUs, func(g discover.GPU) bool { return g.Withheld }) || !strings.Contains(again(t, text), string(discover.NodeWithheld)) {
		t.Error("it is not known as a container")
	}
}

func TestCaptureOfAHostThatNobodyAsksNVMLOf(t *testing.T) {
	d := hosttest.Load(t, "demo")
	r := redact.New(nil, redact.Identifiers{})
	text, inv := record(t, hosttest.Open(t, d, t.TempDir()), discover.Options{}, r)
	if diff := cmp.Diff(capture.Text(r, found(t, inv)), again(t, text)); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(string(text), "nvml:") {
		t.Error("the capture has an answer of NVML")
	}
}

// closed is a file system with a file that may not be read, even by root.
type closed struct {
	fs.FS
	file string
}

func (c closed) Open(name string) (fs.File, error) {
	if name == c.file {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return c.FS.Open(name)
}

func (c closed) ReadLink(name string) (string, error)   { return fs.ReadLink(c.FS, name) }
func (c closed) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(c.FS, name) }

func TestFileThatCannotBeReadIsNoted(t *testing.T) {
	d := hosttest.Load(t, "two-gpus")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	host.Proc = hosttree.NewTree("/proc", closed{os.DirFS(filepath.Join(dir, "proc")), "driver/nvidia/params"})
	c, _, err := capture.Record(context.Background(), host, discover.Options{}, redact.New(nil, redact.Identifiers{}), "")
	if err != nil || !slices.Equal(c.Unreadable, []string{"/proc/driver/nvidia/params: permission denied"}) {
		t.Errorf("unreadable: %q, %v", c.Unreadable, err)
	}
}

const minimal = "capture: 1\ncdigen: x\narch: amd64\n"

func TestUnusableCaptureIsRefused(t *testing.T) {
	trees := func(files string) string {
		return minimal + "driver: {path: /, files: {" + files + "}}\ndev: {path: /}\nproc: {path: /proc}\nsys: {path: /sys}\n"
	}
	if _, err := capture.Parse([]byte(trees("a/b: {lines: [x]}, c: {type: socket}, d: {type: directory, mode: \"0700\"}, d/e: {}"))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, text, err string }{
		{"empty", "", "not a capture: it has no field capture"},
		{"a spec", "cdiVersion: 0.5.0\n", "not a capture: it has no field capture"},
		{"no YAML", "a: b: c", "not a capture: yaml: mapping values"},
		{"a list", "- capture", "not a capture: line 1: unexpected array"},
		{"one key many times", "capture: 1\n" + strings.Repeat("a: 1\n", 8_000), "not a capture: line 3: mapping key \"a\" already defined at line 2"},
		{"small values", "capture: [" + strings.Repeat("1,", 1<<20) + "]", "not a capture: it has more than 131072 values"},
		{"too large", "capture: 1\n# " + strings.Repeat("x", 17<<20), "not a capture: it is larger than 16 MiB"},
		{"nested deeply", strings.Repeat("[", 1<<20), "not a capture: "},
		{"of another format", strings.Replace(trees(""), "capture: 1", "capture: 2", 1), "capture: 2: this cdigen reads captures of format 1"},
		{"of another architecture", strings.Replace(trees(""), "amd64", "sparc", 1), `arch: "sparc" is not an architecture`},
		{"without trees", minimal, `path: "" is not absolute`},
		{"a path out of the tree", trees("../x: {}"), `driver: files: "../x" is not a path below the tree`},
		{"an absolute path", trees("/x: {}"), `"/x" is not a path`},
		{"the tree itself", trees(".: {}"), `"." is not a path`},
		{"a file in a file", trees("a: {}, a/b: {}"), "a/b: a is not a directory"},
		{"a file in a link", trees("a: {link: c}, a/b: {}"), "a/b: a is not a directory"},
		{"a node without numbers", trees("a: {node: x}"), `a: node: "x" is not two numbers`},
		{"a node of nobody", trees("a: {node: '1:2', owner: root}"), `a: owner: "root" is not two numbers`},
		{"a library of no architecture", trees("a: {library: {arch: mips}}"), `a: library: arch: "mips" is not an architecture`},
		{"a file of two types", trees("a: {link: b, type: socket}"), "a: use only one of"},
		{"an unknown type", trees("a: {type: door}"), `a: type: "door" is neither`},
		{"a mode that is none", trees("a: {mode: rw}"), "a: mode: "},
		{"a mode of too much", trees("a: {mode: \"1777\"}"), "a: mode: "},
		{"an unknown cache", trees("a: {cache: {layout: odd}}"), `a: cache: layout: "odd" is not new`},
		{"a short entry of a cache", trees("a: {cache: {layout: new, entries: [x]}}"), "entries: \"x\" is not a name"},
		{"an entry of a cache without flags", trees("a: {cache: {layout: new, entries: [a b c]}}"), `"a b c"`},
		{"an unknown field", trees("a: {colour: red}"), "field colour not found"},
		{"a report that is none", trees("") + "nvml: {report: {gpus: [{index: -1}]}}\n", "nvml: the probe's report: GPU index -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := capture.Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, want %s", err, c.err)
			}
		})
	}
}

func TestCaptureHasTheHostsRootBesideTheDrivers(t *testing.T) {
	d := hosttest.Load(t, "driver-container")
	dir := t.TempDir()
	if err := d.Build(dir, simhost.Options{}); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"sys/module/firmware_class/parameters/path":                   "/lib/firmware\n",
		"lib/firmware/nvidia/" + d.Driver.Version + "/gsp_ga10x.bin":  "x",
		"usr/lib/firmware/nvidia/" + d.Driver.Version + "/unused.bin": "x",
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	host := hosttree.Local("amd64", d.DriverRoot(dir), d.DriverRoot(dir), filepath.Join(dir, "proc"), filepath.Join(dir, "sys"))
	c, inv, err := capture.Record(t.Context(), host, discover.Options{Probe: d.Probe()}, redact.New(nil, redact.Identifiers{}), "")
	if err != nil {
		t.Fatal(err)
	}
	again, err := discover.Run(t.Context(), c.Host(), c.Options())
	if err != nil {
		t.Fatal(err)
	}
	firmware := func(inv *discover.Inventory) (targets []string) {
		for _, f := range inv.Files {
			if f.Kind == driverfiles.Firmware {
				targets = append(targets, f.Targets...)
			}
		}
		return targets
	}
	if want := firmware(inv); len(want) != 1 || !slices.Equal(firmware(again), want) {
		t.Errorf("the capture has firmware %q, the host %q", firmware(again), want)
	}
}

// FuzzParse: whatever somebody sends as a capture, it is refused or it is a host.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"two-gpus", "nixos", "t4-r470"} {
		d, err := simhost.Load(hosttest.Path("hosts", name+".yaml"))
		if err != nil {
			f.Fatal(err)
		}
		dir := f.TempDir()
		if err := d.Build(dir, simhost.Options{}); err != nil {
			f.Fatal(err)
		}
		host := hosttree.Local("amd64", d.DriverRoot(dir), dir, filepath.Join(dir, "proc"), filepath.Join(dir, "sys"))
		c, _, err := capture.Record(context.Background(), host, discover.Options{Probe: d.Probe()}, redact.New(nil, redact.Identifiers{}), "")
		if err != nil {
			f.Fatal(err)
		}
		delete(c.Proc.Files, "driver/nvidia-caps/mig-minors") // 110 KB
		text, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(minimal + "driver: {path: /, files: {a: {node: '4095:1048575'}, b: {link: a}, c: {link: c}}}\ndev: {path: /}\nproc: {path: /p}\nsys: {path: /s}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := capture.Parse(text)
		if err != nil {
			return
		}
		if _, err := discover.Run(context.Background(), c.Host(), everything(c.Options())); err != nil {
			t.Error(err)
		}
		once, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		c, err = capture.Parse(once)
		if err != nil {
			t.Fatalf("%v\n%s", err, once)
		}
		if twice, err := c.Encode(); err != nil || string(twice) != string(once) {
			t.Errorf("%v\n%s", err, cmp.Diff(string(once), string(twice)))
		}
	})
}
