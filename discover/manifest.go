package discover

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// manifest looks into a file by which a loader finds a library of the driver. A manifest
// that names one without a directory needs no more than what the loader searches. One that
// names a path leads nowhere unless the container has that path too, so that it becomes one
// more mount; or a finding says that containers do not have it.
func (s *fileSet) manifest(file foundFile, mounted File) {
	if ext := path.Ext(file.name); ext != ".json" && ext != ".icd" {
		return
	}
	data, err := file.tree.ReadAtMost(file.real, driverfiles.MaxManifest)
	var paths []string
	if err == nil {
		paths, err = driverfiles.ManifestLibraries(file.name, data)
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
	if err != nil && path.IsAbs(named) && s.host.Root.Known() {
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
	f := File{Kind: driverfiles.Named, HostPath: hostPath, Targets: targets, Capabilities: mounted.Capabilities}
	if !slices.ContainsFunc(s.inv.Files, func(other File) bool {
		return other.Kind == driverfiles.Named && other.HostPath == f.HostPath && slices.Equal(other.Targets, f.Targets) && slices.Equal(other.Capabilities, f.Capabilities)
	}) {
		s.inv.Files = append(s.inv.Files, f)
	}
	return nil
}

// library returns the library of the driver that programs load by a name; nil: there is none.
func (s *fileSet) library(name string, capabilities []driverfiles.Capability) *Library {
	bits32 := slices.Contains(capabilities, driverfiles.Compat32)
	i := slices.IndexFunc(s.inv.Libraries, func(l Library) bool {
		return l.Bits32() == bits32 && (l.SONAME == name || l.Name == name)
	})
	if i < 0 {
		return nil
	}
	return &s.inv.Libraries[i]
}

// usable returns why containers are not given a library that a manifest names.
func (s *fileSet) usable(tree hosttree.Tree, name, real string, capabilities []driverfiles.Capability) error {
	if why := driverfiles.Foreign(name, real); why != "" {
		return errors.New(why)
	}
	version, ok := driverfiles.Version(path.Base(real))
	switch {
	case !ok:
		return errors.New("it is not a library of the driver by its name")
	case version != "" && version != s.inv.Driver.Version:
		return fmt.Errorf("it is of driver %s", version)
	}
	if err := tree.Check(name); err != nil {
		return err
	}
	info, err := tree.ELF(real)
	want := s.host.Arch
	if slices.Contains(capabilities, driverfiles.Compat32) {
		want = "386"
	}
	if err == nil && info.Arch != want {
		return fmt.Errorf("it is a library for %s, not %s", info.Arch, want)
	}
	return err
}
