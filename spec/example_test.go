package spec_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/spec"
)

// simulated makes one of the hosts of testdata/hosts in a directory. On a machine with GPUs the host
// would be the zero [discover.Host], and the probe discover.ProgramProbe("", 10 * time.Second).
func simulated(name, dir string) (discover.Host, discover.Options) {
	d, err := simhost.Load("../testdata/hosts/" + name + ".yaml")
	if err == nil {
		err = d.Build(dir, simhost.Options{})
	}
	if err != nil {
		panic(err)
	}
	return d.Host(dir), discover.Options{Probe: d.Probe()}
}

// The spec of all GPUs and MIG devices of a host.
func Example() {
	dir, _ := os.MkdirTemp("", "")
	defer func() { _ = os.RemoveAll(dir) }()
	host, options := simulated("demo", dir) // 8 GPUs, two in MIG mode

	inv, err := host.Discover(context.Background(), options)
	if err != nil {
		panic(err)
	}
	s, findings, err := spec.New(inv, spec.Options{})
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Kind, len(s.Devices), "devices,", len(findings), "left out")
	for _, d := range s.Devices[:2] {
		fmt.Println(d.Name, d.ContainerEdits.DeviceNodes[0].Path)
	}
	// Output:
	// nvidia.com/gpu 35 devices, 0 left out
	// 0 /dev/nvidia0
	// GPU-a2763661-9a73-5228-80f5-3b5b69ae8641 /dev/nvidia0
}

// A claim of dynamic resource allocation: a spec with one device under the name of the claim, as
// a file of its own, and its end.
func ExamplePublish_claim() {
	dir, _ := os.MkdirTemp("", "")
	defer func() { _ = os.RemoveAll(dir) }()
	host, options := simulated("demo", dir)
	ctx := context.Background()
	inv, err := host.Discover(ctx, options)
	if err != nil {
		panic(err)
	}
	mig := inv.GPUs[7].MIGDevices[0].UUID

	s, _, err := spec.New(inv, spec.Options{Class: "claim", As: map[string]string{"4f9c2b3e": mig}})
	if err != nil {
		panic(err) // the device cannot be used
	}
	file := filepath.Join(dir, "cdi", "nvidia.com-claim-4f9c2b3e.yaml")
	published, err := spec.Publish(ctx, file, s)
	fmt.Println(published, err)
	for _, n := range s.Devices[0].ContainerEdits.DeviceNodes {
		fmt.Println(n.Path)
	}

	removed, err := spec.Remove(ctx, file, s.Kind)
	fmt.Println(removed, err)
	// Output:
	// true <nil>
	// /dev/nvidia7
	// /dev/nvidia-caps/nvidia-cap957
	// /dev/nvidia-caps/nvidia-cap958
	// true <nil>
}

// The device nodes that a GPU or MIG device needs, by any of its names.
func ExampleByID() {
	dir, _ := os.MkdirTemp("", "")
	defer func() { _ = os.RemoveAll(dir) }()
	host, options := simulated("demo", dir)
	inv, err := host.Discover(context.Background(), options)
	if err != nil {
		panic(err)
	}
	e, err := spec.ByID(inv, inv.GPUs[0].PCI, spec.Options{})
	if err != nil {
		panic(err)
	}
	fmt.Println(e.DeviceNodes[0].Path)
	_, err = spec.ByID(inv, "7", spec.Options{})
	fmt.Println(err)
	// Output:
	// /dev/nvidia0
	// device "7" is in MIG mode: it has 7:0, MIG-727ce0b9-aea6-59ba-a964-e28632269d41, 7:1 and 5 others
}

// A program in a container, with the host's root as a volume, uses the driver of a driver
// container: the spec has the paths of the host.
func ExampleNew_driverContainer() {
	volume, _ := os.MkdirTemp("", "") // such as /host
	defer func() { _ = os.RemoveAll(volume) }()
	simulated("driver-container", volume)
	host := discover.Host{
		DriverRoot: filepath.Join(volume, "run/nvidia/driver"), DriverRootOnHost: "/run/nvidia/driver",
		DevRoot:  filepath.Join(volume, "run/nvidia/driver"), // its nodes are on the host where the driver root is
		ProcRoot: filepath.Join(volume, "proc"), SysRoot: filepath.Join(volume, "sys"),
		Arch: "amd64", NodeTable: filepath.Join(volume, simhost.NodeTable), // of the simulated host only
	}

	inv, err := host.Discover(context.Background(), discover.Options{})
	if err != nil {
		panic(err)
	}
	s, _, err := spec.New(inv, spec.Options{})
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Devices[0].ContainerEdits.DeviceNodes[0].HostPath)
	for _, m := range s.ContainerEdits.Mounts {
		if filepath.Base(m.ContainerPath) == "libcuda.so.1" {
			fmt.Println(m.HostPath, "->", m.ContainerPath)
		}
	}
	// Output:
	// /run/nvidia/driver/dev/nvidia0
	// /run/nvidia/driver/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15 -> /usr/lib/x86_64-linux-gnu/libcuda.so.1
	// /run/nvidia/driver/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15 -> /usr/lib64/libcuda.so.1
}

// A GPU for a virtual machine, which is bound to vfio-pci: the kind pgpu (docs/kinds.md).
func ExampleNew_virtualMachine() {
	dir, _ := os.MkdirTemp("", "")
	defer func() { _ = os.RemoveAll(dir) }()
	host, o := simulated("vfio", dir)
	kinds, err := spec.ParseKinds([]string{"pgpu"})
	if err != nil {
		panic(err)
	}
	kinds[0].Look(&o)
	o.IOMMUFD, o.SharedNode = true, true // for a program that uses iommufd and makes no node itself
	inv, err := host.Discover(context.Background(), o)
	if err != nil {
		panic(err)
	}
	s, _, err := spec.New(inv, spec.Options{Of: kinds[0], As: map[string]string{"4f9c2b3e": "0000:01:00.0"}})
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Kind)
	for _, n := range s.Devices[0].ContainerEdits.DeviceNodes {
		fmt.Println(n.Path)
	}
	// Output:
	// nvidia.com/pgpu
	// /dev/vfio/devices/vfio0
	// /dev/vfio/devices/vfio1
	// /dev/iommu
}

// A MIG device that does not exist yet: engines look up the numbers of nodes that exist, the spec
// has those of the others.
func ExampleNew_plannedMIG() {
	dir, _ := os.MkdirTemp("", "")
	defer func() { _ = os.RemoveAll(dir) }()
	host, o := simulated("two-gpus", dir)
	ctx := context.Background()
	inv, err := host.Discover(ctx, o)
	if err != nil {
		panic(err)
	}
	gpu := inv.GPUs[0].UUID
	o.PlannedMIG = map[string][]discover.MIGDevice{gpu: {{GPUInstance: 1, ComputeInstance: 0, Profile: "3g.40gb"}}}
	if inv, err = host.Discover(ctx, o); err != nil {
		panic(err)
	}
	s, _, err := spec.New(inv, spec.Options{As: map[string]string{"4f9c2b3e": discover.MIGID(gpu, 1, 0)}})
	if err != nil {
		panic(err)
	}
	for _, n := range s.Devices[0].ContainerEdits.DeviceNodes {
		fmt.Println(n.Path, n.Minor)
	}
	// Output:
	// /dev/nvidia0 0
	// /dev/nvidia-caps/nvidia-cap12 12
	// /dev/nvidia-caps/nvidia-cap13 13
}

// A kind of devices with the parts of the driver that some programs need.
func ExampleParseKinds() {
	dir, _ := os.MkdirTemp("", "")
	defer func() { _ = os.RemoveAll(dir) }()
	host, _ := simulated("demo", dir)
	kinds, err := spec.ParseKinds([]string{"gpu-encode=video+utility"})
	if err != nil {
		panic(err)
	}
	var o discover.Options
	kinds[0].Look(&o)
	inv, err := host.Discover(context.Background(), o)
	if err != nil {
		panic(err)
	}
	s, _, err := spec.New(inv, spec.Options{Of: kinds[0]})
	if err != nil {
		panic(err)
	}
	all, _, err := spec.New(inv, spec.Options{})
	fmt.Println(s.Kind, len(s.ContainerEdits.Mounts) < len(all.ContainerEdits.Mounts), err)
	// Output:
	// nvidia.com/gpu-encode true <nil>
}
