package simhost_test

import (
	"context"
	"fmt"
	"os"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
)

// What depends on GPUs is tested on a machine that has none. In a test the directory would be
// t.TempDir().
func Example() {
	d, err := simhost.Parse([]byte(`
name: test
driver: {version: 550.54.15}
model: NVIDIA A100-SXM4-40GB
gpus:
- {pci: "0000:3b:00.0"}
- {pci: "0000:86:00.0", lost: true}
`))
	if err != nil {
		panic(err)
	}
	dir, _ := os.MkdirTemp("", "")
	defer func() { _ = os.RemoveAll(dir) }()
	if err := d.Build(dir, simhost.Options{}); err != nil {
		panic(err)
	}

	inv, err := d.Host(dir).Discover(context.Background(), discover.Options{Probe: d.Probe()})
	if err != nil {
		panic(err)
	}
	for i := range inv.GPUs {
		fmt.Println(inv.GPUs[i].PCI, inv.GPUs[i].State())
	}
	// Output:
	// 0000:3b:00.0 usable
	// 0000:86:00.0 lost
}
