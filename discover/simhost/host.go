package simhost

import (
	"context"
	"path/filepath"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// Host returns the host that was built in a directory.
func (d *Description) Host(dir string) discover.Host {
	return discover.Host{
		DriverRoot: d.DriverRoot(dir), DevRoot: dir, ProcRoot: filepath.Join(dir, "proc"), SysRoot: filepath.Join(dir, "sys"),
		Arch: d.arch(), NodeTable: filepath.Join(dir, NodeTable),
	}
}

// Probe returns a probe for [discover.Options] that answers as cdigen-nvml would on the host.
func (d *Description) Probe() discover.Probe {
	return func(context.Context, string) (*nvmlprobe.Report, error) {
		switch {
		case len(d.NVML.Fail) > 0:
			return nil, &nvmlprobe.Error{Kind: nvmlprobe.VersionMismatch, Message: "nvmlInit: driver/library version mismatch"}
		case len(d.NVML.Hang) > 0:
			return nil, &nvmlprobe.Error{Kind: nvmlprobe.Timeout, Message: d.NVML.Hang[0].Call + " did not return within 10s"}
		}
		return nvmlprobe.Parse(d.NVMLReport())
	}
}
