package inject

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/diff"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/spec"
)

var update = flag.Bool("update", false, "write the golden files again")

// oddSpec has something of everything that a CDI spec may have. Its nodes and files
// are on every Linux; HOST is a directory of the test.
const oddSpec = `
cdiVersion: 1.1.0
kind: vendor.com/thing
containerEdits:
  env: [COMMON=1]
  deviceNodes:
  - {path: /dev/thingctl, hostPath: /dev/null, permissions: rw}
  mounts:
  - {hostPath: HOST/lib.so, containerPath: /usr/lib/lib.so.1, options: [ro, nosuid, nodev, rbind, rprivate]}
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - {path: /dev/thing0, hostPath: /dev/zero, permissions: rw}
- name: "1"
  containerEdits:
    env: [COMMON=2, ONE=1]
    deviceNodes:
    - {path: /dev/thing1, hostPath: /dev/full}
    - {path: "/dev/by-path/pci-0000:01:00.0-thing", hostPath: /dev/full}
- name: odd
  containerEdits:
    env: ["SPACES= a  b", 'QUOTES="a" $b \c', "EMPTY="]
    deviceNodes:
    - {path: "/dev/odd:colon", hostPath: /dev/random, permissions: r}
    - {path: /dev/odd-none, hostPath: /dev/urandom, permissions: none}
    - {path: /dev/full}
    - {path: /dev/pinned, hostPath: /dev/null, type: c, major: 240, minor: 7, permissions: m}
    - {path: /dev/block, hostPath: /dev/null, type: b, major: 240, minor: 7, permissions: rw}
    mounts:
    - {hostPath: "HOST/a b", containerPath: '/opt/a b\c', options: [rbind]}
    - {hostPath: "HOST/c:d", containerPath: "/opt/c:d", options: [bind, ro, noexec, rslave]}
    - {hostPath: "HOST/e,f", containerPath: "/opt/e,f"}
    - {hostPath: tmpfs, containerPath: /scratch, type: tmpfs, options: [nosuid, size=1m]}
    - {hostPath: proc, containerPath: /opt/proc, type: proc}
    hooks:
    - {hookName: createContainer, path: /bin/true, args: ["true", "<&>"]}
    - {hookName: poststop, path: /bin/false}
    intelRdt: {closID: gold}
    additionalGids: [44, 105]
    netDevices: [{hostInterfaceName: eth7, name: eth0}]
`

// odd is a source of oddSpec, and the directory that is HOST.
func odd(t testing.TB) (Source, string) {
	t.Helper()
	host := t.TempDir()
	for _, dir := range []string{"a b", "e,f", "specs"} {
		check(t, os.Mkdir(filepath.Join(host, dir), 0o755))
	}
	for _, file := range []string{"lib.so", "c:d"} {
		check(t, os.WriteFile(filepath.Join(host, file), nil, 0o644))
	}
	check(t, os.WriteFile(filepath.Join(host, "specs/odd.yaml"), []byte(strings.ReplaceAll(oddSpec, "HOST", host)), 0o644))
	return open(t, filepath.Join(host, "specs")), host
}

func open(t testing.TB, dirs ...string) Source {
	t.Helper()
	devices, _ := specdir.ReadDirectories(dirs).Devices()
	return devices
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// simulated is a source of the spec of a simulated host in a directory, with what
// containers need to compute. Ordinary users make no device nodes: plain files stand in
// for all, and the spec has their numbers.
func simulated(t *testing.T) (Source, string) {
	t.Helper()
	dir := t.TempDir()
	d := hosttest.Load(t, "demo")
	inv := hosttest.Discover(t, hosttest.Open(t, d, dir), d.Probe())
	s, _, err := spec.New(inv, spec.Options{
		Vendor: "nvidia.com", Class: "gpu", Names: []spec.NameStrategy{spec.Index},
		Edits: edits.Options{Layout: "debian", Capabilities: []driverfiles.Capability{driverfiles.Compute}},
	})
	check(t, err)
	numbers := map[string][2]int64{}
	for _, n := range append(slices.Concat(inv.ControlNodes, inv.GPUs[7].MIGDevices[0].Nodes), *inv.GPUs[7].Node) {
		numbers[n.HostPath] = [2]int64{int64(n.Have.Major), int64(n.Have.Minor)}
	}
	pin := func(e *specs.ContainerEdits) {
		for _, n := range e.DeviceNodes {
			if n.HostPath == "" {
				n.HostPath = n.Path
			}
			n.Type, n.Major, n.Minor = "c", numbers[n.HostPath][0], numbers[n.HostPath][1]
			n.HostPath = filepath.Join(dir, n.HostPath)
			check(t, os.RemoveAll(n.HostPath))
			check(t, os.MkdirAll(filepath.Dir(n.HostPath), 0o755))
			check(t, os.WriteFile(n.HostPath, nil, 0o644))
		}
		for _, m := range e.Mounts {
			m.HostPath = filepath.Join(dir, m.HostPath)
		}
	}
	s.Devices = slices.DeleteFunc(s.Devices, func(d specs.Device) bool { return d.Name != "7:0" })
	pin(&s.ContainerEdits)
	pin(&s.Devices[0].ContainerEdits)
	data, err := spectext.Encode(s, spectext.JSON)
	check(t, err)
	check(t, os.Mkdir(filepath.Join(dir, "cdi"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "cdi/nvidia.json"), data.Bytes(), 0o644))
	return open(t, filepath.Join(dir, "cdi")), dir
}

// printed is what formats that print give, as golden files have it.
func printed(t *testing.T, c *Contents, host string) map[string]string {
	t.Helper()
	all := map[string]string{}
	tell := func(name, text string, notes []string, err error) {
		t.Helper()
		check(t, err)
		all[name] = golden(text, notes, host)
	}
	lines, notes, err := LXC(c, CgroupV2, OpenRootfs("", nil, nil))
	tell("lxc", strings.Join(lines, "\n")+"\n", notes, err)
	mounts, environ, notes, err := Enroot(c)
	tell("enroot", strings.Join(append(environ, mounts...), "\n")+"\n", notes, err)
	for name, format := range map[string]func(*Contents) ([][]string, []string, error){"nspawn": Nspawn, "docker-args": Docker, "podman-args": Podman} {
		args, notes, err := format(c)
		text, _ := Words(args)
		tell(name, text, notes, err)
	}
	return all
}

func TestFormatsAreAsTheirGoldens(t *testing.T) {
	for _, c := range []struct {
		name    string
		source  func(*testing.T) (Source, string)
		devices []string
	}{
		{"mig", simulated, []string{"nvidia.com/gpu=7:0"}},
		{"odd", func(t *testing.T) (Source, string) { return odd(t) }, []string{"vendor.com/thing=1", "vendor.com/thing=odd"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			source, host := c.source(t)
			contents, err := source.Contents(c.devices)
			check(t, err)
			all := printed(t, contents, host)
			for _, form := range []Form{OCI, NspawnBundle} {
				config, err := ParseConfig([]byte(runcSpec))
				check(t, err)
				data, notes, err := config.Inject(source, c.devices, form)
				check(t, err)
				// The digests are those of paths that change.
				text := digests.ReplaceAllString(string(data), "DIGEST")
				text = string(diff.Diff("config.json", []byte(runcSpec), "config.json", []byte(text)))
				all[string(form)] = golden(text, notes, host)
			}
			for format, got := range all {
				compareGolden(t, filepath.Join("testdata", c.name+"."+format), got)
			}
		})
	}
}

// golden is a text as golden files have it.
func golden(text string, notes []string, host string) string {
	var b strings.Builder
	b.WriteString(text)
	for _, note := range notes {
		b.WriteString("note: " + note + "\n")
	}
	return strings.ReplaceAll(b.String(), host, "HOST")
}

var digests = regexp.MustCompile(`\b[0-9a-f]{12}\b`)

func compareGolden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		check(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: make golden writes it", err)
	}
	if d := diff.Diff(file, want, "now", []byte(got)); d != nil {
		t.Errorf("make golden writes it again:\n%s", d)
	}
}

// What a shell makes of the text is what was meant: of $(…) where nothing is quoted,
// else of eval.
func TestShellTakesWordsApartAsTheyWere(t *testing.T) {
	for _, args := range [][][]string{
		{{"-e", "A=1"}, {"--device", "/dev/nvidia0:/dev/nvidia0:rwm"}},
		{{`--bind=/dev/dri/card1:/dev/dri/by-path/pci-0000\:1b\:00.0-card`}},
		{{"-e", "A= b  c"}, {`--bind=/a\:b`}},
		{{"-e", "A=*"}, {"-e", "B=?[a]"}, {"-e", "C=~"}, {"-e", "D={a,b}"}},
		{{"-e", `A='"$b" ` + "`c`"}, {"-e", "B=;&|<>()#!"}},
		{{"-e", "A=\n\t"}, {"-e", "B="}, {"-e", ""}},
		{{"-e", "Ä=ö"}},
	} {
		text, quoted := Words(args)
		script := `printf '%s\0' $(cat)`
		if quoted {
			script = `eval "printf '%s\\0' $(cat)"`
		}
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir = t.TempDir() // with one file for patterns to match
		check(t, os.WriteFile(filepath.Join(cmd.Dir, "a"), nil, 0o644))
		cmd.Stdin = strings.NewReader(text)
		out, err := cmd.Output()
		check(t, err)
		var want bytes.Buffer
		for _, w := range slices.Concat(args...) {
			fmt.Fprintf(&want, "%s\x00", w)
		}
		if diff := cmp.Diff(want.String(), string(out)); diff != "" {
			t.Errorf("%s(quoted: %v):\n%s", text, quoted, diff)
		}
	}
}

func TestPlainWordsAreNotQuoted(t *testing.T) {
	source, _ := simulated(t)
	c, err := source.Contents([]string{"nvidia.com/gpu=7:0"})
	check(t, err)
	for _, format := range []func(*Contents) ([][]string, []string, error){Nspawn, Docker, Podman} {
		args, _, err := format(c)
		check(t, err)
		if text, quoted := Words(args); quoted || len(args) < 10 {
			t.Errorf("quoted: %v\n%s", quoted, text)
		}
	}
}

func TestUnknownDeviceIsAnError(t *testing.T) {
	source, _ := odd(t)
	if _, err := source.Contents([]string{"vendor.com/thing=0", "vendor.com/thing=9"}); err == nil || !strings.Contains(err.Error(), `no CDI device "vendor.com/thing=9"`) {
		t.Errorf("%v", err)
	}
}

func TestMissingPathIsNamed(t *testing.T) {
	source, host := odd(t)
	config, err := ParseConfig([]byte(runcSpec))
	check(t, err)
	fails := func(want string) {
		t.Helper()
		c, err := source.Contents([]string{"vendor.com/thing=odd"})
		check(t, err)
		_, _, inLXC := LXC(c, CgroupV2, OpenRootfs("", nil, nil))
		_, _, inNspawn := Nspawn(c)
		_, _, inDocker := Docker(c)
		_, _, inBundle := config.Inject(source, c.Devices, OCI)
		for _, err := range []error{inLXC, inNspawn, inDocker, inBundle} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q in it", err, want)
			}
		}
	}
	check(t, os.Remove(filepath.Join(host, "lib.so")))
	fails("stat " + host + "/lib.so: no such file or directory: the spec does not match this host")
	check(t, os.Remove(filepath.Join(host, "c:d")))
	fails("no such file or directory, and 1 more: ")
}

func TestMissingNodeIsNamed(t *testing.T) {
	dir := t.TempDir()
	write := func(node string) Source {
		check(t, os.WriteFile(filepath.Join(dir, "a.json"), []byte(`{"cdiVersion": "0.5.0", "kind": "vendor.com/thing", "devices": [{"name": "0", "containerEdits": {"deviceNodes": [`+node+`]}}]}`), 0o644))
		return open(t, dir)
	}
	if _, err := write(`{"path": "/dev/none"}`).Contents([]string{"vendor.com/thing=0"}); err == nil || !strings.Contains(err.Error(), `"/dev/none": no such file or directory`) {
		t.Errorf("%v", err)
	}
	// An OCI runtime makes a node that the spec has the numbers of; others mount it.
	source := write(`{"path": "/dev/none", "type": "c", "major": 240, "minor": 1}`)
	c, err := source.Contents([]string{"vendor.com/thing=0"})
	check(t, err)
	if _, _, err := Podman(c); err == nil || !strings.Contains(err.Error(), "/dev/none: no such file or directory") {
		t.Errorf("%v", err)
	}
	config, err := ParseConfig([]byte(runcSpec))
	check(t, err)
	if _, _, err := config.Inject(source, c.Devices, OCI); err != nil {
		t.Error(err)
	}
}

func TestMinus(t *testing.T) {
	list := []string{"a", "b", "c"}
	for _, c := range []struct {
		names, want []string
		err         string
	}{
		{[]string{"b"}, []string{"a", "c"}, ""},
		{[]string{"a", "b", "c"}, nil, ""},
		{nil, nil, ""},
		{[]string{"d"}, nil, "d was not injected: the injected devices are a, b, c"},
	} {
		got, err := Minus(list, c.names)
		if !slices.Equal(got, c.want) || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("Minus(%q): %q, %v", c.names, got, err)
		}
	}
	if _, err := Minus(nil, nil); err == nil {
		t.Error("there is nothing to remove, and no error")
	}
}

func TestIncusProfile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "libcuda.so.1")
	check(t, os.WriteFile(file, nil, 0o600))
	node := Node{HostPath: "/dev/null", Path: "/dev/nvidia0", Type: "c", Access: "rw"}
	mount := oci.Mount{Source: file, Destination: "/usr/lib/libcuda.so.1", Options: []string{"ro", "rbind"}}
	c := &Contents{Devices: []string{"nvidia.com/gpu=0"}, Env: []string{"A=b=c"}, Nodes: []Node{node}, Mounts: []oci.Mount{mount, {Type: "tmpfs", Destination: "/t"}}, Hooks: []string{"a hook"}}
	root := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(root, "usr/lib"), 0o755))
	profile, notes, err := Incus(c, OpenRootfs(root, nil, func(call func() error) error { return call() }))
	check(t, err)
	const want = `config:
    environment.A: b=c
description: nvidia.com/gpu=0, by cdigen inject
devices:
    cdigen000:
        mode: "0666"
        path: /dev/nvidia0
        source: /dev/null
        type: unix-char
    cdigen001:
        path: /usr/lib/libcuda.so.1
        readonly: "true"
        source: FILE
        type: disk
`
	if got := strings.ReplaceAll(string(profile), file, "FILE"); got != want {
		t.Errorf("the profile is\n%s", got)
	}
	if got := strings.Join(notes, "\n"); got != "left out: a hook\nleft out: tmpfs at /t" {
		t.Errorf("the notes are\n%s", got)
	}
	c.Nodes[0].HostPath = file // as that of a driver container
	if _, _, err := Incus(c, OpenRootfs("", nil, nil)); err == nil || !strings.Contains(err.Error(), "is not below /dev: Incus and LXD take no nodes from elsewhere") {
		t.Errorf("a node elsewhere: %v", err)
	}
}
