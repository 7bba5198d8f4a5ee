package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tailscale/hujson"
)

// Annotation of a config.json that says what was injected into it and how to take it
// out again.
const Annotation = "com.github.cdigen.injected"

// Form is how a config.json is edited.
type Form string

// The forms.
const (
	// OCI is what the runtime specification says: runc, crun and so on.
	OCI Form = "oci"
	// NspawnBundle is for systemd-nspawn --oci-bundle. It refuses the usual options of
	// bind mounts and hooks of newer kinds; what is to be read-only goes into
	// linux.readonlyPaths.
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

// ParseConfig reads a config.json. What was injected before is taken out: where
// nobody else has changed the file since, it is as it was before, byte by byte, and
// where somebody has, his changes stay.
//
// Errors have the line and the column.
func ParseConfig(data []byte) (*Config, error) {
	if at := invalidUTF8(data); at >= 0 {
		return nil, fmt.Errorf("%s: not UTF-8", position(data, at))
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

// Devices that were injected.
func (c *Config) Devices() []string { return c.injected.Devices }

// Form they were injected in.
func (c *Config) Form() Form { return c.injected.Form }

// Version is the file's ociVersion.
func (c *Config) Version() string { return c.spec.Version }

// NspawnVersion is the only ociVersion that systemd-nspawn reads (oci_load in its
// sources).
const NspawnVersion = "1.0.0"

// Base is the file without any device.
func (c *Config) Base() []byte { return c.base.Pack() }

// Inject is the file with these devices and no others. leftOut is what systemd-nspawn
// has no words for.
func (c *Config) Inject(s *Source, devices []string, form Form) (data []byte, leftOut []string, err error) {
	contents, err := s.Contents(devices)
	if err != nil {
		return nil, nil, err
	}
	if err := contents.mountsPresent(); err != nil {
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
		spec.Hooks, spec.Linux.IntelRdt, spec.Linux.NetDevices = c.spec.Hooks, c.spec.Linux.IntelRdt, c.spec.Linux.NetDevices
		leftOut = slices.Concat(contents.Hooks, contents.Others)
		forNspawn(spec, c.spec.Mounts)
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
	e := editor{root: &root, style: styleOf(&root), record: record{Devices: devices, Form: form, Leaves: map[string]change{}}}
	for _, leaf := range leaves {
		e.edit(leaf, before.Find(leaf), after.Find(leaf))
	}
	e.annotate()
	return root.Pack(), leftOut, nil
}

// forNspawn puts the mounts that an injection has added into words that
// systemd-nspawn knows (oci_mounts and mount_bind in its sources): "rbind", "norbind"
// and "idmap" are all its options for bind mounts.
func forNspawn(spec *oci.Spec, before []oci.Mount) {
	known := map[string]int{}
	for _, m := range before {
		known[text(m)]++
	}
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if key := text(*m); known[key] > 0 {
			known[key]--
			continue
		}
		if !isBind(*m) {
			continue
		}
		var options []string
		for _, o := range m.Options {
			switch o {
			case "rbind", "norbind", "idmap", "noidmap":
				options = append(options, o)
			case "bind":
				options = append(options, "norbind")
			case "ridmap":
				options = append(options, "idmap")
			case "ro":
				if !slices.Contains(spec.Linux.ReadonlyPaths, m.Destination) {
					spec.Linux.ReadonlyPaths = append(spec.Linux.ReadonlyPaths, m.Destination)
				}
			}
		}
		m.Type, m.Options = "bind", options
	}
}

// decode reads what the runtime specification knows of a config.json.
func decode(data []byte) (*oci.Spec, error) {
	var spec oci.Spec
	err := json.Unmarshal(data, &spec)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		return nil, fmt.Errorf("%s: %w", position(data, int(syntax.Offset)-1), err)
	}
	if kind := (*json.UnmarshalTypeError)(nil); errors.As(err, &kind) {
		what := kind.Field
		if what == "" {
			what = "all of it"
		}
		return nil, fmt.Errorf("%s: %s is of JSON type %s, which it must not be", position(data, int(kind.Offset)-1), what, kind.Value)
	}
	if err != nil {
		return nil, err
	}
	return &spec, nil
}

// invalidUTF8 is where a text stops being UTF-8, which JSON has to be; negative: nowhere.
func invalidUTF8(data []byte) int {
	for at := 0; at < len(data); {
		r, n := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && n == 1 {
			return at
		}
		at += n
	}
	return -1
}

// position is a place in a text in words.
func position(data []byte, at int) string {
	at = max(0, min(at, len(data)))
	line := bytes.Count(data[:at], []byte("\n")) + 1
	column := at - bytes.LastIndexByte(data[:at], '\n')
	return fmt.Sprintf("line %d, column %d", line, column)
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
					return fmt.Errorf("%s: %q: there must be one %q and none in other capitals", position(data, m.Name.StartOffset), got, name)
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

// tree is a value as JSON text, parsed.
func tree(v any) (hujson.Value, error) { return hujson.Parse([]byte(text(v))) }

// text is a value as JSON on one line, without the escapes that only browsers need.
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
