package check

import (
	"slices"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/specdir"
)

// discovered returns the findings of discovery with one of the IDs.
func (s *Snapshot) discovered(ids ...discover.ID) (list []discover.Finding) {
	for _, f := range s.Inventory.Findings {
		if slices.Contains(ids, f.ID) {
			list = append(list, f)
		}
	}
	return list
}

// discoveredOf returns the findings of discovery about a subject with one of the IDs.
func (s *Snapshot) discoveredOf(subject string, ids ...discover.ID) []discover.Finding {
	return slices.DeleteFunc(s.discovered(ids...), func(f discover.Finding) bool { return f.Subject != subject })
}

// driver looks at the kernel module and at the user-space driver that goes with it.
// Without them there is no use in looking at what depends on them: unusable.
func driver(s *Snapshot) (list []discover.Finding, unusable bool) {
	if len(s.discovered(discover.DriverNotLoaded, discover.DriverUnreadable)) > 0 {
		return s.discovered(discover.DriverNotLoaded, discover.DriverUnreadable, discover.GPUOtherDriver), true
	}
	if list = s.discovered(discover.PlatformFilesMissing); len(list) > 0 || hasCUDA(s.Inventory) {
		return list, len(list) > 0
	}
	switch below := s.Host.Driver.Path; {
	case s.System.DriverRootMissing:
		list = append(list, found(DriverRootMissing, discover.Broken, below, "does not exist: the driver's libraries should be below it"))
	case s.System.OtherDriverRoot != "":
		list = append(list, found(DriverRoot, discover.Broken, s.System.OtherDriverRoot, "has the libraries of driver %s, which are not below %s", s.Inventory.Driver.Version, below))
	default:
		if list = s.discovered(discover.LibraryUntrusted); list == nil {
			list = append(list, s.Inventory.LibrariesMissing(s.Host))
		}
	}
	return list, true
}

func hasCUDA(inv *discover.Inventory) bool {
	return slices.ContainsFunc(inv.Libraries, func(l discover.Library) bool { return l.SONAME == "libcuda.so.1" })
}

// gpus returns the findings about GPUs that NVIDIA's driver does not have, beside those that
// it has; the notes as well.
func gpus(s *Snapshot) []discover.Finding {
	return s.discovered(discover.GPUUnbound, discover.GPUUnlisted, discover.GPUOtherDriver, discover.GPUPassthrough)
}

// nodes looks at the device nodes that the driver should have.
func nodes(s *Snapshot) (list []discover.Finding) {
	named := s.namedNodes()
	for i := range s.Inventory.Nodes {
		n := &s.Inventory.Nodes[i]
		f, wrong := n.Finding()
		switch {
		case !wrong:
			continue
		case f.ID == discover.NodeMode:
			// Users other than root matter; groups are the administrator's choice.
			if (n.Have.Mode^n.Want.Mode)&0o006 == 0 || n.Kind == discover.SwitchNode || n.Unmanaged {
				continue
			}
		case named[n.HostPath]:
			f.Severity = discover.Broken // no container starts
		case n.Kind == discover.ControlNode && f.Severity == discover.Note:
			f.Severity = discover.Warning
		case n.Kind == discover.GPUNode || n.Kind == discover.MIGNode || n.Kind == discover.ControlNode:
		case n.Kind == discover.StorageNode || n.Kind == discover.CopyNode:
			f.Severity = discover.Warning
		case f.ID == discover.NodeMissing:
			continue // made when it is needed
		default:
			f.Severity = discover.Broken
		}
		list = append(list, f)
	}
	for _, f := range s.discovered(discover.NodesUnknown) {
		f.Severity = discover.Warning
		list = append(list, f)
	}
	return list
}

// namedNodes returns the host paths of the device nodes that the published specs name.
func (s *Snapshot) namedNodes() map[string]bool {
	paths := map[string]bool{}
	for _, one := range s.each() {
		published, err := one.Published.Spec()
		if err != nil {
			continue
		}
		for _, e := range specdir.Parts(published) {
			for _, n := range e.DeviceNodes {
				paths[hostPath(n)] = true
			}
		}
	}
	return paths
}

// nodesWrong reports whether a GPU may be left out of the spec for want of its nodes: what
// would be published now is not what should be then.
func (s *Snapshot) nodesWrong() bool {
	named := s.namedNodes()
	for i := range s.Inventory.Nodes {
		n := &s.Inventory.Nodes[i]
		if !n.Usable() && !n.Withheld && (named[n.HostPath] || s.ofGPUs() && (n.Kind == discover.GPUNode || n.Kind == discover.MIGNode)) {
			return true
		}
	}
	return false
}
