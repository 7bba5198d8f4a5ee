package discover

import (
	"maps"
	"testing"
)

// Samples of /proc/driver/nvidia/version in the shapes drivers have written.
var versionSamples = []struct {
	data    string
	version string
	flavor  string
}{
	{"NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n", "535.129.03", Proprietary},
	{"NVRM version: NVIDIA UNIX x86_64 Kernel Module  390.48  Thu Mar 22 00:42:57 PDT 2018\nGCC version:  gcc version 7.3.0\n", "390.48", Proprietary},
	{"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  555.42.06  Release Build  (builder@host)  Thu Jul 11 00:00:00 UTC 2024\nGCC version:  gcc version 13.2.1\n", "555.42.06", Open},
	{"NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (buildbrain@host)  Thu Aug  8 2024\n", "540.4.0", Open},
}

func TestVersionIsReadInAllItsShapes(t *testing.T) {
	for _, s := range versionSamples {
		version, flavor, err := parseVersion([]byte(s.data))
		if version != s.version || flavor != s.flavor || err != nil {
			t.Errorf("%q: %q, %q, %v; want %q, %q", s.data, version, flavor, err, s.version, s.flavor)
		}
	}
	for _, bad := range []string{"", "\n", "GCC version: gcc 12.2.0", "NVRM version: something else 535.1.2", "NVRM version: NVIDIA UNIX x86_64 Kernel Module", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  five"} {
		if version, _, err := parseVersion([]byte(bad)); err == nil {
			t.Errorf("%q: version %q; want an error", bad, version)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, s := range versionSamples {
		f.Add([]byte(s.data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		version, flavor, err := parseVersion(data)
		if err == nil && (!driverVersion().MatchString(version) || len(version) > 32 || flavor == "") {
			t.Errorf("accepted as %q, %q", version, flavor)
		}
	})
}

const devicesR550 = `Character devices:
  1 mem
  5 /dev/tty
195 nvidia
195 nvidia-modeset
195 nvidiactl
226 drm
236 nvidia-nvlink
237 nvidia-caps
498 nvidia-caps-imex-channels
510 nvidia-uvm

Block devices:
  8 sd
237 nvidia-uvm
`

const devicesR535 = "Character devices:\n  1 mem\n195 nvidia-frontend\n234 nvidia-nvlink\n235 nvidia-caps\n511 nvidia-uvm\n\nBlock devices:\n259 blkext\n"

func TestMajorsAreThoseOfCharacterDevices(t *testing.T) {
	got, err := parseDevices([]byte(devicesR550))
	want := map[string]uint32{"nvidia": 195, "nvidia-modeset": 195, "nvidiactl": 195, "nvidia-nvlink": 236, "nvidia-caps": 237, "nvidia-caps-imex-channels": 498, "nvidia-uvm": 510}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("r550: %v, %v; want %v", got, err, want)
	}
	got, err = parseDevices([]byte(devicesR535))
	want = map[string]uint32{"nvidia": 195, "nvidia-nvlink": 234, "nvidia-caps": 235, "nvidia-uvm": 511}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("r535, where nvidia is called nvidia-frontend: %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"", "Block devices:\n8 sd\n", "Character devices:\nx nvidia\n"} {
		if got, err := parseDevices([]byte(bad)); err == nil {
			t.Errorf("%q: %v; want an error", bad, got)
		}
	}
}

func FuzzParseDevices(f *testing.F) {
	f.Add([]byte(devicesR550))
	f.Add([]byte(devicesR535))
	f.Fuzz(func(t *testing.T, data []byte) {
		majors, err := parseDevices(data)
		if err == nil && len(majors) > len(data) {
			t.Errorf("%d majors of %d bytes", len(majors), len(data))
		}
	})
}
