package specdiff

import (
	"slices"
	"testing"

	specs "tags.cncf.io/container-device-interface/specs-go"
)

func TestDiffKnowsEveryEdit(t *testing.T) {
	full := func() *specs.Spec {
		timeout, id := 3, uint32(7)
		e := specs.ContainerEdits{
			Env: []string{"A=1"}, DeviceNodes: []*specs.DeviceNode{{Path: "/dev/a", HostPath: "/dev/b", Type: "c", Major: 1, Minor: 3, Permissions: "rw", UID: &id}},
			Mounts: []*specs.Mount{{HostPath: "/x", ContainerPath: "/y"}}, Hooks: []*specs.Hook{{HookName: "poststop", Path: "/h", Timeout: &timeout}},
			AdditionalGIDs: []uint32{5}, NetDevices: []*specs.LinuxNetDevice{{Name: "n", HostInterfaceName: "eth1"}}, IntelRdt: &specs.IntelRdt{ClosID: "c"},
		}
		return &specs.Spec{Version: "1.1.0", Kind: "a.b/c", Annotations: map[string]string{"k": "v"}, ContainerEdits: e,
			Devices: []specs.Device{{Name: "0", ContainerEdits: e, Annotations: map[string]string{"k": "v"}}}}
	}
	if changes := Diff(full(), full()); changes != nil {
		t.Errorf("of one spec with itself %+v", changes)
	}
	empty := &specs.Spec{Version: "1.1.0", Kind: "a.b/c", Devices: []specs.Device{{Name: "0"}}}
	var kinds []string
	for _, c := range Diff(full(), empty) {
		if c.Op != OpRemoved || c.New != "" {
			t.Errorf("%+v", c)
		}
		kinds = append(kinds, c.Device+" "+c.Kind)
	}
	want := []string{" annotation", " node", " mount", " env", " hook", " gid", " net device", " rdt", "0 annotation", "0 node", "0 mount", "0 env", "0 hook", "0 gid", "0 net device", "0 rdt"}
	if !slices.Equal(kinds, want) {
		t.Errorf("%q, want %q", kinds, want)
	}
	// The order means nothing.
	a, b := full(), full()
	a.ContainerEdits.Env, b.ContainerEdits.Env = []string{"A=1", "B=2"}, []string{"B=2", "A=1"}
	if changes := Diff(a, b); changes != nil {
		t.Errorf("another order is %+v", changes)
	}
}
