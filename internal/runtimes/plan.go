package runtimes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/trust"
)

// Request selects an engine and its configuration.
type Request struct {
	Engine Name
	// Version of the engine, as in [Engine].
	Version string
	// Program of the engine, which checks what is written; without one it is not checked.
	Program string
	// Config is the file to look at and to change, instead of the engine's own ones.
	Config string
	// SpecDirs have to be among those that the engine searches.
	SpecDirs []string
}

// file returns the file of the request, or the engine's own.
func (r Request) file(own string) string { return cmp.Or(r.Config, own) }

// Plan is a planned change of an engine's configuration.
type Plan struct {
	// Engine as it is before.
	Engine Engine
	// Changes are none when nothing has to change.
	Changes change.Plan

	system  System
	config  configuration
	program string
}

// Switchable returns the engines whose configuration can be changed.
func Switchable() []Name {
	return []Name{Docker, Containerd, K3s, RKE2, MicroK8s, K0s, CRIO, Podman, BuildKit}
}

// Enable plans the changes that make an engine inject CDI devices from the directories. The
// error is an [ErrUnsupported] if the engine cannot, and an [*Error] with line and column if
// its configuration is invalid.
func (s System) Enable(r Request) (*Plan, error) {
	return s.plan(r, func(c configuration, e *Engine) error { return c.enable(e, r.SpecDirs) })
}

// Disable plans the changes that make an engine refuse CDI devices, or undo Enable if it has
// no switch.
func (s System) Disable(r Request) (*Plan, error) {
	return s.plan(r, func(c configuration, e *Engine) error { return c.disable(e) })
}

func (s System) plan(r Request, edit func(configuration, *Engine) error) (*Plan, error) {
	k, ok := find(r.Engine)
	if !ok || !slices.Contains(Switchable(), r.Engine) {
		return nil, unsupported("its CDI configuration cannot be changed")
	}
	if canonical(r.Version) == "" {
		return nil, fmt.Errorf("%q is not a version", r.Version)
	}
	if _, ok := release(r.Engine, r.Version); !ok {
		return nil, unsupported(fmt.Sprintf("version %s does not support CDI, which %s added: %s", r.Version, firstRelease(r.Engine), cmp.Or(k.without, "update it")))
	}
	e, c := s.engine(k, r)
	if e.Err != nil {
		return nil, e.Err
	}
	p := &Plan{Engine: e, system: s, config: c, program: r.Program}
	err := edit(c, &e)
	if err != nil {
		return nil, err
	}
	p.Changes, err = changes(c.files())
	return p, err
}

// checkTime is how long an engine may take to check a configuration.
const checkTime = time.Minute

// Check has the engine's own program check the changed configuration, if it has a check and
// the program is installed. Only copies are written.
func (p *Plan) Check(ctx context.Context) error {
	if p.program == "" || len(p.Changes) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, checkTime, fmt.Errorf("not finished after %v", checkTime))
	defer cancel()
	return p.config.validate(ctx, p.program, p.Changes)
}

// Applied is the result of Apply.
type Applied struct {
	// Files that were changed, and Backups of what was in them, empty for a new file.
	Files, Backups []string
	// Restarted is the unit that was restarted.
	Restarted string
}

// Apply writes the changes, and restarts the engine's service if that is wanted. Each file
// is replaced in one step, with its mode, owner and attributes; a link stays and its
// target is replaced. What was in a file before stays beside it, under its name with
// .cdigen-backup, in the place of an older backup. When something fails, everything is
// as it was, and the service is restarted again if it was restarted at all.
func (p *Plan) Apply(ctx context.Context, restart bool) (*Applied, error) {
	restart = restart && p.Engine.Service != "" && len(p.Changes) > 0
	var systemctl string
	if restart {
		var err error
		if systemctl, err = p.system.LookPath("systemctl"); err != nil {
			return nil, fmt.Errorf("no systemctl to restart %s with, so nothing was changed: %w", p.Engine.Service, err)
		}
	}
	changes, err := p.located()
	if err != nil {
		return nil, writeError(err)
	}
	applied, err := changes.Apply(ctx)
	if err != nil {
		return nil, writeError(err)
	}
	defer applied.Close()
	result := &Applied{Files: applied.Files}
	if restart {
		if err := p.restart(ctx, systemctl); err != nil {
			return nil, p.restartFailed(ctx, systemctl, err, applied.Undo())
		}
		result.Restarted = p.Engine.Service
	}
	result.Backups, err = applied.Commit()
	if failed := (*change.Error)(nil); restart && errors.As(err, &failed) {
		return nil, p.restartFailed(ctx, systemctl, failed.Err, failed.Undo)
	}
	if err != nil {
		return nil, writeError(err)
	}
	made, err := recordMade(changes)
	result.Backups = append(result.Backups, made...)
	return result, err
}

// located returns the changes with the places on this machine that they are made at.
func (p *Plan) located() (change.Plan, error) {
	located := slices.Clone(p.Changes)
	for i := range located {
		c := &located[i]
		if err := p.locate(c); err != nil {
			return nil, &change.Error{Path: c.Path, Err: err}
		}
	}
	return located, nil
}

// locate finds the file that a change is to be made to, and the directory for its backup.
func (p *Plan) locate(c *change.Change) (err error) {
	name := "/" + strings.TrimPrefix(strings.TrimPrefix(c.Path, p.system.Root), "/")
	c.Target, err = p.system.target(name)
	c.Aside, c.Backup = p.scratch(name, c.Target), filepath.Base(c.Target)+backupSuffix
	return err
}

// Clean removes what a process that was killed has left beside the engine's files, for when
// nothing has to change. Apply does the same for the files that it changes.
func (p *Plan) Clean(ctx context.Context) error {
	var errs []error
	for _, f := range p.config.files() {
		c := change.Change{Path: f.Name}
		if p.locate(&c) == nil { // where nothing can be written, nothing was left
			errs = append(errs, c.Clean(ctx))
		}
	}
	return errors.Join(errs...)
}

// restart has systemd restart the service. A service that takes long to start has limits of
// its own.
func (p *Plan) restart(ctx context.Context, systemctl string) error {
	args := []string{"restart", p.Engine.Service}
	if p.system.UID != 0 {
		args = append([]string{"--user"}, args...)
	}
	_, err := p.system.Run(ctx, systemctl, args...)
	return err
}

// restartFailed restarts the service with its old configuration.
func (p *Plan) restartFailed(ctx context.Context, systemctl string, err, undone error) error {
	if undone != nil {
		return fmt.Errorf("%w; the old configuration could not be put back: %w", err, undone)
	}
	// The service is needed even if this process was interrupted.
	if again := p.restart(context.WithoutCancel(ctx), systemctl); again != nil {
		return fmt.Errorf("%w; the old configuration is back, but with it %s does not start either", err, p.Engine.Service)
	}
	return fmt.Errorf("%w; the old configuration is back and %s is restarted with it", err, p.Engine.Service)
}

// scratch returns the directory for files that must be in the file system of a file but not
// be read by the engine: its own, or one above it.
func (p *Plan) scratch(name, target string) string {
	own := filepath.Dir(target)
	if !p.config.reads(filepath.Join(filepath.Dir(name), "x"+backupSuffix)) {
		return own
	}
	if dir, err := p.system.resolve(filepath.Dir(name)); err != nil || dir != own {
		return own // a link leads elsewhere
	}
	for dir := filepath.Dir(name); dir != "/"; dir = filepath.Dir(dir) {
		if p.config.reads(filepath.Join(dir, "x"+backupSuffix)) {
			continue
		}
		if there, err := p.system.resolve(dir); err == nil {
			return there
		}
	}
	return own
}

// checkCopy writes a changed file where the engine can check it.
func checkCopy(ctx context.Context, c change.Change, check func(name string) error) error {
	dir, done, err := change.WorkDir(ctx, "check-"+filepath.Base(c.Path))
	if err != nil {
		return err
	}
	defer done()
	name := filepath.Join(dir, filepath.Base(c.Path))
	if err := os.WriteFile(name, c.New, 0o600); err != nil {
		return err
	}
	return check(name)
}

// backupSuffix is what follows a file's name in that of its backup. No engine reads such
// names as drop-ins but those that read all, for which see Plan.scratch.
const backupSuffix = ".cdigen-backup"

// target returns the path of a file on this machine, with symbolic links resolved. Links
// that other users can change are not followed.
func (s System) target(name string) (string, error) {
	target, err := s.resolve(name)
	if err != nil || target == s.path(filepath.Clean("/"+name)) {
		return target, err
	}
	if err := trust.Local(s.Root, trust.Self()).Check(name); errors.As(err, new(*trust.Error)) {
		return "", fmt.Errorf("%w: name the file that it leads to with --config", err)
	}
	return target, nil
}

// writeError adds what to do about errors that have a usual reason.
func writeError(err error) error {
	var failed *change.Error
	if !errors.As(err, &failed) {
		return fmt.Errorf("%w; nothing was changed", err)
	}
	advice := ""
	switch {
	case errors.As(err, new(*trust.Error)):
	case errors.Is(err, unix.EBUSY):
		advice = ": it is a mount: change the file that is mounted there"
	case errors.Is(err, unix.EACCES) && os.Geteuid() != 0:
		advice = ": run as root"
	}
	if failed.Undo != nil {
		return fmt.Errorf("%w%s", err, advice)
	}
	return fmt.Errorf("%w%s; nothing was changed", err, advice)
}
