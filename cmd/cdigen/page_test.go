package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rivo/uniseg"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/specwatch"
)

// contents is what a page shows.
type contents struct {
	System    string
	Inventory *discover.Inventory
	Links     []check.Link
	Blocks    []check.Block
	Use       *use
	Devices   []listed
	History   []specwatch.Generation
}

// sample is a host with something of everything.
func sample(t *testing.T) *contents {
	d := hosttest.Load(t, "demo")
	inv := hosttest.Discover(t, hosttest.Open(t, d, t.TempDir()), d.Probe())
	inv.Driver.CUDAVersion = "12.4"
	inv.GPUs[1].Lost, inv.GPUs[0].NVLinks, inv.GPUs[7].MIGSlices = true, []nvmlprobe.NVLink{{To: "switch", Links: 18}}, 7
	inv.GPUs[7].MIGDevices = inv.GPUs[7].MIGDevices[:3]
	reports := check.Reports(&check.Snapshot{Inventory: inv}, []discover.Finding{
		{ID: discover.GPULost, Severity: discover.Broken, Subject: "GPU 1 (0000:43:00.0)", Message: "is lost: it is left out"},
		{ID: check.OtherGenerator, Severity: discover.Warning, Subject: "/etc/cdi/other.yaml", Message: "is of another program"},
	})
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	return &contents{
		"Debian GNU/Linux 12 (bookworm), Linux 6.1.0", inv,
		[]check.Link{{Name: "kernel module", Text: "550.54.15 open"}, {Name: "GPUs", Severity: discover.Broken, Text: "[gpu-lost]"}, {Name: "spec", Severity: discover.Warning, Text: "[other-generator]"}, {Name: "watcher", Severity: check.Unknown, Text: "none"}},
		check.Blocks(reports),
		&use{Driver: "550.54.15", Free: []string{"2", "3", "7:1"}, Containers: []*check.Running{
			{Engine: "podman", Name: "web", Devices: []string{"0", "6:0", "7:0"}, PIDs: []int{4711}, Using: []int{4711, 4712}, Memory: 3 << 30, Driver: "550.54.15"},
			{Engine: "lxc", Name: "c1", Devices: []string{"4"}, PIDs: []int{812}, Driver: "535.104.05", Findings: []discover.Finding{{ID: check.ContainerLibraryStale, Severity: discover.Broken}}},
		}},
		[]listed{
			{Defined: specdir.Defined{Name: "nvidia.com/gpu=0", File: "/etc/cdi/nvidia.yaml", Availability: specdir.Available}, UUID: "GPU-1", Model: "NVIDIA H100 80GB HBM3", gpus: 1},
			{Defined: specdir.Defined{Name: "nvidia.com/gpu=GPU-1", File: "/etc/cdi/nvidia.yaml", Availability: specdir.Available}, UUID: "GPU-1", Model: "NVIDIA H100 80GB HBM3", gpus: 1},
			{Defined: specdir.Defined{Name: "nvidia.com/gpu=7:0", File: "/etc/cdi/nvidia.yaml", Availability: specdir.Shadowed, By: "/run/cdi/x.yaml"}, UUID: "MIG-1", Model: "NVIDIA H100 80GB HBM3", Profile: "3g.40gb", gpus: 1},
		},
		[]specwatch.Generation{{At: at, Trigger: "files", Result: "published", Changes: []string{"gpu 1: usable → lost"}}},
	}
}

// pageOf is the page of contents.
func pageOf(c *contents, redact func(string) string) string {
	p := &page{redact: redact}
	p.host(c.System, c.Inventory)
	p.chain(c.Links)
	p.findings(c.Blocks)
	p.layout(c.Inventory, c.Use)
	p.devices(c.Devices)
	p.containers(c.Use)
	p.history(c.History)
	return string(p.end())
}

func asItIs(text string) string { return text }

func TestPage(t *testing.T) {
	got := pageOf(sample(t), asItIs)
	const golden = "testdata/report.html"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("(-want +got, make golden writes it):\n%s", diff)
	}
}

// Whatever the texts of a host are, they are texts on the page: its elements and attributes
// stay the same.
func TestTextsAreTextsOnThePage(t *testing.T) {
	harmless, hostile := sample(t), sample(t)
	infect(reflect.ValueOf(hostile))
	const script = `</td></text><script>alert(1)</script>" onload="x`
	plain, page := pageOf(harmless, asItIs), pageOf(hostile, func(text string) string { return script + text })
	want, got := elements(t, plain), elements(t, page)
	// A label that is too wide for its part of a GPU is left out.
	labels := func(list []string) []string {
		return slices.DeleteFunc(list, func(name string) bool { return name == "text class x y" })
	}
	if diff := cmp.Diff(labels(want), labels(got)); diff != "" {
		t.Errorf("(-harmless +hostile):\n%s", diff)
	}
	if strings.Contains(page, "<script") || !strings.Contains(page, "&lt;script") || strings.Contains(page, "\u202e") || strings.Contains(page, "\x1b") {
		t.Error(page)
	}
	if strings.Count(plain, "://") != 1 { // the name space of SVG
		t.Error("the page has an address in it")
	}
}

// infect makes all texts of a value hostile that the page does not choose by.
func infect(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			infect(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Type() != reflect.TypeFor[time.Time]() {
				infect(v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			infect(v.Index(i))
		}
	case reflect.String:
		if v.Type() == reflect.TypeFor[string]() && v.CanSet() && v.String() != "" {
			v.SetString(v.String() + `<b>"'&amp;` + "\u202e\x1b[2J\xff")
		}
	}
}

// elements are the names of a page's elements with those of their attributes.
func elements(t *testing.T, page string) (list []string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(page))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok {
			names := []string{start.Name.Local}
			for _, a := range start.Attr {
				names = append(names, a.Name.Local)
			}
			list = append(list, strings.Join(names, " "))
		}
	}
}

// TestPSPage makes the table of the documentation.
func TestPSPage(t *testing.T) {
	t.Setenv("LC_ALL", "C.UTF-8")
	var b strings.Builder
	if err := writeUse(&b, sample(t).Use, false); err != nil {
		t.Fatal(err)
	}
	compareShown(t, "../../docs/inspect.md", "# cdigen ps\n"+b.String())
}

// Whatever a model is called and how many columns there are, no line of the picture is wider.
func TestTreeIsAsWideAsItMayBe(t *testing.T) {
	inv := sample(t).Inventory
	inv.GPUs[2].Model, inv.GPUs[7].MIGDevices[1].Profile = "NVIDIA 日本語の長い名前 80GB", "1c.2g.20gb+me.all"
	t.Setenv("LC_ALL", "C.UTF-8")
	for _, columns := range []string{"40", "57", "80", "132"} {
		t.Setenv("COLUMNS", columns)
		var b strings.Builder
		if err := writeTree(&b, inv, false); err != nil {
			t.Fatal(err)
		}
		limit, _ := strconv.Atoi(columns)
		for line := range strings.Lines(b.String()) {
			if uniseg.StringWidth(strings.TrimSuffix(line, "\n")) > limit {
				t.Errorf("%s columns: %s", columns, line)
			}
		}
		for _, want := range []string{"日本語の長い名前 80GB", "7:1", "1c.2g.20gb+me.all", "GPU 1"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s columns: %q is not in\n%s", columns, want, &b)
			}
		}
	}
}

// How a table of containers says what one has.
func TestCellsOfContainers(t *testing.T) {
	of := func(using ...int) *check.Running { return &check.Running{PIDs: []int{7}, Using: using} }
	for want, r := range map[string]*check.Running{"7 idle": of(), "1": of(1), "1 2 3": of(1, 2, 3), "1 2 3 +1": of(1, 2, 3, 4), "1 2 3 +2": of(1, 2, 3, 4, 5)} {
		if got := pids(r); got != want {
			t.Errorf("%v: %q, want %q", r.Using, got, want)
		}
	}
	for bytes, want := range map[uint64]string{0: "-", 1 << 20: "1 MiB", 1023 << 20: "1023 MiB", 1 << 30: "1.0 GiB", 40 << 30: "40.0 GiB"} {
		if got := memory(bytes); got != want {
			t.Errorf("%d: %q, want %q", bytes, got, want)
		}
	}
	stale := func(id discover.ID) []discover.Finding {
		return []discover.Finding{{ID: id, Severity: discover.Broken}}
	}
	for want, r := range map[string]*check.Running{
		"-": {}, "550.54.15": {Driver: "550.54.15"},
		"550.54.15 stale":       {Driver: "550.54.15", Findings: stale(check.ContainerLibraryStale)},
		"550.54.15 stale nodes": {Driver: "550.54.15", Findings: stale(check.ContainerNodeStale)},
		"stale nodes":           {Findings: stale(check.ContainerNodeStale)},
	} {
		if got := driverOf(r); got != want {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
	var b strings.Builder
	if err := writeUse(&b, sample(t).Use, true); err != nil || strings.Count(b.String(), "\x1b[31m535.104.05 stale\x1b[0m") != 1 || strings.Count(b.String(), "\x1b[31m") != 1 {
		t.Errorf("in color:\n%q, %v", b.String(), err)
	}
}

// Each GPU has a sign for its state, and what cannot be used of one in MIG mode is red.
func TestTreeShowsTheStateOfGPUs(t *testing.T) {
	t.Setenv("LC_ALL", "C.UTF-8")
	inv := sample(t).Inventory // GPU 1 is lost
	inv.GPUs[0].NVLinks = []nvmlprobe.NVLink{{To: "gpu", PCI: inv.GPUs[2].PCI, Links: 4}, {To: "other", PCI: "0000:ff:00.0", Links: 2}}
	inv.GPUs[2].Excluded, inv.GPUs[3].Withheld, inv.GPUs[4].Node, inv.GPUs[6].MIGDevices = true, true, nil, nil
	inv.GPUs[7].MIGDevices[0].Nodes = nil
	var b strings.Builder
	if err := writeTree(&b, inv, true); err != nil {
		t.Fatal(err)
	}
	const well, warn, bad = "\x1b[32m✔\x1b[0m", "\x1b[33m!\x1b[0m", "\x1b[31m✘\x1b[0m"
	for gpu, sign := range map[string]string{"0": well, "1": bad, "2": warn, "3": warn, "4": bad, "5": well, "6": warn, "7": well} {
		if !strings.Contains(b.String(), "─ "+sign+" GPU "+gpu+"  ") {
			t.Errorf("GPU %s does not have the sign %q", gpu, sign)
		}
	}
	for _, want := range []string{"NVLink x4 to GPU 2", "NVLink x2 to 0000:ff:00.0", "\x1b[31m█", "\x1b[32m█"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%q", &b, &b)
	}
}

// A device of one GPU or MIG device has its UUID and model, one of several has none.
func TestDevicesAreDescribedByTheHost(t *testing.T) {
	inv := sample(t).Inventory
	device := func(name string, nodes ...[]discover.Node) specdir.Defined {
		d := specdir.Defined{Name: "nvidia.com/gpu=" + name}
		for _, list := range nodes {
			d.Own.DeviceNodes = append(d.Own.DeviceNodes, edits.Nodes(list, edits.Options{}).DeviceNodes...)
		}
		return d
	}
	gpu := func(i int) []discover.Node { return []discover.Node{*inv.GPUs[i].Node} }
	mig := inv.GPUs[7].MIGDevices[1]
	list := described([]specdir.Defined{
		device("0", gpu(0)), device("7:1", gpu(7), mig.Nodes), device("pair", gpu(0), gpu(2)), device("all", gpu(0)), device("none"),
	}, inv)
	var got []string
	for i := range list {
		got = append(got, strings.Join([]string{list[i].UUID, list[i].Profile, list[i].what()}, "|"))
	}
	want := []string{inv.GPUs[0].UUID + "||H100 80GB HBM3", mig.UUID + "|" + mig.Profile + "|H100 80GB HBM3 MIG " + mig.Profile, "||2 GPUs", "||1 GPU", "||-"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
