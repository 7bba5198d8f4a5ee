package specdiff

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "tags.cncf.io/container-device-interface/specs-go"
)

func TestADriverUpgradeIsOneChange(t *testing.T) {
	mount := func(host, container string) *specs.Mount {
		return &specs.Mount{HostPath: host, ContainerPath: container, Options: []string{"ro"}}
	}
	older := &specs.Spec{ContainerEdits: specs.ContainerEdits{Env: []string{"A=1"}, Mounts: []*specs.Mount{
		mount("/lib/libcuda.so.535.10.02", "/lib/libcuda.so.1"), mount("/lib/libnvidia-tls.so.535.10.02", "/lib/libnvidia-tls.so.535.10.02"),
		mount("/lib/libnvidia-old.so.535.10.02", "/lib/libnvidia-old.so.535.10.02"), mount("/lib/libnvidia-nvvm.so.4", "/lib/libnvidia-nvvm.so.4")}}}
	newer := &specs.Spec{ContainerEdits: specs.ContainerEdits{Env: []string{"A=2"}, Mounts: []*specs.Mount{
		mount("/lib/libcuda.so.550.54.15", "/lib/libcuda.so.1"), mount("/lib/libnvidia-tls.so.550.54.15", "/lib/libnvidia-tls.so.550.54.15"),
		mount("/lib/libnvidia-nvvm.so.4", "/lib/libnvidia-nvvm.so.4")}}}
	a, b := DriverVersion(older), DriverVersion(newer)
	if a != "535.10.02" || b != "550.54.15" || DriverVersion(&specs.Spec{}) != "" {
		t.Fatalf("the versions are %q and %q", a, b)
	}
	rest, n := WithoutDriver(Diff(older, newer), a, b)
	want := []Change{
		{OpRemoved, "", "mount", "/lib/libnvidia-old.so.535.10.02", "from /lib/libnvidia-old.so.535.10.02 ro", ""},
		{OpChanged, "", "env", "A", "1", "2"},
	}
	if diff := cmp.Diff(want, rest); diff != "" || n != 2 {
		t.Errorf("%d follow, others (-want +got):\n%s", n, diff)
	}
	if rest, n := WithoutDriver(want, a, a); len(rest) != 2 || n != 0 {
		t.Errorf("of one version %d follow, others are %v", n, rest)
	}
}
