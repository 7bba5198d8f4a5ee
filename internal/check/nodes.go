package check

import (
	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/spec"
)

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
		case f.ID == discover.NodeMissing:
			continue // made when it is needed
		default:
			f.Severity = discover.Broken
		}
		list = append(list, f)
	}
	for _, f := range s.Inventory.Findings {
		if f.ID == discover.NodesUnknown {
			f.Severity = discover.Warning
			list = append(list, f)
		}
	}
	return list
}

// namedNodes returns the host paths of the device nodes that the published spec names.
func (s *Snapshot) namedNodes() map[string]bool {
	paths := map[string]bool{}
	published, err := s.Published.Spec()
	if err != nil {
		return paths
	}
	for _, e := range spec.Parts(published) {
		for _, n := range e.DeviceNodes {
			paths[hostPath(n)] = true
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
		if !n.Usable() && !n.Withheld && (named[n.HostPath] || n.Kind == discover.GPUNode || n.Kind == discover.MIGNode) {
			return true
		}
	}
	return false
}
