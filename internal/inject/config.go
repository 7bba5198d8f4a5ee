package inject

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tailscale/hujson"

	"github.com/cdigen/cdigen/internal/configedit"
)

// Annotation is the key of the annotation in a config.json that records what was injected
// and how to remove it.
const Annotation = "com.github.cdigen.injected"

// Form is how a config.json is edited.
type Form string

// The forms.
const (
	// OCI is that of the runtime specification: runc, crun and so on.
	OCI Form = "oci"
	// NspawnBundle is for systemd-nspawn --oci-bundle. It refuses the usual options of
	// bind mounts, which therefore take two steps, and hooks of newer kinds, and makes
	// nodes in /dev itself only: those below are bound.
	NspawnBundle Form = "oci-nspawn"
)

// Config is the config.json of an OCI bundle, with what was injected taken out.
//
// Only the parts that CDI has to do with are ever written; all others, whether the
// runtime specification knows them or not, stay as they are, byte by byte.
type Config struct {
	base     hujson.Value
	spec     *oci.Spec
	injected record
}

// ParseConfig reads a config.json and takes out what was injected before. A file that only
// cdigen has changed is then as it was before, byte by byte; changes of others stay.
//
// Errors have the line and the column.
func ParseConfig(data []byte) (*Config, error) {
	if _, err := configedit.ParseJSON(data); err != nil {
		return nil, err
	}
	if _, err := decode(data); err != nil {
		return nil, err
	}
	root, err := hujson.Parse(data)
	if err != nil {
		return nil, err
	}
	if err := checkSpelling(data, &root); err != nil {
		return nil, err
	}
	c := &Config{base: root}
	if v := root.Find("/annotations/" + Annotation); v != nil {
		if err := c.injected.parse(literal(v)); err != nil {
			return nil, fmt.Errorf("annotation %s is not what cdigen has written: %w", Annotation, err)
		}
		c.injected.undo(&c.base)
	}
	for _, section := range []string{"linux", "process"} {
		if v := c.base.Find("/" + section); v == nil || v.Value.Kind() != '{' {
			return nil, fmt.Errorf("it has no section %q: it is not for a Linux container", section)
		}
	}
	c.spec, err = decode(c.base.Pack())
	return c, err
}

// Devices returns the devices that were injected.
func (c *Config) Devices() []string { return c.injected.Devices }

// Form returns the form that they were injected in.
func (c *Config) Form() Form { return c.injected.Form }

// Base returns the file without any device.
func (c *Config) Base() []byte { return c.base.Pack() }

// Inject returns the file with these devices and no others.
func (c *Config) Inject(s Source, devices []string, form Form) (data []byte, notes []string, err error) {
	contents, err := s.Contents(devices)
	if err != nil {
		return nil, nil, err
	}
	present := contents.mountsPresent
	if form == NspawnBundle {
		present = contents.present
	}
	if err := present(); err != nil {
		return nil, nil, err
	}
	// The library edits in place.
	spec, err := decode(c.base.Pack())
	if err != nil {
		return nil, nil, err
	}
	if err := s.apply(spec, devices); err != nil {
		return nil, nil, err
	}
	if form == NspawnBundle {
		notes = c.forNspawn(spec, contents)
	}
	before, err := tree(c.spec)
	if err != nil {
		return nil, nil, err
	}
	after, err := tree(spec)
	if err != nil {
		return nil, nil, err
	}
	root := c.base.Clone()
	e := editor{root: &root, Layout: configedit.LayoutOf(&root), record: record{Devices: devices, Form: form, Leaves: map[string]leafChange{}}}
	for _, leaf := range leaves {
		e.edit(leaf, before.Find(leaf), after.Find(leaf))
	}
	e.annotate()
	return root.Pack(), notes, nil
}

// forNspawn translates what was injected for systemd-nspawn (oci_mounts and oci_hooks in its
// sources).
func (c *Config) forNspawn(spec *oci.Spec, contents *Contents) (notes []string) {
	spec.Hooks, spec.Linux.IntelRdt, spec.Linux.NetDevices = c.spec.Hooks, c.spec.Linux.IntelRdt, c.spec.Linux.NetDevices
	notes = leftOut(contents.Hooks, contents.Others)
	if c.spec.Version != nspawnVersion {
		notes = append(notes, fmt.Sprintf("systemd-nspawn reads ociVersion %s only; this is %q", nspawnVersion, c.spec.Version))
	}

	known := map[string]int{}
	for _, m := range c.spec.Mounts {
		known[text(m)]++
	}
	var mounts []oci.Mount
	for _, m := range spec.Mounts {
		if key := text(m); known[key] > 0 {
			known[key]--
		} else if isBind(m) {
			mounts = append(mounts, nspawnBind(m)...)
			continue
		}
		mounts = append(mounts, m)
	}
	spec.Mounts = mounts

	// It makes no directories for the nodes that it makes.
	var outside []string
	for _, n := range contents.Nodes {
		if path.Dir(path.Clean(n.Path)) == "/dev" {
			continue
		}
		source, inDev := n.inDev()
		if !inDev {
			outside = append(outside, source)
		}
		spec.Linux.Devices = slices.DeleteFunc(spec.Linux.Devices, func(d oci.LinuxDevice) bool { return d.Path == n.Path })
		spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m oci.Mount) bool { return m.Destination == n.Path })
		spec.Mounts = append(spec.Mounts, oci.Mount{Type: "bind", Source: source, Destination: n.Path})
	}
	return append(notes, outsideDev(outside)...)
}

// nspawnVersion is the one ociVersion that systemd-nspawn reads (oci_load).
const nspawnVersion = "1.0.0"

// nspawnBind returns a bind mount for systemd-nspawn: with other options than these
// (parse_mount_bind_options) it refuses to start. All others are given by a second
// mount that is none of type "bind", of which it hands all options to the kernel, and
// which it makes after those of that type (custom_mount_compare).
func nspawnBind(m oci.Mount) []oci.Mount {
	bind, again := oci.Mount{Type: "bind", Source: m.Source, Destination: m.Destination}, m
	again.Type, again.Options = "none", []string{"bind", "remount"}
	for _, o := range m.Options {
		switch o {
		case "rbind", "norbind", "idmap", "noidmap":
			bind.Options = append(bind.Options, o)
		case "bind":
			bind.Options = append(bind.Options, "norbind")
		case "ridmap":
			bind.Options = append(bind.Options, "idmap")
		case "ro", "nosuid", "nodev", "noexec":
			again.Options = append(again.Options, o)
		}
	}
	if len(again.Options) == 2 {
		return []oci.Mount{bind}
	}
	return []oci.Mount{bind, again}
}

// decode reads what the runtime specification knows of a config.json.
func decode(data []byte) (*oci.Spec, error) {
	var spec oci.Spec
	err := json.Unmarshal(data, &spec)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		return nil, configedit.ErrorAt(data, int(syntax.Offset)-1, "%v", err)
	}
	if kind := (*json.UnmarshalTypeError)(nil); errors.As(err, &kind) {
		return nil, configedit.ErrorAt(data, int(kind.Offset)-1, "%s must not be of JSON type %s", cmp.Or(kind.Field, "all of it"), kind.Value)
	}
	if err != nil {
		return nil, err
	}
	return &spec, nil
}

// checkSpelling refuses what two readers may understand differently: Go's takes a
// member whose name has other capitals too, and the last of two.
func checkSpelling(data []byte, root *hujson.Value) error {
	for _, leaf := range append([]string{"/annotations/" + Annotation}, leaves...) {
		at := root
		for name := range strings.SplitSeq(leaf[1:], "/") {
			object, ok := at.Value.(*hujson.Object)
			if !ok {
				break
			}
			at = nil
			for i := range object.Members {
				m := &object.Members[i]
				switch got := m.Name.Value.(hujson.Literal).String(); {
				case !strings.EqualFold(got, name):
				case got != name || at != nil:
					return configedit.ErrorAt(data, m.Name.StartOffset, "%q: there must be one %q and none in other capitals", got, name)
				default:
					at = &m.Value
				}
			}
			if at == nil {
				break
			}
		}
	}
	return nil
}

// tree returns a value as parsed JSON text.
func tree(v any) (hujson.Value, error) { return hujson.Parse([]byte(text(v))) }

// text returns a value as JSON on one line, without the escapes that only browsers need.
func text(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		// Values that were made by decoding JSON can be encoded.
		panic(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
