package spec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/spec"
)

// BenchmarkScale shows how the cost of a generation grows with the host, and for the last
// case with the specs of others beside the spec.
func BenchmarkScale(b *testing.B) {
	for _, c := range []struct{ gpus, mig, files, specs int }{
		{gpus: 1}, {gpus: 8}, {gpus: 16}, {gpus: 32}, // the driver has no more than 32
		{gpus: 8, mig: 7}, {gpus: 16, mig: 7}, {gpus: 32, mig: 7},
		{gpus: 8, files: 100}, {gpus: 8, files: 1000}, {gpus: 8, files: 5000}, {gpus: 8, files: 20000},
		{gpus: 8, specs: 50}, {gpus: 8, specs: 500},
	} {
		b.Run(fmt.Sprintf("GPUs=%d/MIG=%d/files=%d/specs=%d", c.gpus, c.gpus*c.mig, c.files, c.specs), func(b *testing.B) {
			d, dir, specs := hosttest.Load(b, "h100x8"), b.TempDir(), b.TempDir()
			d.GPUs = nil
			for i := range c.gpus {
				g := simhost.GPU{PCI: fmt.Sprintf("%04x:%02x:00.0", i/16, 0x20+i%16)}
				if c.mig > 0 {
					g.MIG = []simhost.GPUInstance{{Profile: "1g.10gb", Count: c.mig}}
				}
				d.GPUs = append(d.GPUs, g)
			}
			hosttest.Open(b, d, dir)
			for i := range c.files {
				write(b, filepath.Join(dir, "usr/lib/x86_64-linux-gnu", fmt.Sprintf("libother%d.so.1", i)), "")
			}
			for i := range c.specs {
				write(b, filepath.Join(specs, fmt.Sprintf("other%d.yaml", i)), fmt.Sprintf("cdiVersion: 0.5.0\nkind: vendor%d.com/x\ndevices: [{name: a, containerEdits: {env: [A=1]}}]\n", i))
			}
			b.ReportAllocs()
			for b.Loop() {
				generated(b, hosttest.Reopen(b, d, dir), d.Probe(), spec.Options{}, specs)
			}
		})
	}
}

// generated makes a spec and looks at its neighbours, as generate does.
func generated(b *testing.B, host hosttree.Host, probe nvmlprobe.Func, o spec.Options, dir string) {
	b.Helper()
	s, _, err := spec.New(hosttest.Discover(b, host, probe), o)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := spectext.Encode(s, spectext.YAML); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(dir, "nvidia.yaml")
	specdir.ReadDirectories([]string{dir}).Neighbours(path, s)
}

func write(b *testing.B, path, content string) {
	b.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		b.Fatal(err)
	}
}
