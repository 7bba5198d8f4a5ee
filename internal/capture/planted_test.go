package capture_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/capture"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/ldcache"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
	"github.com/cdigen/cdigen/internal/redact"
)

// inMemory is a simulated host that tests can change.
type inMemory struct {
	d     *simhost.Description
	files fstest.MapFS
	nodes []byte
}

func load(t testing.TB, name string) *inMemory {
	t.Helper()
	m := &inMemory{d: hosttest.Load(t, name), files: fstest.MapFS{}}
	dir := t.TempDir()
	if err := m.d.Build(dir, simhost.Options{}); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		f := &fstest.MapFile{Mode: info.Mode()}
		var target string
		switch e.Type() {
		case fs.ModeSymlink:
			target, err = os.Readlink(file)
			f.Data = []byte(target)
		case 0:
			f.Data, err = os.ReadFile(file)
		default:
			return nil
		}
		m.files[name] = f
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	m.nodes = m.files[simhost.NodeTable].Data
	return m
}

func (m *inMemory) clone() *inMemory {
	return &inMemory{m.d, maps.Clone(m.files), slices.Clone(m.nodes)}
}

func (m *inMemory) write(name, text string) {
	m.files[name] = &fstest.MapFile{Mode: 0o644, Data: []byte(text)}
}
func (m *inMemory) read(name string) string { return string(m.files[name].Data) }
func (m *inMemory) link(target, name string) {
	m.files[name] = &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte(target)}
}

// move moves all that is below a directory.
func (m *inMemory) move(from, to string) {
	for name, f := range maps.Clone(m.files) {
		if rest, ok := strings.CutPrefix(name, from+"/"); ok {
			delete(m.files, name)
			m.files[to+"/"+rest] = f
		}
	}
}

func (m *inMemory) host(t testing.TB, root string) hosttree.Host {
	t.Helper()
	sub := func(dir string) fs.FS {
		below, err := fs.Sub(m.files, dir)
		if err != nil {
			t.Fatal(err)
		}
		return below
	}
	dev, err := hosttree.NewTree("/", m.files).WithNodes(m.nodes)
	if err != nil {
		t.Fatal(err)
	}
	return hosttree.Host{
		Arch: m.d.Arch, Driver: hosttree.NewTree(root, m.files), Dev: dev,
		Proc: hosttree.NewTree("/proc", sub("proc")), Sys: hosttree.NewTree("/sys", sub("sys")),
	}
}

const (
	gpuDevice = "sys/devices/pci0000:00/0000:1b:00.0"
	libraries = "usr/lib/x86_64-linux-gnu"
)

// plant puts a secret into each field of each source that a capture has, but for names
// of models and errors. name is the secret as a name of a file.
func (m *inMemory) plant(t testing.TB, secret, name string) (hosttree.Host, discover.Options) {
	t.Helper()
	line := strings.ReplaceAll(secret, "\n", " ")
	info := "proc/driver/nvidia/gpus/0000:1b:00.0/information"
	m.write(info, "Serial Number: "+line+"\n"+m.read(info)+line+"\nBoard: "+line+"\n")
	m.write("proc/driver/nvidia/version", strings.TrimRight(m.read("proc/driver/nvidia/version"), "\n")+" ("+line+"@"+line+") "+line+"\n"+line+"\n")
	m.write("proc/driver/nvidia/params", m.read("proc/driver/nvidia/params")+"RegistryDwords: \""+line+"\"\n"+line+": 1\n")
	m.write("proc/devices", strings.Replace(m.read("proc/devices"), "Block devices:", "77 nvidia-"+line+"\n78 "+line+"\nBlock devices:", 1)+line+"\n")
	m.write("proc/driver/nvidia/"+name, secret)
	m.write("proc/driver/nvidia-"+name+"/"+name, secret)
	m.write("proc/driver/nvidia/capabilities/"+name+"/access", secret)
	m.write("proc/driver/nvidia/gpus/0000:1b:00.0/"+name, secret)
	m.write("proc/driver/nvidia-caps/mig-minors", line+" 7\n"+m.read("proc/driver/nvidia-caps/mig-minors"))
	m.write("proc/driver/nvidia-nvlink/permissions", "DeviceFileMode: 438\n"+line+"\n")
	m.write("proc/77/comm", "nvidia-cuda-mps\n")
	m.write("proc/77/environ", "CUDA_MPS_PIPE_DIRECTORY=/"+name)
	m.write("proc/sys/kernel/osrelease", "6.8.0-"+name+"-gpu\n")
	m.write("lib/firmware/6.8.0-"+name+"-gpu/nvidia/"+m.d.Driver.Version+"/gsp_ga10x.bin", "")
	m.write("sys/module/firmware_class/parameters/path", "/srv/"+name+"\n")
	m.write("sys/module/nvidia/version", line+"\n")
	m.write("sys/module/nvidia_"+name+"/initstate", line+"\n")
	m.move(gpuDevice, "sys/devices/"+name+"/0000:1b:00.0")
	m.link("../../../devices/"+name+"/0000:1b:00.0", "sys/bus/pci/devices/0000:1b:00.0")
	m.write("sys/devices/"+name+"/0000:1b:00.0/power/control", line+"\n")
	m.write("sys/devices/"+name+"/0000:1b:00.0/device", line+"\n")

	m.move(libraries, name+"/lib")
	m.link("/etc/alternatives/"+name, "opt/"+name+"/lib")
	m.link("../../"+name+"/lib", "etc/alternatives/"+name)
	m.write("etc/ld.so.cache", string(cache(name)))
	m.write(name+"/lib/libx-"+name+".so."+m.d.Driver.Version, m.read(name+"/lib/libcuda.so."+m.d.Driver.Version))
	m.write(name+"/lib/libnvidia-egl-gbm.so.1."+name, "")
	delete(m.files, "usr/bin/nvidia-smi")
	m.link("/opt/"+name+"/smi", "usr/bin/nvidia-smi")
	m.files["opt/"+name+"/smi"] = &fstest.MapFile{Mode: 0o755, Data: []byte(secret)}
	m.write("tmp/"+name+"/mps/control", "")

	m.write("dev/dri/by-path/"+name, "")
	m.write("dev/nvidia-"+name, "")
	m.link("../"+name+"/nvidia9", "dev/char/195:9")
	root := "/srv/" + name
	return m.host(t, root), discover.Options{
		LibrarySearchPath: []string{"/opt/" + name + "/lib", "/mnt/" + name}, MPSDirectory: "/tmp/" + name + "/mps",
		Probe: func(context.Context, string) (*nvmlprobe.Report, error) {
			r, err := nvmlprobe.Parse(m.d.NVMLReport())
			if err == nil {
				r.NVMLVersion = secret
				r.GPUs[1].MIGDevices = []nvmlprobe.MIGDevice{{UUID: "MIG-" + secret, Profile: secret}}
				r.Error = "open " + root + "/lib: permission denied"
			}
			return r, err
		},
	}
}

func cache(name string) []byte {
	c := ldcache.Empty("")
	c.Layout = ldcache.New
	for _, library := range []string{"libcuda.so.1", "libGLX_nvidia-" + name + ".so.1", "libnvidia-ml.so.1"} {
		c.Entries = append(c.Entries, ldcache.Entry{Name: library, Flags: 0x303, Path: "/" + name + "/lib/" + library})
	}
	return c.Encode()
}

// A secret has no form and is known to nobody. It stands in each field of each source, and in
// none of the capture, which gives the spec of the host all the same.
func TestUnknownNamesAreNotInACapture(t *testing.T) {
	for _, name := range []string{"orgunique", "cluster unique.x", "data,clusterunique", "Ünique-Org", "orgunique.so.1"} {
		t.Run(name, func(t *testing.T) {
			m := load(t, "two-gpus")
			host, o := m.plant(t, name, name)
			r := redact.New([]byte("key"), redact.Identifiers{})
			text, inv := record(t, host, o, r)
			if strings.Contains(strings.ToLower(string(text)), "unique") {
				t.Errorf("%s is in the capture:\n%s", name, grep(string(text), "unique"))
			}
			if strings.ContainsAny(name, " ,") {
				return // capture.Text cannot know where a path ends
			}
			// The order is that of the names, and a damaged library's name is not recorded.
			sorted := func(s string) []string {
				lines := strings.Split(s, "\n")
				slices.Sort(lines)
				return slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "not an ELF file") })
			}
			was := strings.ReplaceAll(found(t, inv), " nvidia-"+name+":77", "")
			if diff := cmp.Diff(sorted(capture.Text(r, was)), sorted(again(t, text))); diff != "" {
				t.Errorf("the capture is another host (-host +capture):\n%s", diff)
			}
		})
	}
}

// The kinds of identifiers that are known by their form are replaced in texts that are
// free: the names of models, and errors of NVML.
func TestIdentifiersInFreeTextsAreNotInACapture(t *testing.T) {
	script, err := os.ReadFile("../../cmd/cdigen/testdata/script/capture-identifiers.txtar")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(script), "-- identifiers --\n")
	list, _, ok := strings.Cut(list, "-- unknown --\n")
	if !ok || strings.Count(list, "\n") < 36 {
		t.Fatalf("the script has no list of identifiers: %q", list)
	}
	for text := range strings.Lines(list) {
		text = strings.TrimSpace(text)
		m := load(t, "lost-gpu")
		const information = "proc/driver/nvidia/gpus/0000:1b:00.0/information"
		m.write(information, "Model: NVIDIA "+text+" X\nDevice Minor: 0\n")
		probe := func(context.Context, string) (*nvmlprobe.Report, error) {
			r, err := nvmlprobe.Parse(m.d.NVMLReport())
			r.GPUs[0].Name, r.GPUs[0].Errors, r.Error = text, []string{"nvmlX: " + text + ": failed"}, "("+text+")"
			return r, errors.Join(err, errors.New("nvmlInit: "+text))
		}
		got, _ := record(t, m.host(t, "/"), discover.Options{Probe: probe}, redact.New([]byte("key"), redact.Identifiers{}))
		if strings.Contains(string(got), text) || !strings.Contains(string(got), "Model: NVIDIA ") || !strings.Contains(string(got), ": failed") {
			t.Errorf("%s is in the capture:\n%s", text, grep(string(got), strings.ToLower(text)))
		}
	}
}

func grep(text, part string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(strings.ToLower(line), part) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// owned is a file system whose files belong to a user.
type owned struct {
	fs.FS
	uid uint32
}

type ownedInfo struct {
	fs.FileInfo
	uid uint32
}

func (o owned) ReadLink(name string) (string, error) { return fs.ReadLink(o.FS, name) }
func (o owned) Lstat(name string) (fs.FileInfo, error) {
	info, err := fs.Lstat(o.FS, name)
	return ownedInfo{info, o.uid}, err
}
func (o ownedInfo) Sys() any { return &syscall.Stat_t{Uid: o.uid} }

// The name of an account that owns a file is replaced in texts too.
func TestOwnersOfFilesAreReplaced(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "getent"), []byte("#!/bin/sh\n[ \"$*\" = 'passwd 2000001' ] && echo 'uniqueowner:*:2000001:100::/home/x:/bin/sh'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	m := load(t, "two-gpus")
	m.write("proc/driver/nvidia/gpus/0000:1b:00.0/information", "Model: NVIDIA of uniqueowner\nDevice Minor: 0\n")
	host := m.host(t, "/")
	host.Driver = hosttree.NewTree("/", owned{m.files, 2000001})
	text, _ := record(t, host, discover.Options{}, redact.New(nil, redact.Identifiers{}))
	if !strings.Contains(string(text), "NVIDIA of redacted-user-") {
		t.Errorf("the owner is in the capture:\n%s", grep(string(text), "model"))
	}
}

// What cannot be replaced, since the capture would not be one any more, is an error.
func TestCaptureWithSomethingLeftIsRefused(t *testing.T) {
	for word, place := range map[string]string{"195": `dev.files["dev/nvidia-modeset"].node`, "directory": `sys.files["bus/pci/drivers/nvidia"].type`, "amd64": "arch"} {
		r := redact.New(nil, redact.Identifiers{Words: []string{word}})
		_, _, err := capture.Record(context.Background(), load(t, "two-gpus").host(t, "/"), discover.Options{}, r, "")
		if err == nil || !strings.Contains(err.Error(), place) || !strings.HasSuffix(err.Error(), "nothing is recorded") {
			t.Errorf("%s: %v", word, err)
		}
	}
}

// FuzzNothingUnknownIsRecorded: a name that stands in each field of each source is in no capture.
func FuzzNothingUnknownIsRecorded(f *testing.F) {
	for _, seed := range []string{"orgunique", "data/clusterunique", "gpu-17.hpc", "K8S_Cluster", "x86_64-orgunique", "nvidia-orgunique", "550.54.15-orgunique", "0000:3b:00.0orgunique"} {
		f.Add(seed)
	}
	base := load(f, "two-gpus")
	c, _, err := capture.Record(context.Background(), base.host(f, "/"), discover.Options{Probe: base.d.Probe()}, redact.New(nil, redact.Identifiers{}), "")
	if err != nil {
		f.Fatal(err)
	}
	plain, err := c.Encode()
	if err != nil {
		f.Fatal(err)
	}
	always := strings.ToLower(string(plain)) + " redacted-name- redacted-nvidia libredacted nvidia-redacted"
	f.Fuzz(func(t *testing.T, secret string) {
		if len(secret) > 60 || strings.ContainsAny(secret, "\n\x00\r") {
			t.Skip()
		}
		name := strings.ReplaceAll(secret, "/", "_")
		if strings.Trim(name, ".") == "" || redact.Common(name) {
			t.Skip() // not a name, or one of a directory that is there
		}
		host, o := base.clone().plant(t, secret, name)
		c, _, err := capture.Record(context.Background(), host, o, redact.New([]byte("key"), redact.Identifiers{}), "")
		if err != nil {
			t.Fatal(err)
		}
		text, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := capture.Parse(text); err != nil {
			t.Fatal(err)
		}
		// Words of five letters, since shorter ones are in anything by chance.
		for _, word := range strings.FieldsFunc(strings.ToLower(secret), func(r rune) bool { return r < 'a' || r > 'z' }) {
			if len(word) >= 5 && !strings.Contains(always, word) && !redact.Common(word) && strings.Contains(strings.ToLower(string(text)), word) {
				t.Errorf("%s of %q is in the capture:\n%s", word, secret, grep(string(text), word))
			}
		}
	})
}
