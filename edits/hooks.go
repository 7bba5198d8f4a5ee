package edits

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hook"
)

// Hooks say which hooks a spec has; the zero value is none.
type Hooks struct {
	// Steps are what is done to a container, in an order of their own: "ldcache",
	// "symlinks", "cuda-compat", "device-params" (docs/hook.md). Empty: there is no hook.
	Steps []string
	// Path of the program, for the container engine.
	Path string
	// Flavor of its arguments; empty: [FlavorCdigen].
	Flavor string
	// Strict: a container does not start when one of the steps fails.
	Strict bool
}

// The flavors of hooks.
const (
	// FlavorCdigen is one call for all steps.
	FlavorCdigen = "cdigen"
	// FlavorNVIDIA is a call for each step, with the names and flags of
	// nvidia-cdi-hook.
	FlavorNVIDIA = "nvidia"
)

// hookTimeout in seconds is when a runtime ends a hook. cdigen-hook itself gives up
// before.
const hookTimeout = 10

// check returns the first thing wrong with the hooks.
func (h *Hooks) check() error {
	for _, step := range h.Steps {
		if !slices.Contains(hook.Steps, hook.Step(step)) {
			return fmt.Errorf("unknown step %q of the hook", step)
		}
	}
	switch {
	case h.Flavor != "" && h.Flavor != FlavorCdigen && h.Flavor != FlavorNVIDIA:
		return fmt.Errorf("unknown flavor %q of hooks: use %s or %s", h.Flavor, FlavorCdigen, FlavorNVIDIA)
	case len(h.Steps) > 0 && !path.IsAbs(h.Path):
		return fmt.Errorf("path %q of the hook: use an absolute path", h.Path)
	}
	return nil
}

// has says whether a step is asked for.
func (h *Hooks) has(s hook.Step) bool { return slices.Contains(h.Steps, string(s)) }

// steps returns those asked for, in the order in which they are done.
func (h *Hooks) steps() []hook.Step {
	return slices.DeleteFunc(slices.Clone(hook.Steps), func(s hook.Step) bool { return !h.has(s) })
}

// nodeLinks says whether names of device nodes are links, which the hook makes in
// containers that have the node. nvidia-cdi-hook would make them in all.
func (h *Hooks) nodeLinks() bool { return h.has(hook.Symlinks) && h.Flavor != FlavorNVIDIA }

// hooks are those that every container gets, whatever devices it asks for.
func hooks(inv *discover.Inventory, o *Options) []*specs.Hook {
	if len(o.Hooks.Steps) == 0 {
		return nil
	}
	links := libraryLinks(inv, o)
	if o.Hooks.Flavor == FlavorNVIDIA {
		return nvidiaHooks(inv, o, links)
	}
	if o.Hooks.nodeLinks() {
		links = append(links, nodeLinks(inv, o)...)
	}
	var steps []string
	for _, s := range o.Hooks.steps() {
		steps = append(steps, string(s))
	}
	args := []string{hook.Apply, "--steps=" + strings.Join(steps, ",")}
	if o.Hooks.Strict {
		args = append(args, "--strict")
	}
	if o.Hooks.has(hook.CUDACompat) {
		args = append(args, compatArgs(inv)...)
	}
	if o.Hooks.has(hook.LDCache) {
		for _, p := range searchedLibraries(inv, o) {
			args = append(args, "--library="+p)
		}
	}
	for _, l := range links {
		args = append(args, "--link="+l.Target+"::"+l.Path)
	}
	return []*specs.Hook{o.Hooks.call(args)}
}

// nvidiaHooks are a call for each step.
func nvidiaHooks(inv *discover.Inventory, o *Options, links []hook.Link) (list []*specs.Hook) {
	for _, step := range o.Hooks.steps() {
		switch step {
		case hook.Symlinks:
			args := []string{hook.CreateSymlinks}
			for _, l := range links {
				args = append(args, "--link", l.Target+"::"+l.Path)
			}
			if len(links) > 0 {
				list = append(list, o.Hooks.call(args))
			}
		case hook.CUDACompat:
			if args := compatArgs(inv); len(args) > 0 {
				list = append(list, o.Hooks.call(append([]string{hook.EnableCompat}, args...)))
			}
		case hook.LDCache:
			args := []string{hook.UpdateLDCache}
			for _, p := range searchedLibraries(inv, o) {
				if dir := path.Dir(p); !slices.Contains(args, dir) {
					args = append(args, "--folder", dir)
				}
			}
			if len(args) > 1 {
				list = append(list, o.Hooks.call(args))
			}
		case hook.DeviceParams:
			list = append(list, o.Hooks.call([]string{hook.DisableModify}))
		}
	}
	return list
}

// call is a hook that runs the program.
func (h *Hooks) call(args []string) *specs.Hook {
	timeout := hookTimeout
	return &specs.Hook{
		HookName: "createContainer",
		Path:     h.Path,
		Args:     append([]string{path.Base(h.Path)}, args...),
		// Never empty: some runtimes then give the hook the image's environment.
		Env:     []string{"LC_ALL=C"},
		Timeout: &timeout,
	}
}

// compatArgs tell which driver the host has.
func compatArgs(inv *discover.Inventory) (args []string) {
	if v := inv.Driver.Version; v != "" {
		args = append(args, "--host-driver-version="+v)
	}
	if v := inv.Driver.CUDAVersion; v != "" {
		args = append(args, "--host-cuda-version="+v)
	}
	return args
}

// searchedLibraries are the paths in a container that a loader looks libraries up
// by: the SONAMEs in the layout's directories themselves.
func searchedLibraries(inv *discover.Inventory, o *Options) (paths []string) {
	eachLibrary(inv, o, func(lib *discover.Library, dirs []string) {
		if lib.Dir != "" {
			return
		}
		for _, dir := range dirs {
			if p := path.Join(dir, libraryNames(lib, false)[0]); !slices.Contains(paths, p) {
				paths = append(paths, p)
			}
		}
	})
	return paths
}

// libraryLinks are the file names of libraries, "libcuda.so.550.54.15", as links to
// their SONAMEs, unless they are mounted too.
func libraryLinks(inv *discover.Inventory, o *Options) (links []hook.Link) {
	if !o.Hooks.has(hook.Symlinks) || o.VersionedNames {
		return nil
	}
	seen := map[string]bool{}
	eachLibrary(inv, o, func(lib *discover.Library, dirs []string) {
		mounted := libraryNames(lib, false)
		for _, name := range libraryNames(lib, true)[len(mounted):] {
			for _, dir := range dirs {
				if p := path.Join(dir, name); !seen[p] {
					seen[p] = true
					links = append(links, hook.Link{Target: path.Base(mounted[0]), Path: p})
				}
			}
		}
	})
	return links
}

// nodeLinks are the names of DRM nodes by PCI address as links to the nodes.
func nodeLinks(inv *discover.Inventory, o *Options) (links []hook.Link) {
	if !o.wants(driverfiles.OfDRM...) {
		return nil
	}
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		for _, n := range g.DRM {
			if real := nodeOf(g, n); real != "" {
				links = append(links, hook.Link{Target: "../" + path.Base(real), Path: n.Path})
			}
		}
	}
	return links
}

// nodeOf is the node that a name by PCI address stands for; empty for a node itself.
func nodeOf(g *discover.GPU, n discover.Node) string {
	if path.Base(path.Dir(n.Path)) != "by-path" {
		return ""
	}
	for _, real := range g.DRM {
		if real.Path != n.Path && real.HostPath == n.HostPath {
			return real.Path
		}
	}
	return ""
}
