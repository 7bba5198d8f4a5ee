package discover

import (
	"testing"
)

// Samples of gpus/<address>/information: of r535, of r470 and before, of a GPU
// the driver has not started yet.
var informationSamples = []struct {
	data string
	want information
}{
	{"Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 10\nGPU UUID: \t GPU-9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1a\nVideo BIOS: \t 96.00.99.00.01\nBus Type: \t PCIe\nDMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\nBus Location: \t 0000:62:00.0\nDevice Minor: \t 5\nGPU Firmware: \t 535.129.03\nGPU Excluded:\t No\n",
		information{"NVIDIA H100 80GB HBM3", "GPU-9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1a", 5, "0000:62:00.0", false}},
	{"Model: \t\t Tesla T4\nIRQ:   \t\t 63\nGPU UUID: \t GPU-31a3ef40-7d2a-11ee-b962-0242ac120002\nBus Type: \t PCIe\nBus Location: \t 0000:00:1e.0\nDevice Minor: \t 0\nBlacklisted:\t Yes\n",
		information{"Tesla T4", "GPU-31a3ef40-7d2a-11ee-b962-0242ac120002", 0, "0000:00:1e.0", true}},
	{"Model: \t\t Unknown\nGPU UUID: \t GPU-????????-????-????-????-????????????\nVideo BIOS: \t ??.??.??.??.??\nBus Location: \t 0000:01:00.0\n",
		information{"Unknown", "", -1, "0000:01:00.0", false}},
}

func TestInformationToleratesAbsentLines(t *testing.T) {
	for _, s := range informationSamples {
		got, err := parseInformation([]byte(s.data))
		if got != s.want || err != nil {
			t.Errorf("%q:\n got %+v, %v\nwant %+v", s.data, got, err, s.want)
		}
	}
	for _, bad := range []string{"", "nothing here", "Device Minor: \t five\n", "Device Minor: -1\n", "Device Minor: 99999999999\n"} {
		if got, err := parseInformation([]byte(bad)); err == nil {
			t.Errorf("%q: %+v; want an error", bad, got)
		}
	}
}

func FuzzParseInformation(f *testing.F) {
	for _, s := range informationSamples {
		f.Add([]byte(s.data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := parseInformation(data)
		if err == nil && (info.Minor < -1 || info.UUID != "" && !gpuUUID().MatchString(info.UUID)) {
			t.Errorf("accepted %+v", info)
		}
	})
}

func TestIndexGoesByPCIAddressAndSkipsExcludedGPUs(t *testing.T) {
	list := []GPU{{PCI: "0000:c1:00.0", Minor: 0}, {PCI: "10000:00:00.0", Minor: 1}, {PCI: "0000:0a:00.0", Minor: 2, Excluded: true}, {PCI: "0000:3b:00.0", Minor: 3}}
	numberGPUs(list)
	want := []struct {
		pci   string
		index int
	}{{"0000:0a:00.0", -1}, {"0000:3b:00.0", 0}, {"0000:c1:00.0", 1}, {"10000:00:00.0", 2}}
	for i, w := range want {
		if list[i].PCI != w.pci || list[i].Index != w.index {
			t.Errorf("place %d: %s with index %d; want %s with %d", i, list[i].PCI, list[i].Index, w.pci, w.index)
		}
	}
}

func TestNVMLAddressesBecomeThoseOfSysfs(t *testing.T) {
	for nvml, want := range map[string]string{"00000000:3B:00.0": "0000:3b:00.0", "0000:03:00.0": "0000:03:00.0", "00010000:00:00.0": "10000:00:00.0", "0009:01:00.0": "0009:01:00.0"} {
		if got := sysfsPCI(nvml); got != want {
			t.Errorf("%s became %s; want %s", nvml, got, want)
		}
	}
}
