package spectext

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/limits"
)

// Format of a spec's file.
type Format string

// The formats that CDI knows.
const (
	YAML Format = "yaml"
	JSON Format = "json"
)

// Text is the text of a valid spec, as [Encode] and [Validate] return it, and what package specfile
// writes. The zero value is that of none.
type Text struct{ data []byte }

// Bytes returns the text; nil: there is none. They must not be changed.
func (t Text) Bytes() []byte { return t.data }

// Equal reports whether two texts are the same.
func (t Text) Equal(other Text) bool { return bytes.Equal(t.data, other.data) }

// Encode checks a spec as engines do and writes it. The bytes depend on nothing but the spec.
func Encode(s *specs.Spec, f Format) (Text, error) {
	var data []byte
	var err error
	switch f {
	case YAML:
		if text, ok := yamlOf(s); ok {
			return checked(text, validate(s))
		}
		var b bytes.Buffer
		e := yaml.NewEncoder(&b)
		e.SetIndent(2)
		err = errors.Join(e.Encode(s), e.Close())
		data = b.Bytes()
	case JSON:
		data, err = json.MarshalIndent(s, "", "  ")
		data = append(data, '\n')
	default:
		err = fmt.Errorf("unknown format %q: use yaml or json", f)
	}
	if err != nil {
		return Text{}, err
	}
	// There are texts that the library writes and does not read.
	return Validate(data)
}

// checked returns a text unless it was found to be invalid.
func checked(data []byte, err error) (Text, error) {
	if err != nil {
		return Text{}, fmt.Errorf("the spec is not valid: %w", err)
	}
	return Text{data}, nil
}

// Parse reads the bytes of a spec, YAML or JSON, and checks them as engines do, with the
// CDI library. The format is the one they are in.
func Parse(data []byte) (*specs.Spec, Format, error) {
	if err := limits.YAML(data); err != nil {
		return nil, "", err
	}
	s, err := cdi.ParseSpec(data)
	switch {
	case errors.Is(err, io.EOF) || err == nil && s == nil:
		return nil, "", errors.New("there is no spec in it")
	case err != nil:
		return nil, "", Short(err)
	}
	if err := validate(s); err != nil {
		return nil, "", err
	}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return s, JSON, nil
	}
	return s, YAML, nil
}

// Validate checks the text of a spec as engines do, with the CDI library.
func Validate(data []byte) (Text, error) {
	s, err := cdi.ParseSpec(data)
	switch {
	case err != nil:
	case s == nil:
		err = errors.New("there is nothing in it")
	default:
		err = validate(s)
	}
	return checked(data, err)
}

// validate checks a spec by the rules of the CDI library, which has them in one function for
// files alone (ReadSpec). A test compares the two.
func validate(s *specs.Spec) error {
	vendor, class := parser.ParseQualifier(s.Kind)
	err := cmp.Or(specs.ValidateVersion(s), parser.ValidateVendorName(vendor), parser.ValidateClassName(class), ValidateEdits(&s.ContainerEdits), Duplicates(s.Devices))
	if err == nil && len(s.Devices) == 0 {
		err = errors.New("it has no devices")
	}
	for i := range s.Devices {
		d := &s.Devices[i]
		switch {
		case err != nil:
			return err
		case !hasFields(&d.ContainerEdits):
			return fmt.Errorf("device %q has no edits", d.Name)
		}
		if err = cmp.Or(parser.ValidateDeviceName(d.Name), ValidateEdits(&d.ContainerEdits)); err != nil {
			err = fmt.Errorf("device %q: %w", d.Name, err)
		}
	}
	return err
}

// Short is an error of the CDI library in one line of a length that can be read. It has
// a line for each field that it does not know.
func Short(err error) error {
	const enough = 1000
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > enough {
		text = strings.ToValidUTF8(text[:enough], "") + " …"
	}
	return errors.New(text)
}

// Duplicates returns an error for two devices of one name.
func Duplicates(list []specs.Device) error {
	seen := map[string]bool{}
	for _, d := range list {
		if seen[d.Name] {
			return fmt.Errorf("two devices are called %q", d.Name)
		}
		seen[d.Name] = true
	}
	return nil
}

// ValidateEdits checks edits as engines do.
func ValidateEdits(e *specs.ContainerEdits) error {
	return (&cdi.ContainerEdits{ContainerEdits: e}).Validate()
}
