// The program dra is a minimal driver for Dynamic Resource Allocation of Kubernetes, as an
// example of one that is made with cdigen's packages, and for the tests. It offers the GPUs,
// MIG devices and GPUs for virtual machines of its node, and writes a CDI spec for each claim.
package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	resource "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"

	"github.com/cdigen/cdigen/internal/e2e/dra"
)

// driverName is that of the driver in ResourceSlices and DeviceClasses.
const driverName = "gpu.cdigen.example"

func main() {
	if err := run(); err != nil {
		klog.ErrorS(err, "The driver ends")
		os.Exit(1)
	}
}

// run offers the devices, and serves the kubelet until the program is to end.
func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var h dra.Host
	kubeconfig := flag.String("kubeconfig", "", "file with the way to the API server; empty: that of a pod")
	node := flag.String("node-name", os.Getenv("NODE_NAME"), "name of this node")
	flag.StringVar(&h.Root, "host-root", "/", "directory with dev, proc, sys and the driver")
	flag.StringVar(&h.Probe, "probe", "", "program cdigen-nvml, which asks NVML")
	flag.StringVar(&h.Specs, "cdi-root", "/var/run/cdi", "directory for the specs of claims")
	flag.Func("planned-mig", "MIG device that need not exist yet, GPU-UUID/GI/CI=PROFILE; may be repeated", h.Plan)
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	slice, err := resources(ctx, &h)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(kubeletplugin.KubeletPluginsDir, driverName), 0o750); err != nil {
		return err
	}
	helper, err := kubeletplugin.Start(ctx, &driver{&h, stop}, kubeletplugin.DriverName(driverName), kubeletplugin.NodeName(*node), kubeletplugin.KubeClient(client))
	if err != nil {
		return err
	}
	defer helper.Stop()
	if err := helper.PublishResources(ctx, resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{*node: {Slices: slice}}}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// resources returns the devices that can be used, as the scheduler is to know them.
func resources(ctx context.Context, h *dra.Host) (list []resourceslice.Slice, err error) {
	found, err := h.Devices(ctx)
	if err != nil {
		return nil, err
	}
	var devices []resource.Device
	for _, d := range found {
		if !d.Usable {
			continue
		}
		attributes := map[resource.QualifiedName]resource.DeviceAttribute{}
		for name, value := range d.Attributes {
			attributes[resource.QualifiedName(name)] = resource.DeviceAttribute{StringValue: &value}
		}
		devices = append(devices, resource.Device{Name: d.Name, Attributes: attributes})
	}
	for part := range slices.Chunk(devices, resource.ResourceSliceMaxDevices) {
		list = append(list, resourceslice.Slice{Devices: part})
	}
	return list, nil
}

// driver is what the kubelet asks. It keeps nothing in memory: what a claim has is in its spec.
type driver struct {
	host *dra.Host
	stop func()
}

// PrepareResourceClaims implements [kubeletplugin.DRAPlugin].
func (d *driver) PrepareResourceClaims(ctx context.Context, claims []*resource.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	results := map[types.UID]kubeletplugin.PrepareResult{}
	for _, claim := range claims {
		var r kubeletplugin.PrepareResult
		var names []string
		for _, a := range claim.Status.Allocation.Devices.Results {
			if a.Driver == driverName {
				names = append(names, a.Device)
				r.Devices = append(r.Devices, kubeletplugin.Device{
					Requests: []string{a.Request}, PoolName: a.Pool, DeviceName: a.Device, CDIDeviceIDs: []string{dra.CDIID(string(claim.UID), a.Device)},
				})
			}
		}
		// A driver of dynamic MIG makes its devices here. Then or later the nodes come.
		r.Err = d.host.Publish(ctx, string(claim.UID), names)
		results[claim.UID] = r
	}
	return results, nil
}

// UnprepareResourceClaims implements [kubeletplugin.DRAPlugin].
func (d *driver) UnprepareResourceClaims(ctx context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	results := map[types.UID]error{}
	for _, claim := range claims {
		results[claim.UID] = d.host.Remove(ctx, string(claim.UID))
	}
	return results, nil
}

// HandleError implements [kubeletplugin.DRAPlugin].
func (d *driver) HandleError(ctx context.Context, err error, message string) {
	utilruntime.HandleErrorWithContext(ctx, err, message)
	if !errors.Is(err, kubeletplugin.ErrRecoverable) {
		d.stop()
	}
}
