package hook

import (
	"fmt"
	"slices"
	"strings"
)

// Apply is the name of the call that does several steps at once.
const Apply = "apply"

// Names of calls that do one step, with the flags of nvidia-cdi-hook.
const (
	CreateSymlinks = "create-symlinks"
	UpdateLDCache  = "update-ldcache"
	EnableCompat   = "enable-cuda-compat"
	DisableModify  = "disable-device-node-modification"
)

// calls are the steps of each call; those of [Apply] are in its flag --steps.
var calls = map[string][]Step{
	Apply:          nil,
	CreateSymlinks: {Symlinks},
	UpdateLDCache:  {LDCache},
	EnableCompat:   {CUDACompat},
	DisableModify:  {DeviceParams},
	"noop":         nil,
}

// Parse reads the arguments of a call, without the program's name: that of the
// call, and flags as --flag value or --flag=value. A call, flag or step that is
// unknown is told in warnings, and what is known is done: a spec may be newer than
// the hook.
func Parse(args []string) (q *Request, warnings []string) {
	warn := func(format string, a ...any) { warnings = append(warnings, fmt.Sprintf(format, a...)) }
	if len(args) > 1 && args[0] == "hook" { // as in "nvidia-ctk hook update-ldcache"
		args = args[1:]
	}
	if len(args) == 0 {
		return &Request{}, []string{"no hook named: nothing done"}
	}
	call, args := args[0], args[1:]
	steps, ok := calls[call]
	if !ok {
		return &Request{}, []string{fmt.Sprintf("unknown hook %q: nothing done", call)}
	}
	q = &Request{Steps: slices.Clone(steps)}
	flags := q.flags(call, warn)
	for len(args) > 0 {
		name, value, inline := strings.Cut(args[0], "=")
		args = args[1:]
		set, known := flags[name]
		hasNext := len(args) > 0
		switch {
		case !strings.HasPrefix(name, "--"):
			warn("unknown argument %q: ignored", name)
		case !known:
			// What follows an unknown flag is its value, unless it is a flag itself.
			if !inline && hasNext && !strings.HasPrefix(args[0], "-") {
				args = args[1:]
			}
			warn("unknown flag %s: ignored", name)
		case set == nil: // --strict
			q.Strict = value != "false"
		case inline:
			set(value)
		case !hasNext:
			warn("flag %s has no value: ignored", name)
		default:
			set(args[0])
			args = args[1:]
		}
	}
	return q, warnings
}

// flags are what each flag of a call does; nil for the one without a value.
func (q *Request) flags(call string, warn func(string, ...any)) map[string]func(string) {
	all := map[string]func(string){
		"--steps": func(v string) {
			for name := range strings.SplitSeq(v, ",") {
				if !slices.Contains(Steps, Step(name)) {
					warn("unknown step %q: left out", name)
					continue
				}
				q.Steps = append(q.Steps, Step(name))
			}
		},
		"--library":                    func(v string) { q.Libraries = append(q.Libraries, v) },
		"--folder":                     func(v string) { q.Folders = append(q.Folders, v) },
		"--ldconfig-path":              func(string) {}, // no ldconfig is run
		"--host-driver-version":        func(v string) { q.Compat.Driver = v },
		"--host-cuda-version":          func(v string) { q.Compat.CUDA = v },
		"--cuda-compat-container-root": func(v string) { q.Compat.Dir = v },
		"--link": func(v string) {
			target, name, ok := strings.Cut(v, "::")
			if !ok {
				warn("--link %q: want target::path: ignored", v)
				return
			}
			q.Links = append(q.Links, Link{Target: target, Path: name, Always: call != Apply})
		},
		"--strict": nil,
	}
	of := map[string][]string{
		Apply:          {"--steps", "--library", "--link", "--host-driver-version", "--host-cuda-version", "--cuda-compat-container-root", "--strict"},
		CreateSymlinks: {"--link", "--strict"},
		UpdateLDCache:  {"--folder", "--ldconfig-path", "--strict"},
		EnableCompat:   {"--host-driver-version", "--host-cuda-version", "--cuda-compat-container-root", "--strict"},
		DisableModify:  {"--strict"},
	}
	known := map[string]func(string){}
	for _, name := range of[call] {
		known[name] = all[name]
	}
	return known
}
