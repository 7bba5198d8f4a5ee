package simhost

import (
	"encoding/json"
	"fmt"
	"strings"
)

// statusLost is NVML_ERROR_GPU_IS_LOST.
const statusLost = 15

// cudaVersion is the newest CUDA of a driver's branch, as NVML writes it.
func cudaVersion(driver string) int {
	switch major := branch(driver); {
	case major >= 580:
		return 13000
	case major >= 560:
		return 12060
	case major >= 550:
		return 12040
	case major >= 535:
		return 12020
	case major >= 525:
		return 12000
	}
	return 11040
}

// busID is a PCI address as NVML writes it.
func busID(pci string) string {
	domain, rest, _ := strings.Cut(pci, ":")
	return strings.Repeat("0", 8-len(domain)) + strings.ToUpper(domain+":"+rest)
}

// fakeNVML is the configuration of the fake library.
func (d *Description) fakeNVML() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	cuda := cudaVersion(d.Driver.Version)
	line("driver %s", d.Driver.Version)
	line("nvml %d.%s", cuda/1000, d.Driver.Version)
	line("cuda %d", cuda)
	for _, g := range d.gpus() {
		if g.Excluded {
			continue
		}
		line("gpu uuid=%s bus=%s minor=%d mig=%d brand=%d arch=%d capability=%d ats=%d name=%s", g.uuid, busID(g.PCI), g.minor, number(g.MIG != nil),
			g.brand.number, g.arch.number, g.capability, number(g.coherent), g.name)
		if d.NVLinks > 0 {
			line("nvlink gpu=%d count=%d type=2", g.index, d.NVLinks)
		}
		for _, gi := range g.instances {
			for _, ci := range gi.compute {
				line("migdev gpu=%d index=%d gi=%d ci=%d uuid=%s gislices=%d cislices=%d memory=%d gfx=%d name=%s MIG %s",
					g.index, ci.index, gi.id, ci.id, ci.uuid, gi.slices, ci.slices, ci.memory, number(ci.graphics), g.name, ci.profile)
			}
		}
		if g.Lost {
			line("fail * gpu=%d status=%d", g.index, statusLost)
		}
	}
	if d.NVML.StartMilliseconds > 0 {
		line("delay nvmlInit_v2 ms=%d", d.NVML.StartMilliseconds)
	}
	if status := d.initStatus(); status != 0 {
		line("fail nvmlInit_v2 status=%d", status)
	}
	for _, f := range d.NVML.Fail {
		line("fail %s%s status=%d", f.Call, onGPU(f), f.Status)
	}
	for _, f := range d.NVML.Hang {
		line("hang %s%s", f.Call, onGPU(f))
	}
	return b.String()
}

// initStatus is what nvmlInit returns for reasons that are not NVML's own.
func (d *Description) initStatus() int {
	switch {
	case d.WindowsGPU:
		return 0
	case !d.nvidiaLoaded():
		return 9 // NVML_ERROR_DRIVER_NOT_LOADED
	case d.kernelVersion() != d.Driver.Version:
		return 18 // NVML_ERROR_LIB_RM_VERSION_MISMATCH
	}
	return 0
}

func onGPU(f Failure) string {
	if f.GPU == nil {
		return ""
	}
	return fmt.Sprintf(" gpu=%d", *f.GPU)
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// NVMLReport is what cdigen-nvml prints on this host, as far as no call fails or
// hangs but those of lost GPUs.
func (d *Description) NVMLReport() []byte {
	type object map[string]any
	gpus := []object{}
	for _, g := range d.gpus() {
		if g.Excluded {
			continue
		}
		if g.Lost {
			gpus = append(gpus, object{"index": g.index, "lost": true, "errors": []string{"nvmlDeviceGetHandleByIndex_v2: GPU is lost"}})
			continue
		}
		o := object{"index": g.index, "uuid": g.uuid, "name": g.name, "pciBusId": busID(g.PCI), "minor": g.minor,
			"brand": g.brand.text, "architecture": g.arch.text, "computeCapability": fmt.Sprintf("%d.%d", g.capability/10, g.capability%10)}
		if g.coherent {
			o["coherent"] = true
		}
		if g.MIG != nil {
			o["migEnabled"] = true
		}
		var devices []object
		for _, gi := range g.instances {
			for _, ci := range gi.compute {
				device := object{"index": ci.index, "uuid": ci.uuid, "gpuInstance": gi.id, "computeInstance": ci.id, "profile": ci.profile}
				if ci.graphics {
					device["graphics"] = true
				}
				devices = append(devices, device)
			}
		}
		if devices != nil {
			o["migDevices"] = devices
		}
		gpus = append(gpus, o)
	}
	cuda := cudaVersion(d.Driver.Version)
	data, err := json.Marshal(object{"driverVersion": d.Driver.Version, "nvmlVersion": fmt.Sprintf("%d.%s", cuda/1000, d.Driver.Version), "cudaDriverVersion": cuda, "gpus": gpus})
	if err != nil {
		panic(err) // maps of strings and numbers always can be
	}
	return data
}
