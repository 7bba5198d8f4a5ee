package discover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// MaxManifest bounds what is read of a manifest. The driver's have some hundred bytes.
const MaxManifest = 256 << 10

// manifest looks into a file by which a loader finds a library of the driver. A manifest
// that names one without a directory needs no more than what the loader searches. One that
// names a path leads nowhere unless the container has that path too, so that it becomes one
// more mount; or a finding says that containers do not have it.
func (s *fileSet) manifest(file foundFile, mounted File) {
	if ext := path.Ext(file.name); ext != ".json" && ext != ".icd" {
		return
	}
	data, err := file.tree.readFile(file.real, MaxManifest)
	var paths []string
	if err == nil {
		paths, err = ManifestLibraries(file.name, data)
	}
	if err != nil {
		s.inv.find(ManifestUnreadable, Warning, file.hostPath(), "%v: programs may not find the driver by it", cause(err))
		return
	}
	for _, p := range paths {
		if !strings.Contains(p, "/") {
			continue
		}
		if err := s.named(file, mounted, p); err != nil {
			s.inv.find(ManifestLibraryMissing, Warning, file.hostPath(), "names %s, which containers do not have: %v", p, cause(err))
		}
	}
}

// named adds the library that a manifest names by a path. One that is not absolute is
// relative to the manifest (the loaders of Vulkan and EGL read it so), on the host to its
// place there, and in the container to its place there.
func (s *fileSet) named(file foundFile, mounted File, named string) error {
	name := named
	targets := []string{path.Clean(named)}
	if !path.IsAbs(named) {
		name = path.Join(path.Dir(file.name), named)
		targets = nil
		for _, t := range mounted.Targets {
			targets = append(targets, path.Join(path.Dir(t), named))
		}
	}
	// What the manifest says is true in the driver root; on a host whose driver root has
	// nothing but the driver it may be a path of the host.
	tree := s.host.Driver
	real, err := tree.Resolve(name)
	if err != nil && path.IsAbs(named) && s.host.Root.known() {
		tree = s.host.Root
		real, err = tree.Resolve(name)
	}
	var hostPath string
	switch lib := s.library(path.Base(name), mounted.Capabilities); {
	case err == nil:
		if err := s.usable(tree, name, real, mounted.Capabilities); err != nil {
			return err
		}
		hostPath = tree.HostPath(real)
	case path.IsAbs(named) && lib != nil: // a manifest made for another distribution
		hostPath = lib.HostPath
	default:
		return err
	}
	f := File{Kind: Named, HostPath: hostPath, Targets: targets, Capabilities: mounted.Capabilities}
	if !slices.ContainsFunc(s.inv.Files, func(other File) bool {
		return other.Kind == Named && other.HostPath == f.HostPath && slices.Equal(other.Targets, f.Targets) && slices.Equal(other.Capabilities, f.Capabilities)
	}) {
		s.inv.Files = append(s.inv.Files, f)
	}
	return nil
}

// library returns the library of the driver that programs load by a name; nil: there is none.
func (s *fileSet) library(name string, capabilities []Capability) *Library {
	bits32 := slices.Contains(capabilities, Compat32)
	i := slices.IndexFunc(s.inv.Libraries, func(l Library) bool {
		return l.Bits32() == bits32 && (l.SONAME == name || l.Name == name)
	})
	if i < 0 {
		return nil
	}
	return &s.inv.Libraries[i]
}

// usable returns why containers are not given a library that a manifest names.
func (s *fileSet) usable(tree Tree, name, real string, capabilities []Capability) error {
	if why := foreign(name, real); why != "" {
		return errors.New(why)
	}
	version, ok := DriverLibrary(path.Base(real))
	switch {
	case !ok:
		return errors.New("it is not a library of the driver by its name")
	case version != "" && version != s.inv.Driver.Version:
		return fmt.Errorf("it is of driver %s", version)
	}
	if err := tree.check(name); err != nil {
		return err
	}
	info, err := tree.ELF(real)
	want := s.host.Arch
	if slices.Contains(capabilities, Compat32) {
		want = "386"
	}
	if err == nil && info.Arch != want {
		return fmt.Errorf("it is a library for %s, not %s", info.Arch, want)
	}
	return err
}

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
