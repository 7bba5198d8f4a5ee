package simhost

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func build(t *testing.T, name string) (*Description, string) {
	t.Helper()
	d, err := Load("../../testdata/hosts/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := d.Build(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	return d, dir
}

func TestEveryHostCanBeBuilt(t *testing.T) {
	files, err := filepath.Glob("../../testdata/hosts/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no hosts: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		d, dir := build(t, name)
		if d.Name != name {
			t.Errorf("%s calls itself %s", file, d.Name)
		}
		if data, err := os.ReadFile(filepath.Join(dir, "proc/devices")); err != nil || !bytes.Contains(data, []byte("Character devices:\n")) {
			t.Errorf("%s: proc/devices: %q, %v", name, data, err)
		}
		if !json.Valid(d.NVMLReport()) {
			t.Errorf("%s: report %s", name, d.NVMLReport())
		}
	}
}

func TestTwoBuildsOfAHostAreTheSame(t *testing.T) {
	_, one := build(t, "demo")
	_, two := build(t, "demo")
	if out, err := exec.Command("diff", "-r", "--no-dereference", "--exclude=dev", one, two).CombinedOutput(); err != nil {
		t.Errorf("%v: %.1000s", err, out)
	}
}

func TestUnknownFieldsAndWrongValuesAreTold(t *testing.T) {
	for text, want := range map[string]string{
		"name: x\ngpu: []\n":                                  `unknown field "gpu"`,
		"name: x\narch: sparc\n":                              "arch",
		"name: x\ndistribution: dos\n":                        "distribution",
		"name: x\ngpus: [{pci: 3b}]\n":                        "gpus[0].pci",
		"name: x\nmissingNodes: [nvidia7]\n":                  "missingNodes[0]",
		"name: x\ndriver: {kernelModule: open}\n":             "driver.version",
		"gpus: []\n":                                          "name",
		"name: x\nnvml: {fail: [{call: \"*\", status: 1}]}\n": "nvml.fail[0].gpu",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want an error with %q", text, err, want)
		}
	}
}

func TestLoaderAcceptsTheLibraries(t *testing.T) {
	loader := "/lib64/ld-linux-x86-64.so.2"
	if _, err := os.Stat(loader); err != nil {
		t.Skip("this machine has no loader for amd64")
	}
	_, dir := build(t, "demo")
	libs := filepath.Join(dir, "usr/lib/x86_64-linux-gnu")
	out, err := exec.Command(loader, "--library-path", libs, "--list", filepath.Join(libs, "libGLX_nvidia.so.0")).CombinedOutput()
	for _, want := range []string{"libnvidia-glcore.so.550.54.15 => " + libs, "libnvidia-tls.so.550.54.15 => " + libs} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: %s; want %q in it", err, out, want)
		}
	}
}

func TestLdconfigReadsTheCaches(t *testing.T) {
	ldconfig := "/sbin/ldconfig"
	if _, err := os.Stat(ldconfig); err != nil {
		t.Skip("this machine has no ldconfig")
	}
	for _, name := range []string{"demo", "t4-r470"} { // the new format, and both
		_, dir := build(t, name)
		out, err := exec.Command(ldconfig, "-p", "-C", filepath.Join(dir, "etc/ld.so.cache")).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "libcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1\n") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

func TestNodesFollowTheParametersOfTheModule(t *testing.T) {
	d, err := Parse([]byte("name: x\ndriver: {version: 570.86.10, parameters: {DeviceFileGID: 44, DeviceFileMode: 432, CreateImexChannel0: 1}}\n" +
		"model: NVIDIA L4\ngpus: [{pci: \"0000:3b:00.0\"}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := d.Build(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		NodeTable:                            "dev/nvidia0 195 0 0660 0 44\n",
		"proc/driver/nvidia/params":          "DeviceFileGID: 44\nDeviceFileMode: 432\n",
		"proc/driver/nvidia/version":         "570.86.10",
		"proc/modules":                       "\nnvidia 1306624 ",
		"proc/driver/nvidia-caps/sys-minors": "fabric-imex-mgmt 4323\n",
	} {
		if data, err := os.ReadFile(filepath.Join(dir, file)); err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s: %q, %v; want %q in it", file, data, err, want)
		}
	}
	table, _ := os.ReadFile(filepath.Join(dir, NodeTable))
	if !strings.Contains(string(table), "dev/nvidia-caps-imex-channels/channel0 ") {
		t.Errorf("no IMEX channel 0 in %s", table)
	}
	if _, err := Parse([]byte("name: x\ndriver: {version: 535.1.2, parameters: {CreateImexChannel0: 1}}\n")); err == nil {
		t.Error("a driver without IMEX has a parameter for it")
	}
}
