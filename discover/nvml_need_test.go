package discover

import (
	"regexp"
	"testing"

	"github.com/NVIDIA/go-nvlib/pkg/pciids"
)

// The table agrees with the list of PCI IDs about each of NVIDIA's graphics processors.
func TestChipsWithoutMIGAreThoseOfTheListOfPCIIDs(t *testing.T) {
	graphics := regexp.MustCompile(`^(G[A-Z]\d{3}|TU\d{3}|AD\d{3})[A-Z]* .*`)
	mayHave := regexp.MustCompile(`^(GA100|GH100|GB1\d\d|GB202|GB203|GR\d\d\d)`)
	audio := regexp.MustCompile(`Audio|USB|UCSI|Bridge|NVSwitch|PCIe`)
	ids, known := pciids.NewDB(), 0
	for id := range uint64(0x10000) {
		name, err := ids.GetDeviceName(0x10de, uint16(id))
		if err != nil || !graphics.MatchString(name) || audio.MatchString(name) {
			continue
		}
		known++
		if got, want := idMayHaveMIG(id), mayHave.MatchString(name); got != want {
			t.Errorf("%04x, %s: may have MIG mode: %v; want %v", id, name, got, want)
		}
	}
	if known < 800 {
		t.Errorf("%d graphics processors are in the list", known)
	}
}
