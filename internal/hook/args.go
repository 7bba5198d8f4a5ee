package hook

import (
	"fmt"
	"slices"
	"strings"
)

// Apply is the name of the call that does several steps.
const Apply = "apply"

// Names of calls that do one step, with the flags of nvidia-cdi-hook.
const (
	CreateSymlinks = "create-symlinks"
	UpdateLDCache  = "update-ldcache"
	EnableCompat   = "enable-cuda-compat"
	DisableModify  = "disable-device-node-modification"
)

// calls has the steps and flags of each call. The steps of [Apply] are in its flag --steps.
var calls = map[string]struct {
	steps []Step
	flags []string
}{
	Apply:          {nil, []string{"--steps", "--library", "--link", "--host-driver-version", "--host-cuda-version", "--cuda-compat-container-root", "--strict"}},
	CreateSymlinks: {[]Step{Symlinks}, []string{"--link", "--strict"}},
	UpdateLDCache:  {[]Step{LDCache}, []string{"--folder", "--ldconfig-path", "--strict"}},
	EnableCompat:   {[]Step{CUDACompat}, []string{"--host-driver-version", "--host-cuda-version", "--cuda-compat-container-root", "--strict"}},
	DisableModify:  {[]Step{DeviceParams}, []string{"--strict"}},
	"noop":         {},
	// What these do has no counterpart (docs/parity.md).
	"update-application-profile": {},
	memoryLimits:                 {nil, []string{"--driver-root", "--gpu-id"}},
}

// memoryLimits is the call that limits a container's memory on a GPU.
const memoryLimits = "apply-cuda-memory-limits"

// Parse reads the arguments of a call, without the program's name: the name of the call,
// and flags as --flag value or --flag=value. An unknown call, flag or step is a warning
// and the rest is done: a spec may be newer than the hook.
func Parse(args []string) (q *Request, warnings []string) {
	warn := func(format string, a ...any) { warnings = append(warnings, fmt.Sprintf(format, a...)) }
	if len(args) > 1 && args[0] == "hook" { // as in "nvidia-ctk hook update-ldcache"
		args = args[1:]
	}
	if len(args) == 0 {
		return &Request{}, []string{"no hook named: nothing done"}
	}
	call, known := calls[args[0]]
	if !known {
		return &Request{}, []string{fmt.Sprintf("unknown hook %q: nothing done", args[0])}
	}
	q = &Request{Steps: slices.Clone(call.steps)}
	flags := q.flags(args[0] != Apply, warn)
	for args = args[1:]; len(args) > 0; {
		name, value, inline := strings.Cut(args[0], "=")
		args = args[1:]
		set, known := flags[name], slices.Contains(call.flags, name)
		hasNext := len(args) > 0
		switch {
		case !strings.HasPrefix(name, "--"):
			warn("unknown argument %q: ignored", name)
		case !known:
			// The argument after an unknown flag is its value, unless it is a flag itself.
			if !inline && hasNext && !strings.HasPrefix(args[0], "-") {
				args = args[1:]
			}
			warn("unknown flag %s: ignored", name)
		case set == nil && name == "--strict":
			q.Strict = value != "false"
		case set == nil: // of a call without a counterpart
			if !inline && hasNext {
				args = args[1:]
			}
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

// flags returns a function for each flag that sets its value; nil for the one without.
// With always, links are made even if they lead nowhere.
func (q *Request) flags(always bool, warn func(string, ...any)) map[string]func(string) {
	return map[string]func(string){
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
			q.Links = append(q.Links, Link{Target: target, Path: name, Always: always})
		},
		"--strict": nil,
	}
}
