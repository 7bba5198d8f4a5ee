package spec_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/spec"
)

// A driver of dynamic MIG writes the spec of a claim before it makes the MIG device, or before
// anything makes its nodes.
func TestPlannedMIGDeviceNeedsNoNodes(t *testing.T) {
	d := hosttest.Load(t, "demo")
	d.MissingNodes = []string{"nvidia-caps/nvidia-cap957", "nvidia-caps/nvidia-cap958"} // of 7:0, which exists
	host := hosttest.Open(t, d, t.TempDir())
	now := hosttest.Discover(t, host, nil)
	major, first, uuid := now.Driver.Majors["nvidia-caps"], now.GPUs[0].UUID, now.GPUs[7].UUID
	pinned := func(caps ...int) (list []string) {
		for _, n := range caps {
			list = append(list, fmt.Sprintf("/dev/nvidia-caps/nvidia-cap%d c %d:%d", n, major, n))
		}
		return list
	}
	for _, c := range []struct {
		name, id string
		gpu      string // of the planned device
		gi, ci   int
		want     []string
		fault    string
	}{
		{"exists without nodes", discover.MIGID(uuid, 1, 0), uuid, 1, 0, append([]string{"/dev/nvidia7"}, pinned(957, 958)...), ""},
		{"exists without nodes, by its index", "7:0", uuid, 1, 0, append([]string{"/dev/nvidia7"}, pinned(957, 958)...), ""},
		{"beside others", discover.MIGID(uuid, 9, 2), uuid, 9, 2, append([]string{"/dev/nvidia7"}, pinned(1029, 1032)...), ""},
		{"on a GPU that is not in MIG mode", "0:0", first, 9, 0, append([]string{"/dev/nvidia0"}, pinned(84, 85)...), ""},
		{"with nodes", discover.MIGID(uuid, 3, 0), uuid, 3, 0, []string{"/dev/nvidia7", "/dev/nvidia-caps/nvidia-cap975", "/dev/nvidia-caps/nvidia-cap976"}, ""},
		{"is not planned", discover.MIGID(uuid, 1, 0), uuid, 9, 2, nil, "no device nodes"},
		{"beyond the driver's table", discover.MIGID(uuid, 15, 0), uuid, 15, 0, nil, "no device nodes"},
		{"of another host's GPU", discover.MIGID("GPU-0", 1, 0), "GPU-0", 1, 0, nil, `no device "MIG-GPU-0/1/0"`},
	} {
		inv, err := discover.Run(context.Background(), host, discover.Options{
			PlannedMIG: map[string][]discover.MIGDevice{c.gpu: {{GPUInstance: c.gi, ComputeInstance: c.ci, Profile: "1g.10gb"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		e, err := spec.ByID(inv, c.id, spec.Options{})
		var got []string
		for _, n := range e.DeviceNodes {
			node := n.Path
			if n.Type != "" {
				node += fmt.Sprintf(" %s %d:%d", n.Type, n.Major, n.Minor)
			}
			got = append(got, node)
		}
		if !slices.Equal(got, c.want) || (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %q, %v; want %q, %q", c.name, got, err, c.want, c.fault)
		}
		for i := range inv.GPUs {
			indexes := map[int]bool{}
			for _, m := range inv.GPUs[i].MIGDevices {
				if indexes[m.Index] {
					t.Errorf("%s: two MIG devices have the index %d: %+v", c.name, m.Index, inv.GPUs[i].MIGDevices)
				}
				indexes[m.Index] = true
			}
		}
		missing := slices.ContainsFunc(inv.Findings, func(f discover.Finding) bool { return f.ID == discover.NodeMissing && f.Severity == discover.Broken })
		if planned := discover.MIGID(c.gpu, c.gi, c.ci) == discover.MIGID(uuid, 1, 0); missing == planned {
			t.Errorf("%s: nodes are reported as missing: %v", c.name, missing)
		}
	}
}
