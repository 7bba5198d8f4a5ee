package discover

import (
	"context"
	"io/fs"
)

// Module reads one part of a host. Discover fills that part of the inventory and
// adds a [Finding] for whatever it could not have; it returns an error only when
// the context ended.
type Module interface {
	Discover(ctx context.Context, host Host, inv *Inventory) error
}

// Options are the choices a discovery leaves to its caller.
type Options struct {
	// LibrarySearchPath has further directories of the driver root that are
	// searched for libraries, before all others.
	LibrarySearchPath []string
	// ConfigSearchPath has further directories of the driver root that are searched for
	// configuration files, before all others.
	ConfigSearchPath []string
	// Probe asks NVML. Nil: NVML is not asked, MIG devices have no UUID and a lost GPU
	// goes unnoticed.
	Probe ProbeFunc
	// ProbeIfNeeded: NVML is asked only where it may know more than procfs about
	// which GPUs and MIG devices there are. Else the CUDA version stays unknown, and
	// a lost GPU goes unnoticed.
	ProbeIfNeeded bool
	// WithoutUUIDs: no device is named by the UUID of a GPU or MIG device, so that one
	// without a UUID is not a finding.
	WithoutUUIDs bool
	// PlannedMIG are MIG devices by the UUIDs of their GPUs, that need not exist yet, nor their
	// device nodes: the driver has the numbers of these nodes in a table. GPUInstance and
	// ComputeInstance are needed, and Index and Nodes ignored. A spec has the numbers of nodes that do
	// not exist, so that a container starts without them. With a planned device a GPU counts as in
	// MIG mode. GPUs that the host does not have are ignored.
	PlannedMIG map[string][]MIGDevice
	// MPSDirectory is where the host's CUDA multi-process service has its pipes,
	// an absolute path in the driver root that containers are given to write to.
	// Empty: they are no clients of that service.
	MPSDirectory string
	Nodes        NodeOptions
	// WithoutDriver leaves out NVIDIA's driver for GPUs and all that it has.
	WithoutDriver bool
	// NICs finds NVIDIA's network cards with RDMA, NICLibraries the host's libraries for
	// them too.
	NICs, NICLibraries bool
	// Passthrough finds the nodes of GPUs that are set aside for virtual machines; nil: they
	// are not looked for.
	Passthrough *Passthrough
}

// Modules returns all modules in the order they run: a module may read
// what those before it have found.
func Modules(o Options) []Module {
	list := []Module{bus{}}
	if !o.WithoutDriver {
		probe := &nvml{probe: o.Probe, ifNeeded: o.ProbeIfNeeded}
		list = append(list, []Module{
			driver{},
			gpus{}, // they decide whether NVML is asked
			// The probe takes longest, so it starts as soon as its library is found.
			libraries{o.LibrarySearchPath, probe},
			files{mpsDirectory: o.MPSDirectory, configDirectories: o.ConfigSearchPath},
			probe,
			mig{o.WithoutUUIDs, o.PlannedMIG},
			nodes{o.Nodes},
			drm{},
			platform{probe},
		}...)
	}
	if o.NICs {
		list = append(list, rdma{o.NICLibraries})
	}
	if o.Passthrough != nil {
		list = append(list, vfio{*o.Passthrough})
	}
	return append(list, trusts{}) // the last: it checks what the others have found
}

// NodeModules returns the modules that device nodes need: neither the user-space
// driver is looked at nor NVML asked.
func NodeModules(o NodeOptions) []Module { return []Module{bus{}, driver{}, gpus{}, nodes{o}} }

// Run discovers a host. The error is the context's; all else is a finding.
func Run(ctx context.Context, host Host, modules []Module) (*Inventory, error) {
	inv := &Inventory{Arch: host.Arch}
	host.Proc.files, host.Proc.dirs = memory[[]byte]{}, memory[[]fs.DirEntry]{} // each is read once
	for _, m := range modules {
		if err := ctx.Err(); err != nil {
			return inv, err
		}
		if err := m.Discover(ctx, host, inv); err != nil {
			return inv, err
		}
	}
	return inv, nil
}
