package spec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/discover"
)

// NameStrategy is a way to name devices.
type NameStrategy string

// The ways to name devices: of a full GPU and of a MIG device.
const (
	Index     NameStrategy = "index"      // "0" and "0:1", by NVML's indexes
	UUID      NameStrategy = "uuid"       // "GPU-…" and "MIG-…"
	TypeIndex NameStrategy = "type-index" // "gpu0" and "mig0:1"
	PCI       NameStrategy = "pci"        // "0000:3b:00.0" and "0000:3b:00.0:1"
)

// NameStrategies lists all there are.
var NameStrategies = []NameStrategy{Index, UUID, TypeIndex, PCI}

// gpuName names a full GPU; empty when the strategy has no name for it.
func gpuName(s NameStrategy, g *discover.GPU) string {
	switch s {
	case Index:
		return strconv.Itoa(g.Index)
	case UUID:
		return g.UUID
	case TypeIndex:
		return "gpu" + strconv.Itoa(g.Index)
	case PCI:
		return g.PCI
	}
	return ""
}

// MIGDevice names a MIG device of a GPU; empty when the strategy has no name for it.
func (s NameStrategy) MIGDevice(g *discover.GPU, d *discover.MIGDevice) string {
	switch s {
	case Index:
		return fmt.Sprintf("%d:%d", g.Index, d.Index)
	case UUID:
		// MIG UUIDs of drivers before r470, "MIG-GPU-<uuid>/<gi>/<ci>", cannot
		// be names: CDI allows no slash.
		if strings.Contains(d.UUID, "/") {
			return ""
		}
		return d.UUID
	case TypeIndex:
		return fmt.Sprintf("mig%d:%d", g.Index, d.Index)
	case PCI:
		return fmt.Sprintf("%s:%d", g.PCI, d.Index)
	}
	return ""
}
