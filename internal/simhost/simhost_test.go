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
