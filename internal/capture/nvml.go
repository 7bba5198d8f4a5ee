package capture

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// NVML is the answer of a probe. Without report and error the probe did not run, because
// the library was not found.
type NVML struct {
	// Report is a [nvmlprobe.Report] as it is in JSON.
	Report map[string]any `json:"report,omitempty" yaml:"report,omitempty"`
	// ErrorKind and Error are those of a [nvmlprobe.Error].
	ErrorKind nvmlprobe.ErrorKind `json:"errorKind,omitempty" yaml:"errorKind,omitempty"`
	Error     string              `json:"error,omitempty" yaml:"error,omitempty"`
}

// nvmlAnswer is what a probe returned.
type nvmlAnswer struct {
	report *nvmlprobe.Report
	err    error
}

var (
	nvmlVersion = lazyregexp.New(`^\d{1,4}(?:\.\d{1,4}){1,3}$`)
	nvmlUUID    = lazyregexp.New(`^(?:GPU|MIG)-(?:GPU-)?[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}(?:/\d{1,3}/\d{1,3})?$`)
	nvmlPCI     = lazyregexp.New(`^(?i:` + pci + `)$`)
	nvmlProfile = lazyregexp.New(`^(?:\d{1,2}c\.)?\d{1,2}g\.\d{1,4}gb(?:[+-](?:me|gfx)(?:\.all)?)*$`)
)

// or returns a text of the right form, and a question mark for another one.
func or(form *regexp.Regexp, s string) string {
	if s == "" || form.MatchString(s) {
		return s
	}
	return "?"
}

// record returns an answer as a capture has it: numbers, fields of the right form, and
// names and errors as free texts.
func (a nvmlAnswer) record(n names) (*NVML, error) {
	nvml := &NVML{}
	var failed *nvmlprobe.Error
	switch {
	case errors.As(a.err, &failed):
		nvml.ErrorKind, nvml.Error = failed.Kind, n.text(failed.Message)
	case a.err != nil:
		nvml.Error = n.text(a.err.Error())
	}
	if a.report == nil {
		return nvml, nil
	}
	r := *a.report
	r.DriverVersion, r.NVMLVersion, r.Error = or(nvmlVersion(), r.DriverVersion), or(nvmlVersion(), r.NVMLVersion), n.text(r.Error)
	r.GPUs = slices.Clone(r.GPUs)
	for i := range r.GPUs {
		g := &r.GPUs[i]
		g.UUID, g.Name, g.PCIBusID, g.Errors = n.uuid(g.UUID), n.text(g.Name), nvmlPCI().FindString(g.PCIBusID), n.all(g.Errors)
		g.MIGDevices = slices.Clone(g.MIGDevices)
		for j := range g.MIGDevices {
			m := &g.MIGDevices[j]
			m.UUID, m.Profile, m.Errors = n.uuid(m.UUID), or(nvmlProfile(), m.Profile), n.all(m.Errors)
		}
	}
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return nvml, yaml.Unmarshal(data, &nvml.Report) // JSON is YAML too
}

func (n names) uuid(s string) string {
	if s == "" || nvmlUUID().MatchString(s) {
		return n.redactor.Text(s)
	}
	return s[:min(len(s), len("GPU-"))] + n.redactor.Name(s)
}

func (n names) all(list []string) (texts []string) {
	for _, s := range list {
		texts = append(texts, n.text(s))
	}
	return texts
}

func (n *NVML) answer(context.Context, string) (report *nvmlprobe.Report, err error) {
	if n.Report != nil {
		if report, err = n.report(); err != nil {
			return nil, err
		}
	}
	switch {
	case n.ErrorKind != "":
		err = &nvmlprobe.Error{Kind: n.ErrorKind, Message: n.Error}
	case n.Error != "":
		err = errors.New(n.Error)
	case report == nil:
		err = &nvmlprobe.Error{Kind: nvmlprobe.Failed, Message: "the capture has no answer from NVML"}
	}
	return report, err
}

func (n *NVML) report() (*nvmlprobe.Report, error) {
	data, err := json.Marshal(n.Report)
	if err != nil {
		return nil, err
	}
	return nvmlprobe.Parse(data)
}
