package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
)

func h100() (*discover.Inventory, []*discover.GPU) {
	inv := &discover.Inventory{Driver: discover.Driver{Version: "550.54.15", CUDAVersion: "12.4"}}
	return inv, []*discover.GPU{{PCI: "0000:1b:00.0", Brand: "Tesla", ComputeCapability: "9.0"}, {Index: 1, PCI: "0000:43:00.0", Brand: "Quadro RTX", ComputeCapability: "7.5"}}
}

func TestRequirements(t *testing.T) {
	inv, gpus := h100()
	for text, want := range map[string]string{
		"cuda>=12.0 driver>=550":      "",
		"cuda>=12.0,driver>=550.54.9": "",
		"cuda>=12.10":                 "cuda>=12.10 is required, and cuda is 12.4",
		"cuda>=12.0 driver>=560":      "driver>=560 is required, and driver is 550.54.15",
		"driver<551 driver>550":       "",
		"driver<=550.54.15":           "",
		"driver!=550.54.15":           "driver!=550.54.15",
		"cuda=12.4.0":                 "",
		"arch>=7.5":                   "",
		"arch>=8.0":                   "arch>=8.0 is required, and arch of GPU 1 (0000:43:00.0) is 7.5",
		"brand=tesla":                 "brand=tesla is required, and brand of GPU 1 (0000:43:00.0) is Quadro RTX",
		"brand!=geforce":              "",
	} {
		r, err := ParseRequirements([]string{text})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := r.Unmet(inv, gpus, false); (got == "") != (want == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"", " ", "cuda", "cuda>", "cuda>=", "cuda>=x", "cuda>=12.", "cud>=12", "brand>tesla", "brand=", ">=12", "cuda=>12", "driver>=550-1", "cuda==12"} {
		if r, err := ParseRequirements([]string{text}); err == nil {
			t.Errorf("%q: %v", text, r)
		}
	}
}

// In images' variables a space is an or, and names of later versions are passed over.
func TestRequirementsOfImages(t *testing.T) {
	inv, gpus := h100()
	for text, want := range map[string]string{
		"cuda>=12.8 brand=unknown,driver>=535,driver<536 brand=tesla,driver>=550,driver<551": "cuda>=12.8 is required, and cuda is 12.4; or brand=unknown is required",
		"cuda>=12.0 driver>=999":        "",
		"cuda>=13 driver>=550":          "",
		"cuda>=13,driver>=550":          "cuda>=13 is required, and cuda is 12.4",
		"fabric>=3":                     "",
		"":                              "",
		"cuda>=12.8 fabric>=3,cuda>=12": "",
	} {
		if got := imageRequirement(text).Unmet(inv, gpus, true); (got == "") != (want == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestWhatIsNotKnownOfTheHost(t *testing.T) {
	r, err := ParseRequirements([]string{"cuda>=12"})
	if err != nil {
		t.Fatal(err)
	}
	inv := &discover.Inventory{}
	if got := r.Unmet(inv, nil, false); !strings.Contains(got, "cuda is not known") {
		t.Errorf("%q", got)
	}
	if got := r.Unmet(inv, nil, true); got != "" {
		t.Errorf("%q", got)
	}
}

func FuzzRequirement(f *testing.F) {
	f.Add("cuda>=12.8 brand=unknown,driver>=535,driver<536")
	f.Add("arch!=,=<>")
	f.Fuzz(func(t *testing.T, text string) {
		inv, gpus := h100()
		imageRequirement(text).Unmet(inv, gpus, true)
		if r, err := ParseRequirements([]string{text}); err == nil && len(r[0]) == 0 {
			t.Errorf("%q requires nothing", text)
		}
	})
}

func TestAContainersImageRequiresSomething(t *testing.T) {
	environ := func(variables ...string) string {
		file := filepath.Join(t.TempDir(), "environ")
		if err := os.WriteFile(file, []byte(strings.Join(variables, "\x00")+"\x00"), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	inv, _ := h100()
	node := discover.Node{Path: "/dev/nvidia1"}
	inv.GPUs = []discover.GPU{{Node: &discover.Node{Path: "/dev/nvidia0"}, ComputeCapability: "7.5"}, {Node: &node, ComputeCapability: "9.0"}}
	s := &Snapshot{Inventory: inv, Container: &Container{Nodes: []discover.Node{node}}}
	s.Container.Require = imageRequirements(environ("PATH=/bin", "NVIDIA_REQUIRE_CUDA=cuda>=12.8", "NVIDIA_REQUIRE_ARCH=arch>=8.0"))
	list := required(s)
	if len(list) != 1 || list[0].Subject != "NVIDIA_REQUIRE_CUDA" || list[0].Message != "cuda>=12.8 is required, and cuda is 12.4" || list[0].Severity != discover.Warning {
		t.Errorf("%+v", list)
	}
	for _, file := range []string{environ("NVIDIA_REQUIRE_CUDA=cuda>=12.8", "NVIDIA_DISABLE_REQUIRE=true"), "/no/such/file"} {
		if got := imageRequirements(file); len(got) > 0 {
			t.Errorf("%s: %v", file, got)
		}
	}
	if got := imageRequirements(environ("NVIDIA_REQUIRE_CUDA=cuda>=12.8", "NVIDIA_DISABLE_REQUIRE=0")); len(got) != 1 {
		t.Error(got)
	}
}
