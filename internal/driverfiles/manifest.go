package driverfiles

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
)

// MaxManifest bounds what is read of a manifest. The driver's have some hundred bytes.
const MaxManifest = 256 << 10

// ManifestLibraries returns the libraries that a manifest of EGL, Vulkan or OpenCL names: what
// it is shows in its name, and other files name none.
func ManifestLibraries(name string, data []byte) ([]string, error) {
	switch path.Ext(name) {
	case ".json":
		return jsonLibraries(data)
	case ".icd":
		return icdLibraries(data)
	}
	return nil, nil
}

// icdLibraries reads a manifest of OpenCL: the library in one line (cl_khr_icd). A relative
// path in it is relative to nothing that is known.
func icdLibraries(data []byte) ([]string, error) {
	line, _, _ := bytes.Cut(bytes.TrimSpace(data), []byte("\n"))
	library := string(bytes.TrimSpace(line))
	switch {
	case library == "":
		return nil, errors.New("it names no library")
	case !path.IsAbs(library):
		return []string{path.Base(library)}, nil
	}
	return []string{library}, nil
}

// jsonLibraries reads a manifest of Vulkan or EGL: of a driver ("ICD"), or of one or more
// layers.
func jsonLibraries(data []byte) (list []string, err error) {
	type library struct {
		Path *string `json:"library_path"`
	}
	var m struct {
		ICD    *library  `json:"ICD"`
		Layer  *library  `json:"layer"`
		Layers []library `json:"layers"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("not a manifest in JSON: %w", err)
	}
	all := m.Layers
	for _, l := range []*library{m.ICD, m.Layer} {
		if l != nil {
			all = append(all, *l)
		}
	}
	for _, l := range all {
		// A layer may be made of others and have no library.
		if l.Path != nil && *l.Path != "" && !slices.Contains(list, *l.Path) {
			list = append(list, *l.Path)
		}
	}
	if m.ICD != nil && len(list) == 0 {
		return nil, errors.New("it names no library")
	}
	return list, nil
}
