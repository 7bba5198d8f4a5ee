package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/fsuser"
	"github.com/cdigen/cdigen/internal/inject"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/trust"
)

// document is a file that devices are injected into.
type document struct {
	// devices are in it.
	devices []string
	// unknown: there may be others in it, which are not known.
	unknown bool
	// with returns it with others instead.
	with func(source inject.Source, wanted []string) (edited []byte, notes []string, err error)
}

// editFile edits a file, or prints what it would be.
func (f *injectFlags) editFile(cmd *cobra.Command, path string, names []string) error {
	f.refresh = len(names) == 0 && !f.remove
	if err := f.recall(path); err != nil {
		return err
	}
	file, err := f.open(cmd, path)
	if err != nil {
		return err
	}
	defer file.Close()
	d, err := f.parse(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	wanted := inject.Union(d.devices, names)
	if f.remove && (len(names) > 0 || len(d.devices) > 0 || !d.unknown) {
		if wanted, err = inject.Minus(d.devices, names); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if len(wanted) == 0 && !f.remove {
		return fmt.Errorf("%s: no device was injected: name the devices to inject, such as 0 or all: see cdigen list", path)
	}
	var source inject.Source
	if len(wanted) > 0 {
		if source, err = f.source(wanted, names); err != nil {
			return err
		}
	}
	edited, notes, err := d.with(source, wanted)
	if err != nil {
		return err
	}
	return f.put(cmd, file, edited, wanted, notes)
}

// recall takes what was not given from the last injection into a file.
func (f *injectFlags) recall(path string) (err error) {
	if f.last, err = f.registry.Of(path); err != nil {
		return err
	}
	f.cgroup, f.rootfs, f.userOwned = cmp.Or(f.cgroup, f.last.Cgroup), cmp.Or(f.rootfs, f.last.Rootfs), cmp.Or(f.userOwned, f.last.UserOwned)
	if f.userOwned != "" && f.user == nil && os.Geteuid() == 0 {
		var user fsuser.User
		user, err = fsuser.Parse(f.userOwned)
		f.user = &user
	}
	return err
}

// parse reads a file of the format.
func (f *injectFlags) parse(file *inject.File) (*document, error) {
	switch {
	case f.bundled():
		return f.parseBundle(file)
	case f.format == formatLXC && inject.IsProxmox(string(file.Data)):
		f.format = inject.FormatProxmox
	}
	if f.format == inject.FormatProxmox {
		return f.parseProxmox(file)
	}
	return f.parseLXC(file)
}

func (f *injectFlags) parseBundle(file *inject.File) (*document, error) {
	c, err := inject.ParseConfig(file.Data)
	if err != nil {
		return nil, err
	}
	return &document{devices: c.Devices(), with: func(source inject.Source, wanted []string) ([]byte, []string, error) {
		if len(wanted) == 0 {
			return c.Base(), nil, nil
		}
		if f.remove || f.refresh {
			f.format = string(c.Form()) // the others stay as they are
		}
		return c.Inject(source, wanted, inject.Form(f.format))
	}}, nil
}

func (f *injectFlags) parseLXC(file *inject.File) (*document, error) {
	block, err := inject.ParseBlock(string(file.Data))
	if err != nil {
		return nil, err
	}
	return &document{devices: block.Devices, with: func(source inject.Source, wanted []string) ([]byte, []string, error) {
		if len(wanted) == 0 {
			return []byte(block.With(nil, nil)), nil, nil
		}
		contents, err := source.Contents(wanted)
		if err != nil {
			return nil, nil, err
		}
		lines, notes, err := f.lxcLines(contents, cmp.Or(f.rootfs, block.Rootfs()), file.Do)
		return []byte(block.With(wanted, lines)), notes, err
	}}, nil
}

func (f *injectFlags) parseProxmox(file *inject.File) (*document, error) {
	number, err := inject.ProxmoxNumber(f.last.File)
	if err != nil {
		return nil, err
	}
	name := f.registry.Included(f.last.File)
	included, err := f.registry.Read(name)
	if err != nil {
		return nil, err
	}
	block, err := inject.ParseBlock(string(included))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p, err := inject.ParseProxmox(string(file.Data), name, f.last.Nodes)
	if err != nil {
		return nil, err
	}
	// Its root file system is there if it was mounted (pct mount).
	f.mounted = "/var/lib/lxc/" + number + "/rootfs"
	now, anywhere := p.Injected()
	// New devices go into the container, not into its snapshots.
	inContainer := now || !f.remove && !f.refresh
	d := &document{devices: p.Devices, unknown: anywhere}
	if now || anywhere && !inContainer {
		d.devices = inject.Union(p.Devices, block.Devices)
	}
	d.with = func(source inject.Source, wanted []string) ([]byte, []string, error) {
		f.last.Nodes = p.Values(f.last.Nodes)
		if len(wanted) == 0 {
			f.included = []byte{}
			return []byte(p.Without()), nil, nil
		}
		return f.withProxmox(p, source, wanted, inContainer, file)
	}
	return d, nil
}

// withProxmox returns a container's configuration with devices, and keeps the file that it
// is to include.
func (f *injectFlags) withProxmox(p *inject.Proxmox, source inject.Source, wanted []string, inContainer bool, file *inject.File) (edited []byte, notes []string, err error) {
	if err := f.registry.Conflict(f.last); err != nil {
		return nil, nil, err
	}
	contents, err := source.Contents(wanted)
	if err != nil {
		return nil, nil, err
	}
	var nodes []string
	if inContainer && proxmoxMakesNodes() {
		if nodes, err = inject.ProxmoxDevices(contents); err != nil {
			return nil, nil, err
		}
	}
	lines, notes, err := f.lxcLines(contents, cmp.Or(f.rootfs, f.mounted), file.Do)
	if err != nil {
		return nil, nil, err
	}
	name := f.registry.Included(f.last.File)
	header := "# Written by cdigen inject. " + f.last.File + " includes this file.\n"
	f.included = []byte((&inject.Block{}).With(wanted, lines))
	f.included = append([]byte(header), f.included...)
	f.last.Nodes = inject.Union(f.last.Nodes, nodes)
	if !inContainer {
		return file.Data, notes, nil
	}
	text, err := p.With(name, nodes)
	return []byte(text), notes, err
}

// proxmoxMakesNodes reports whether this host's Proxmox has devN lines, as since version
// 5.0.7 of its package.
func proxmoxMakesNodes() bool {
	out, err := exec.Command("dpkg-query", "--show", "--showformat=${Version}", "pve-container").Output()
	if err != nil {
		return false
	}
	numbers := strings.FieldsFunc(string(out), func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	return len(numbers) > 0 && runtimes.AtLeast(numbers[0], "5.0.7")
}

// refreshAll injects again into all files that have devices.
func (f *injectFlags) refreshAll(cmd *cobra.Command) error {
	all, err := f.registry.All()
	errs := []error{err}
	for _, last := range all {
		if last.Gone() {
			if err := f.forget(cmd, last); err != nil {
				errs = append(errs, err)
			}
			continue
		}
		one := *f
		one.format = last.Format
		if err := one.editFile(cmd, last.File, nil); err != nil && !slices.Contains(errs, err) {
			errs = append(errs, err) // of --dry-run there is one
		}
	}
	return errors.Join(errs...)
}

// forget removes what is kept of a file that is there no more.
func (f *injectFlags) forget(cmd *cobra.Command, last inject.Injection) error {
	var beside []byte
	if last.Format == inject.FormatProxmox {
		beside = []byte{}
	}
	record, included, err := f.registry.Plan(last, beside, false)
	if err == nil && !f.dryRun {
		_, err = slices.Concat(record, included).Make(cmd.Context())
	}
	return err
}

// open opens the file to edit.
func (f *injectFlags) open(cmd *cobra.Command, path string) (*inject.File, error) {
	file, err := inject.OpenFile(cmd.Context(), path, inject.Access{User: f.user, Write: !f.print && !f.dryRun})
	var (
		link      *inject.LinkError
		untrusted *trust.Error
	)
	switch {
	case errors.As(err, &link) && !f.bundled():
		err = fmt.Errorf("%w: name that file with --file", err)
	case errors.As(err, &link):
		err = fmt.Errorf("%w: name the directory of that file with --bundle", err)
	case errors.As(err, &untrusted):
		err = f.untrusted(untrusted)
	case errors.Is(err, fs.ErrNotExist) && f.bundled():
		err = fmt.Errorf("%w: name the bundle's directory with --bundle", err)
	}
	return file, err
}

// untrusted adds what to do about a file that another user can exchange.
func (f *injectFlags) untrusted(e *trust.Error) error {
	switch {
	case f.user != nil:
		return fmt.Errorf("%w: with --user-owned only root and %s may be able to change what leads to the file", e, f.user)
	case e.UID == 0:
		return fmt.Errorf("%w: only root may be able to change what leads to a file that root edits", e)
	}
	owner := strconv.FormatUint(uint64(e.UID), 10)
	if u, err := user.LookupId(owner); err == nil {
		owner = u.Username
	} else {
		owner += ":GROUP"
	}
	return fmt.Errorf("%w: root edits it with the rights of that user alone, with --user-owned %s", e, owner)
}

// put writes a file that was edited, or prints it. Its record is there before the devices
// are, and as long as they are.
func (f *injectFlags) put(cmd *cobra.Command, file *inject.File, edited []byte, devices, notes []string) error {
	if f.print {
		f.warn(notes)
		_, err := cmd.OutOrStdout().Write(edited)
		return err
	}
	f.last.Format, f.last.Cgroup, f.last.Rootfs, f.last.UserOwned = f.format, f.cgroup, f.rootfs, f.userOwned
	plan := file.Plan(edited)
	record, included, err := f.registry.Plan(f.last, f.included, len(devices) > 0)
	if err != nil {
		return err
	}
	kept := slices.Concat(record, included)
	names := strings.Join(devices, ",")
	unchanged := len(plan) == 0 && len(kept) == 0
	if !unchanged || !f.refresh {
		f.warn(notes)
	}
	switch {
	case f.dryRun:
		return dryRun(cmd, slices.Concat(plan, included))
	case unchanged:
		say("There is nothing to change in "+file.Path+".", "unchanged", "path", file.Path, "devices", names)
		return nil
	}
	if len(devices) > 0 {
		if err := f.keep(cmd, kept); err != nil {
			return err
		}
	}
	if err := file.Apply(cmd.Context(), plan); err != nil {
		return err
	}
	if len(devices) == 0 {
		if err := f.keep(cmd, kept); err != nil {
			return err
		}
		say("Removed the devices from "+file.Path+".", "removed", "path", file.Path)
	} else {
		say("Added "+strings.Join(devices, ", ")+" to "+file.Path+".", "injected", "path", file.Path, "devices", names)
	}
	return nil
}

// keep changes the record of a file. One that cannot be kept is an error only if devices
// are in a file beside it.
func (f *injectFlags) keep(cmd *cobra.Command, p change.Plan) error {
	_, err := p.Make(cmd.Context())
	if err != nil && f.format != inject.FormatProxmox {
		slog.Warn("not recorded, so --refresh will not find it", "err", err)
		return nil
	}
	return err
}
