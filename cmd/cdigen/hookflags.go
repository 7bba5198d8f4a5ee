package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/internal/trust"
)

// hookFlags say which hooks the spec has. The default is none.
type hookFlags struct {
	steps  []string
	path   string
	flavor string
	strict bool
}

func (f *hookFlags) add(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.steps, "hooks", nil, "`steps` that a hook does when a container starts, one or more of "+strings.Join(edits.HookSteps(), ", ")+" (default: none, nothing runs)")
	flags.StringVar(&f.path, "hook-path", "", "`path` of cdigen-hook, for the container engine (default: beside cdigen or in libexec/cdigen)")
	flags.StringVar(&f.flavor, "hook-flavor", string(edits.FlavorCdigen), "`form` of the hook's arguments: cdigen (one call) or nvidia (a call for each step, as nvidia-cdi-hook takes them)")
	flags.BoolVar(&f.strict, "strict-hook", false, "let a container fail to start when a step of the hook fails")
}

func (f *hookFlags) options() (edits.Hooks, error) {
	o := edits.Hooks{Flavor: edits.HookFlavor(f.flavor), Strict: f.strict}
	if o.Flavor != edits.FlavorCdigen && o.Flavor != edits.FlavorNVIDIA {
		return o, fmt.Errorf("--hook-flavor %q: use %s or %s", f.flavor, edits.FlavorCdigen, edits.FlavorNVIDIA)
	}
	var err error
	if o.Steps, err = edits.ParseHookSteps(slices.DeleteFunc(slices.Clone(f.steps), func(s string) bool { return s == "none" })); err != nil {
		return o, fmt.Errorf("--hooks: %w", err)
	}
	if len(o.Steps) == 0 {
		return o, nil
	}
	if o.Strict && o.Flavor == edits.FlavorNVIDIA {
		return o, errors.New("--strict-hook: nvidia-cdi-hook has no such flag: use --hook-flavor cdigen")
	}
	o.Path, err = findHook(f.path)
	return o, err
}

// findHook returns the path of the hook program, checked.
func findHook(given string) (string, error) {
	if given != "" {
		if !filepath.IsAbs(given) {
			return "", fmt.Errorf("--hook-path %s: want an absolute path: container engines start it from any directory", given)
		}
		if err := checkHook(given); err != nil {
			return "", fmt.Errorf("--hook-path: %w", err)
		}
		return filepath.Clean(given), nil
	}
	const name = "cdigen-hook"
	places := []string{"/usr/local/libexec/cdigen/" + name, "/usr/libexec/cdigen/" + name, "/usr/local/bin/" + name, "/usr/bin/" + name}
	if self, err := os.Executable(); err == nil {
		dir := filepath.Dir(self)
		places = slices.Insert(places, 0, filepath.Join(dir, name), filepath.Join(dir, "../libexec/cdigen", name))
	}
	for _, path := range places {
		err := checkHook(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
	}
	return "", fmt.Errorf("--hooks: no %s beside cdigen or in libexec/cdigen: install it, or name it with --hook-path", name)
}

// checkHook returns why a program must not be named in a spec: engines run it, as root
// for root's containers, and so who can exchange it is root.
func checkHook(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable: run chmod 0755 %s", path, path)
	}
	if err := trust.Path(path, trust.Self()); err != nil {
		return fmt.Errorf("%s must not be named in a spec: %w", path, err)
	}
	return nil
}
