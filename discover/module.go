package discover

import (
	"context"
	"time"

	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// module reads one part of a host. Discover fills that part of the inventory and
// adds a [Finding] for whatever it could not have; it returns an error only when
// the context ended.
type module interface {
	Discover(ctx context.Context, host hosttree.Host, inv *Inventory) error
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
	Probe Probe
	// ProbeIfNeeded: NVML is asked only where it may know more than procfs about
	// which GPUs and MIG devices there are. Else the CUDA version stays unknown, and
	// a lost GPU goes unnoticed.
	ProbeIfNeeded bool
	// WithoutUUIDs: no device is named by the UUID of a GPU or MIG device, so that one
	// without a UUID is not a finding.
	WithoutUUIDs bool
	// PlannedMIG are MIG devices, by the UUIDs of their GPUs, that need not exist yet; nor need
	// their device nodes, whose numbers the driver has in a table. GPUInstance and
	// ComputeInstance are required, Index and Nodes are ignored. A spec has the numbers of nodes that do
	// not exist, so that a container starts without them. With a planned device a GPU counts as in
	// MIG mode. GPUs that the host does not have are ignored.
	PlannedMIG map[string][]MIGDevice
	// MPSDirectory is where the host's CUDA multi-process service has its pipes,
	// an absolute path in the driver root that containers are given to write to.
	// Empty: they are no clients of that service.
	MPSDirectory string
	// NodesOnly leaves out what device nodes do not need: the user-space driver is not looked
	// at, nor NVML asked. ControlNodesOnly also leaves out all nodes but those of kind
	// [ControlNode].
	NodesOnly, ControlNodesOnly bool
	// IMEXChannels are the numbers, from 0, of further channels besides those that have a node and
	// channel 0, where the driver is configured to make it (NVreg_CreateImexChannel0=1).
	IMEXChannels []int
	// PossibleNodes adds nodes of what is not there yet, with kind [PossibleNode]: of all MIG
	// instances that the GPUs could have, and of nvidia-modeset when it is not loaded.
	PossibleNodes bool
	// OtherNodes adds the driver's other nodes that exist, with kind [OtherNode].
	OtherNodes bool
	// HostNodes fills [Inventory.HostNodes] and [Inventory.StorageFiles].
	HostNodes bool
	// WithoutDriver leaves out NVIDIA's driver for GPUs and all that it has.
	WithoutDriver bool
	// NICs finds NVIDIA's network cards with RDMA, NICLibraries the host's libraries for
	// them too.
	NICs, NICLibraries bool
	// Passthrough finds the nodes of GPUs that are set aside for virtual machines: with
	// IOMMUFD those of their functions, for iommufd, and not that of their IOMMU group (a
	// program that is given both opens a GPU twice, and fails); with SharedNode also the one
	// that all have in common, /dev/vfio/vfio or /dev/iommu.
	Passthrough, IOMMUFD, SharedNode bool
}

// modules returns those of a discovery in the order they run: a module may read
// what those before it have found.
func modules(o Options) []module {
	if o.NodesOnly {
		return []module{bus{}, driver{}, gpus{}, nodes{o}}
	}
	list := []module{bus{}}
	if !o.WithoutDriver {
		probe := &nvml{probe: o.Probe, ifNeeded: o.ProbeIfNeeded}
		list = append(list, []module{
			driver{},
			gpus{}, // they decide whether NVML is asked
			// The probe takes longest, so it starts as soon as its library is found.
			libraries{o.LibrarySearchPath, probe},
			files{mpsDirectory: o.MPSDirectory, configDirectories: o.ConfigSearchPath},
			probe,
			mig{o.WithoutUUIDs, o.PlannedMIG},
			nodes{o},
			drm{},
			platform{probe},
		}...)
	}
	if o.NICs {
		list = append(list, rdma{o.NICLibraries})
	}
	if o.Passthrough {
		list = append(list, vfio{o})
	}
	return append(list, trusts{}) // the last: it checks what the others have found
}

// Discover finds out what the host has. The error is the context's, or that of a field of the
// host, and the inventory is nil then; all else is a finding.
func (h Host) Discover(ctx context.Context, o Options) (*Inventory, error) {
	host, err := h.Open()
	if err != nil {
		return nil, err
	}
	return Run(ctx, host, o)
}

// Run is [Host.Discover] on a host that packages of this module have opened or made up. The
// error is the context's.
func Run(ctx context.Context, host hosttree.Host, o Options) (*Inventory, error) {
	host = host.Fresh()
	host.Proc = host.Proc.Once()
	inv := &Inventory{Arch: host.Arch}
	for _, m := range modules(o) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := m.Discover(ctx, host, inv); err != nil {
			return nil, err
		}
	}
	return inv, nil
}

// ProgramProbe returns a probe for [Options] that runs the program cdigen-nvml and ends it after a
// time limit, which is above 0, whatever the driver does. An empty path stands for the program as it is installed:
// beside the running program, in libexec/cdigen beside its directory, or in PATH. Where it is
// missing, a discovery has a finding.
func ProgramProbe(path string, limit time.Duration) Probe {
	return nvmlprobe.Program(path, limit)
}
