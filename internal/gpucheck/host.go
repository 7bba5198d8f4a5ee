package gpucheck

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/discover"
)

// Facts are what the script needs to know of a host, by the name of its variable.
// inv is what "cdigen info -o json" has printed.
func Facts(inv *discover.Inventory) [][2]string {
	var models []string
	injected, full, mig := 0, -1, 0
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		models = append(models, g.Model)
		mig += len(g.MIGDevices)
		if !g.Usable() || g.MIGEnabled && len(g.MIGDevices) == 0 {
			continue
		}
		injected++
		if full < 0 && !g.MIGEnabled {
			full = i
		}
	}
	facts := [][2]string{
		{"driver", inv.Driver.Version}, {"flavor", inv.Driver.Flavor}, {"cuda", inv.Driver.CUDAVersion},
		{"models", counted(models)}, {"gpus", strconv.Itoa(injected)}, {"mig_devices", strconv.Itoa(mig)}, {"nvml_library", library(inv, "libnvidia-ml.so.1")},
		{"cuda_library", library(inv, "libcuda.so.1")},
	}
	// The first GPU that is not in MIG mode is the one to be asked for by index and UUID.
	index, uuid, node := "", "", ""
	if full >= 0 {
		g := &inv.GPUs[full]
		index, uuid, node = strconv.Itoa(g.Index), g.UUID, g.Node.Path
	}
	return append(facts, [2]string{"index", index}, [2]string{"uuid", uuid}, [2]string{"node", node})
}

func library(inv *discover.Inventory, soname string) string {
	for _, l := range inv.Libraries {
		if l.SONAME == soname && !l.Bits32() {
			return l.HostPath
		}
	}
	return ""
}

// counted are texts with how many there are of each, "8 × NVIDIA H100 80GB HBM3".
func counted(texts []string) string {
	var order []string
	count := map[string]int{}
	for _, text := range texts {
		if count[text]++; count[text] == 1 {
			order = append(order, text)
		}
	}
	for i, text := range order {
		order[i] = fmt.Sprintf("%d × %s", count[text], text)
	}
	return strings.Join(order, ", ")
}

// WriteShell writes facts as assignments that a shell reads.
func WriteShell(w io.Writer, facts [][2]string) error {
	for _, f := range facts {
		if _, err := fmt.Fprintf(w, "%s='%s'\n", f[0], strings.ReplaceAll(f[1], "'", `'\''`)); err != nil {
			return err
		}
	}
	return nil
}

// Compare says in what two discoveries of one host disagree about full GPUs, and how
// many these are. MIG devices and lost GPUs only NVML knows in full.
func Compare(nvml, procfs *discover.Inventory) (compared int, differences []string) {
	others := map[string]*discover.GPU{}
	for i := range procfs.GPUs {
		others[procfs.GPUs[i].PCI] = &procfs.GPUs[i]
	}
	for i := range nvml.GPUs {
		g := &nvml.GPUs[i]
		other, ok := others[g.PCI]
		delete(others, g.PCI)
		switch {
		case !ok:
			differences = append(differences, g.PCI+": only with NVML")
			continue
		case g.Lost || g.MIGEnabled:
			continue
		}
		compared++
		if with, without := text(g), text(other); with != without {
			differences = append(differences, fmt.Sprintf("%s: with NVML %s, without %s", g.PCI, with, without))
		}
	}
	for i := range procfs.GPUs {
		if pci := procfs.GPUs[i].PCI; others[pci] != nil {
			differences = append(differences, pci+": only without NVML")
		}
	}
	return compared, differences
}

// text is all of a GPU that can be known without NVML.
func text(g *discover.GPU) string {
	var nodes []string
	if g.Node != nil {
		nodes = append(nodes, g.Node.Path)
	}
	for _, n := range g.DRM {
		nodes = append(nodes, n.Path)
	}
	return fmt.Sprintf("index %d, minor %d, UUID %s, nodes %s", g.Index, g.Minor, g.UUID, strings.Join(nodes, " "))
}
