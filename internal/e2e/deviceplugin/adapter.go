// Package cdi takes the place of the CDI package of NVIDIA's device plugin, of which api.go stays.
package cdi

import (
	"context"
	"errors"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	config "github.com/NVIDIA/k8s-device-plugin/api/config/v1"
	"k8s.io/klog/v2"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/nvmlreport"
	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/spec"
)

// Handler makes the specs. The zero value is for a plugin that does not use CDI.
type Handler struct {
	enabled                                  bool
	vendor, driver, hostDriver, dev, hostDev string
	look                                     discover.Options
	specs                                    []spec.Options
	additional                               []string
}

type Option func(*Handler)

func WithVendor(vendor string) Option        { return func(h *Handler) { h.vendor = vendor } }
func WithDriverRoot(dir string) Option       { return func(h *Handler) { h.driver = dir } }
func WithTargetDriverRoot(dir string) Option { return func(h *Handler) { h.hostDriver = dir } }
func WithDevRoot(dir string) Option          { return func(h *Handler) { h.dev = dir } }
func WithTargetDevRoot(dir string) Option    { return func(h *Handler) { h.hostDev = dir } }
func WithGdrcopyEnabled(on bool) Option      { return with(on, "gdrcopy", true) }
func WithGdsEnabled(on bool) Option          { return with(on, "gds", true) }
func WithMofedEnabled(on bool) Option        { return with(on, "mofed", true) }
func WithImexChannels[T any](l []T) Option   { return with(len(l) > 0, "imex-channel", false) }
func WithDeviceIDStrategy(s string) Option   { return with(true, "gpu", false, spec.NameStrategy(s)) }
func WithDeviceListStrategies(s config.DeviceListStrategies) Option {
	return func(h *Handler) { h.enabled = s.AnyCDIEnabled() }
}
func WithNvidiaCTKPath(string) Option           { return func(*Handler) {} } // there are no hooks
func WithFeatureFlags(...string) Option         { return func(*Handler) {} } // of nvcdi
func WithDeviceDiscoveryStrategy(string) Option { return func(*Handler) {} } // discover sees what the host is

// with adds a kind of devices; all of it is one of them, or not.
func with(on bool, kind string, all bool, names ...spec.NameStrategy) Option {
	return func(h *Handler) {
		if on {
			o := spec.Options{Of: spec.Kinds.Find(kind), NoAll: !all, Names: names, Edits: edits.Options{VersionedNames: true}}
			o.Of.Look(&h.look)
			h.specs = append(h.specs, o)
		}
	}
}

func NewNullHandler() *Handler { return &Handler{} }

func New(_ any, library nvml.Interface, _ any, options ...Option) (*Handler, error) {
	h := &Handler{look: discover.Options{Probe: nvmlreport.Probe(library)}}
	for _, set := range options {
		set(h)
	}
	return h, nil
}

func (h *Handler) QualifiedName(class, id string) string { return h.vendor + "/" + class + "=" + id }
func (h *Handler) AdditionalDevices() []string           { return h.additional }

func (h *Handler) CreateSpecFile() error {
	if !h.enabled {
		return nil
	}
	host := discover.Host{DriverRoot: h.driver, DriverRootOnHost: h.hostDriver, DevRoot: h.dev, DevRootOnHost: h.hostDev}
	inv, err := host.Discover(context.Background(), h.look)
	if err != nil {
		return err
	}
	for _, o := range h.specs {
		o.Vendor = h.vendor
		s, left, err := spec.New(inv, o)
		klog.InfoS("Made CDI spec", "class", o.Of.Class, "findings", append(left, inv.FindingsOf(discover.Warning)...), "error", err)
		if errors.Is(err, spec.ErrNoDevices) {
			continue
		} else if err != nil {
			return err
		}
		if _, err := spec.Publish(context.Background(), "/var/run/cdi/"+h.vendor+"-"+o.Of.Class+".json", s); err != nil {
			return err
		}
		if !o.NoAll {
			h.additional = append(h.additional, h.QualifiedName(o.Of.Class, spec.AllDevices))
		}
	}
	return nil
}
