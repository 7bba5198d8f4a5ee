//go:build cgo

package nvmlask

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/NVIDIA/go-nvlib/pkg/nvlib/device"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// subject is a GPU or MIG device.
type subject struct {
	asker  *Asker
	name   string    // "MIG device 0 of GPU 3"
	errors *[]string // of this subject
	lost   *bool     // of the GPU
}

// get asks about a subject and records the error. A lost GPU is not asked again: a call may
// take seconds to fail.
func get[T any](s subject, symbols string, f func() (T, nvml.Return)) (answer T, ok bool) {
	if *s.lost {
		return answer, false
	}
	answer, err := ask(s.asker, s.name, symbols, f)
	if err != nil {
		*s.errors = append(*s.errors, err.Error())
		*s.lost = err.Return == nvml.ERROR_GPU_IS_LOST
	}
	return answer, err == nil
}

const getPciInfo = "nvmlDeviceGetPciInfo_v3|nvmlDeviceGetPciInfo_v2|nvmlDeviceGetPciInfo"

func (a *Asker) gpu(g *nvmlprobe.GPU) {
	s := subject{a, fmt.Sprintf("GPU %d", g.Index), &g.Errors, &g.Lost}
	handle, ok := get(s, "nvmlDeviceGetHandleByIndex_v2|nvmlDeviceGetHandleByIndex", func() (nvml.Device, nvml.Return) {
		return a.Library.DeviceGetHandleByIndex(g.Index)
	})
	if !ok {
		return
	}
	// The PCI address comes first: other sources identify the GPU by it.
	if pci, ok := get(s, getPciInfo, handle.GetPciInfo); ok {
		g.PCIBusID = a.busID(&pci)
	}
	g.UUID, _ = get(s, "nvmlDeviceGetUUID", handle.GetUUID)
	if minor, ok := get(s, "nvmlDeviceGetMinorNumber", handle.GetMinorNumber); ok {
		g.Minor = &minor
	}
	g.Name, _ = get(s, "nvmlDeviceGetName", handle.GetName)
	a.mig(s, handle, g)
	a.describe(s, handle, g)
	if a.Details && !g.Lost {
		a.links(s, handle, g)
		a.processes(s, handle, g)
	}
}

// links asks what is at the other end of each NVLink. A GPU without, or one that does not
// answer, has none.
func (a *Asker) links(s subject, handle nvml.Device, g *nvmlprobe.GPU) {
	for link := range nvml.NVLINK_MAX_LINKS {
		state, err := ask(a, s.name, "nvmlDeviceGetNvLinkState", func() (nvml.EnableState, nvml.Return) { return handle.GetNvLinkState(link) })
		switch {
		case err != nil:
			return
		case state != nvml.FEATURE_ENABLED:
			continue
		}
		to := nvmlprobe.NVLink{To: "other"}
		kind, err := ask(a, s.name, "nvmlDeviceGetNvLinkRemoteDeviceType", func() (nvml.IntNvLinkDeviceType, nvml.Return) { return handle.GetNvLinkRemoteDeviceType(link) })
		switch {
		case err == nil && kind == nvml.NVLINK_DEVICE_TYPE_SWITCH:
			to.To = "switch"
		case err == nil && kind == nvml.NVLINK_DEVICE_TYPE_GPU:
			to.To = "gpu"
			pci, _ := ask(a, s.name, "nvmlDeviceGetNvLinkRemotePciInfo_v2", func() (nvml.PciInfo, nvml.Return) { return handle.GetNvLinkRemotePciInfo(link) })
			to.PCI = a.busID(&pci)
		}
		at := slices.IndexFunc(g.NVLinks, func(l nvmlprobe.NVLink) bool { return l.To == to.To && l.PCI == to.PCI })
		if at < 0 {
			at, g.NVLinks = len(g.NVLinks), append(g.NVLinks, to)
		}
		g.NVLinks[at].Links++
	}
}

// processes asks which processes use the GPU, or a MIG device of it, and for their memory.
func (a *Asker) processes(s subject, handle nvml.Device, g *nvmlprobe.GPU) {
	for _, kind := range []struct {
		symbol string
		list   func() ([]nvml.ProcessInfo, nvml.Return)
	}{
		{"nvmlDeviceGetComputeRunningProcesses", handle.GetComputeRunningProcesses},
		{"nvmlDeviceGetGraphicsRunningProcesses", handle.GetGraphicsRunningProcesses},
	} {
		infos, _ := ask(a, s.name, kind.symbol+"_v3|"+kind.symbol+"_v2|"+kind.symbol, kind.list)
		for _, info := range infos {
			process := nvmlprobe.Process{PID: int(info.Pid)}
			if info.UsedGpuMemory != math.MaxUint64 { // NVML_VALUE_NOT_AVAILABLE
				process.Memory = info.UsedGpuMemory
			}
			// One that computes and draws is in both lists: the first is taken.
			if !slices.ContainsFunc(g.Processes, func(other nvmlprobe.Process) bool { return other.PID == process.PID }) {
				g.Processes = append(g.Processes, process)
			}
		}
	}
	slices.SortFunc(g.Processes, func(a, b nvmlprobe.Process) int { return a.PID - b.PID })
}

func (a *Asker) mig(s subject, handle nvml.Device, g *nvmlprobe.GPU) {
	// A library older than MIG has no MIG mode.
	if _, ok := a.lookup("nvmlDeviceGetMigMode"); !ok {
		return
	}
	mode, _ := get(s, "nvmlDeviceGetMigMode", func() (int, nvml.Return) {
		mode, _, ret := handle.GetMigMode()
		if ret == nvml.ERROR_NOT_SUPPORTED {
			return nvml.DEVICE_MIG_DISABLE, nvml.SUCCESS
		}
		return mode, ret
	})
	if mode == nvml.DEVICE_MIG_ENABLE {
		g.MIGEnabled = true
		a.migDevices(s, handle, g)
	}
}

// brands and architectures are the names of NVML's numbers.
var (
	brands = map[nvml.BrandType]string{
		nvml.BRAND_QUADRO: "Quadro", nvml.BRAND_TESLA: "Tesla", nvml.BRAND_NVS: "NVS", nvml.BRAND_GRID: "GRID", nvml.BRAND_GEFORCE: "GeForce",
		nvml.BRAND_TITAN: "Titan", nvml.BRAND_NVIDIA_VAPPS: "NVIDIA vApps", nvml.BRAND_NVIDIA_VPC: "NVIDIA vPC", nvml.BRAND_NVIDIA_VCS: "NVIDIA vCS",
		nvml.BRAND_NVIDIA_VWS: "NVIDIA vWS", nvml.BRAND_NVIDIA_CLOUD_GAMING: "NVIDIA Cloud Gaming", nvml.BRAND_QUADRO_RTX: "Quadro RTX",
		nvml.BRAND_NVIDIA_RTX: "NVIDIA RTX", nvml.BRAND_NVIDIA: "NVIDIA", nvml.BRAND_GEFORCE_RTX: "GeForce RTX", nvml.BRAND_TITAN_RTX: "Titan RTX",
	}
	architectures = map[nvml.DeviceArchitecture]string{
		nvml.DEVICE_ARCH_KEPLER: "Kepler", nvml.DEVICE_ARCH_MAXWELL: "Maxwell", nvml.DEVICE_ARCH_PASCAL: "Pascal", nvml.DEVICE_ARCH_VOLTA: "Volta",
		nvml.DEVICE_ARCH_TURING: "Turing", nvml.DEVICE_ARCH_AMPERE: "Ampere", nvml.DEVICE_ARCH_ADA: "Ada", nvml.DEVICE_ARCH_HOPPER: "Hopper",
		nvml.DEVICE_ARCH_BLACKWELL: "Blackwell",
		13:                         "Rubin", // NVML_DEVICE_ARCH_RUBIN, which the go-nvml of device plugins may not have
	}
)

// optional asks what a library, a GPU or a platform need not know.
func optional[T any](s subject, symbol string, f func() (T, nvml.Return)) (answer T, ok bool) {
	if _, known := s.asker.lookup(symbol); !known {
		return answer, false
	}
	supported := true
	answer, ok = get(s, symbol, func() (T, nvml.Return) {
		answer, ret := f()
		if ret == nvml.ERROR_NOT_SUPPORTED {
			supported, ret = false, nvml.SUCCESS
		}
		return answer, ret
	})
	return answer, ok && supported
}

// describe asks for what requirements of images name, and which kind of memory access the GPU
// has.
func (a *Asker) describe(s subject, handle nvml.Device, g *nvmlprobe.GPU) {
	if brand, ok := optional(s, "nvmlDeviceGetBrand", handle.GetBrand); ok {
		g.Brand = brands[brand]
	}
	if architecture, ok := optional(s, "nvmlDeviceGetArchitecture", handle.GetArchitecture); ok {
		g.Architecture = architectures[architecture]
	}
	capability, _ := optional(s, "nvmlDeviceGetCudaComputeCapability", func() (string, nvml.Return) {
		major, minor, ret := handle.GetCudaComputeCapability()
		return fmt.Sprintf("%d.%d", major, minor), ret
	})
	if capability != "0.0" {
		g.ComputeCapability = capability
	}
	mode, _ := optional(s, "nvmlDeviceGetAddressingMode", handle.GetAddressingMode)
	g.Coherent = nvml.DeviceAddressingModeType(mode.Value) == nvml.DEVICE_ADDRESSING_MODE_ATS
}

// busID returns the PCI address. Only version 3 of the call returns the long form; version
// 2 has reserved bytes in its place.
func (a *Asker) busID(pci *nvml.PciInfo) string {
	field := pci.BusId[:]
	if symbol, _ := a.lookup(getPciInfo); !strings.HasSuffix(symbol, "_v3") {
		field = pci.BusIdLegacy[:]
	}
	var b strings.Builder
	for _, c := range field {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

func (a *Asker) migDevices(s subject, handle nvml.Device, g *nvmlprobe.GPU) {
	count, _ := get(s, "nvmlDeviceGetMaxMigDeviceCount", handle.GetMaxMigDeviceCount)
	if a.Details {
		g.MIGSlices = count
	}
	for i := range count {
		mig, _ := get(s, "nvmlDeviceGetMigDeviceHandleByIndex", func() (nvml.Device, nvml.Return) {
			mig, ret := handle.GetMigDeviceHandleByIndex(i)
			// Both are returned for a free slot.
			if ret == nvml.ERROR_NOT_FOUND || ret == nvml.ERROR_INVALID_ARGUMENT {
				return nil, nvml.SUCCESS
			}
			return mig, ret
		})
		if mig != nil {
			a.migDevice(i, mig, g)
		}
	}
}

func (a *Asker) migDevice(index int, handle nvml.Device, g *nvmlprobe.GPU) {
	g.MIGDevices = append(g.MIGDevices, nvmlprobe.MIGDevice{Index: index})
	d := &g.MIGDevices[len(g.MIGDevices)-1]
	s := subject{a, fmt.Sprintf("MIG device %d of GPU %d", index, g.Index), &d.Errors, &g.Lost}
	var known [2]bool
	d.GPUInstance, known[0] = get(s, "nvmlDeviceGetGpuInstanceId", handle.GetGpuInstanceId)
	d.ComputeInstance, known[1] = get(s, "nvmlDeviceGetComputeInstanceId", handle.GetComputeInstanceId)
	if !known[0] || !known[1] {
		// 0 is a valid instance too: a MIG device without its instances would be taken for
		// another one.
		for _, e := range d.Errors {
			g.Errors = append(g.Errors, fmt.Sprintf("MIG device %d: %s", index, e))
		}
		g.MIGDevices = g.MIGDevices[:len(g.MIGDevices)-1]
		return
	}
	d.UUID, _ = get(s, "nvmlDeviceGetUUID", handle.GetUUID)
	d.Profile = s.profile(handle)
	d.Graphics = strings.Contains(d.Profile, device.AttributeGraphics)
}

// profile returns the end of the MIG device's name, "NVIDIA A100-SXM4-40GB MIG 1g.5gb". If
// the name has no profile, go-nvlib computes it from the instances.
func (s subject) profile(handle nvml.Device) string {
	name, _ := get(s, "nvmlDeviceGetName", handle.GetName)
	if _, profile, _ := strings.Cut(name, " MIG "); profile != "" || *s.lost {
		return profile
	}
	for _, symbols := range []string{
		"nvmlDeviceIsMigDeviceHandle", "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", "nvmlDeviceGetMemoryInfo",
		"nvmlDeviceGetAttributes_v2|nvmlDeviceGetAttributes", "nvmlDeviceGetGpuInstanceById", "nvmlGpuInstanceGetComputeInstanceById", "nvmlGpuInstanceGetInfo",
		"nvmlComputeInstanceGetInfo_v2|nvmlComputeInstanceGetInfo", "nvmlDeviceGetGpuInstanceProfileInfo",
		"nvmlGpuInstanceGetComputeInstanceProfileInfo",
	} {
		if symbol, ok := s.asker.lookup(symbols); !ok {
			*s.errors = append(*s.errors, symbol+": the library does not have this function")
			return ""
		}
	}
	var profile string
	var err error
	s.asker.around("finding the profile of "+s.name, func() { profile, err = makeProfile(s.asker.Library, handle) })
	if err != nil {
		*s.errors = append(*s.errors, "find the profile: "+err.Error())
	}
	return profile
}

func makeProfile(library nvml.Interface, handle nvml.Device) (string, error) {
	mig, err := device.New(library).NewMigDevice(handle)
	if err != nil {
		return "", err
	}
	profile, err := mig.GetProfile()
	if err != nil {
		return "", err
	}
	return profile.String(), nil
}
