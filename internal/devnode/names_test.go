package devnode

import (
	"slices"
	"strings"
	"testing"
)

func TestNodeHasTheNumbersOfItsName(t *testing.T) {
	for name, want := range map[string]struct {
		device string
		minor  int
	}{
		"dev/nvidiactl":                           {"nvidia", 255},
		"dev/nvidia-modeset":                      {"nvidia", 254},
		"dev/nvidia0":                             {"nvidia", 0},
		"dev/nvidia17":                            {"nvidia", 17},
		"dev/nvidia-uvm":                          {"nvidia-uvm", 0},
		"dev/nvidia-uvm-tools":                    {"nvidia-uvm", 1},
		"dev/nvidia-nvlink":                       {"nvidia-nvlink", 0},
		"dev/nvidia-nvswitchctl":                  {"nvidia-nvswitch", 255},
		"dev/nvidia-nvswitch3":                    {"nvidia-nvswitch", 3},
		"dev/nvidia-caps/nvidia-cap4323":          {"nvidia-caps", 4323},
		"dev/nvidia-caps-imex-channels/channel12": {"nvidia-caps-imex-channels", 12},
		"dev/nvidia":                              {"", -1},
		"dev/nvidia01":                            {"", -1},
		"dev/nvidia-1":                            {"", -1},
		"dev/nvidia1048576":                       {"", -1},
		"dev/nvidia-fs0":                          {"", -1},
		"dev/nvidia-caps":                         {"", -1},
		"dev/dri/card0":                           {"", -1},
	} {
		if device, minor := DriverOf(name); device != want.device || minor != want.minor {
			t.Errorf("%s: %q, %d; want %q, %d", name, device, minor, want.device, want.minor)
		}
	}
}

func FuzzParseIMEXChannels(f *testing.F) {
	f.Add("0,2-5")
	f.Add("1048575")
	f.Fuzz(func(t *testing.T, list string) {
		channels, err := ParseIMEXChannels(strings.Split(list, ","))
		if err != nil {
			return
		}
		for i, n := range channels {
			if n < 0 || n > maxIMEXChannel || i > 0 && channels[i-1] >= n {
				t.Errorf("%q: %d at place %d", list, n, i)
			}
		}
	})
}

func TestIMEXChannelsAreNumbersAndRanges(t *testing.T) {
	for list, want := range map[string][]int{
		"0": {0}, "0,2-5": {0, 2, 3, 4, 5}, "3,1-3,2": {1, 2, 3}, "1048575": {1048575},
	} {
		if got, err := ParseIMEXChannels(strings.Split(list, ",")); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v; want %v", list, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "-1", "5-2", "1-", "1-2-3", "1048576", "0x1", "0-1048576"} {
		if got, err := ParseIMEXChannels([]string{bad}); err == nil {
			t.Errorf("%q: %v; want an error", bad, got)
		}
	}
}
