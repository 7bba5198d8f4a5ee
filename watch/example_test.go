package watch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/watch"
)

// A program that offers GPUs follows what its host has.
func ExampleFollow() {
	dir, _ := os.MkdirTemp("", "")
	defer func() { _ = os.RemoveAll(dir) }()
	d, err := simhost.Load("../testdata/hosts/demo.yaml")
	if err == nil {
		err = d.Build(dir, simhost.Options{})
	}
	if err != nil {
		panic(err)
	}

	enough := errors.New("enough")
	err = watch.Follow(context.Background(), d.Host(dir), discover.Options{Probe: d.Probe()}, func(inv *discover.Inventory) error {
		fmt.Println("driver", inv.Driver.Version, "with", inv.Usable(), "GPUs")
		if inv.Driver.Version == "" {
			return enough
		}
		return os.RemoveAll(filepath.Join(dir, "proc/driver/nvidia")) // the driver is unloaded
	})
	fmt.Println(err)
	// Output:
	// driver 550.54.15 with 8 GPUs
	// driver  with 0 GPUs
	// enough
}
