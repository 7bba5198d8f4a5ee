package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/internal/hook"
	"github.com/cdigen/cdigen/internal/trust"
)

// hookSteps are the names of all steps of the hook.
func hookSteps() []string { return slices.Sorted(slices.Values(Words(hook.Steps))) }

// hooks returns the hooks of the spec.
func (c *Config) hooks() (edits.Hooks, error) {
	steps := slices.DeleteFunc(slices.Clone(c.Hooks), func(s string) bool { return s == noHooks })
	if len(steps) > 0 && len(steps) < len(c.Hooks) {
		return edits.Hooks{}, c.Problem("hooks", errors.New("none stands alone: leave it out, or the steps"))
	}
	o := edits.Hooks{Steps: steps, Flavor: c.HookFlavor, Strict: c.StrictHook}
	if len(steps) == 0 {
		return o, nil
	}
	if o.Strict && o.Flavor == edits.FlavorNVIDIA {
		return o, c.Problem("strict-hook", errors.New("nvidia-cdi-hook has no such flag: use --hook-flavor cdigen"))
	}
	var err error
	o.Path, err = c.findHook()
	return o, err
}

// findHook returns the path of the hook program, checked.
func (c *Config) findHook() (string, error) {
	if c.HookPath != "" {
		if !filepath.IsAbs(c.HookPath) {
			return "", c.Problem("hook-path", errors.New("use an absolute path: container engines start it from any directory"))
		}
		if err := CheckHook(c.HookPath); err != nil {
			return "", c.Problem("hook-path", err)
		}
		return filepath.Clean(c.HookPath), nil
	}
	const name = "cdigen-hook"
	places := []string{"/usr/local/libexec/cdigen/" + name, "/usr/libexec/cdigen/" + name, "/usr/local/bin/" + name, "/usr/bin/" + name}
	if self, err := os.Executable(); err == nil {
		dir := filepath.Dir(self)
		places = slices.Insert(places, 0, filepath.Join(dir, name), filepath.Join(dir, "../libexec/cdigen", name))
	}
	for _, path := range places {
		err := CheckHook(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
	}
	return "", c.Problem("hooks", fmt.Errorf("no %s beside cdigen or in libexec/cdigen: install it, or name it with --hook-path", name))
}

// CheckHook returns why a program must not be named in a spec. Engines run it as root, so
// only root may be able to change it.
func CheckHook(path string) error {
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
		return fmt.Errorf("refusing to use hook %s: %w", path, err)
	}
	return nil
}
