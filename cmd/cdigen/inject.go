package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/fsuser"
	"github.com/cdigen/cdigen/internal/inject"
	"github.com/cdigen/cdigen/internal/trust"
	"github.com/cdigen/cdigen/spec"
)

// injectFlags are the options of inject.
type injectFlags struct {
	options
	format       string
	bundle, file string
	cgroup       string
	rootfs       string
	userOwned    string
	user         *fsuser.User // that userOwned names
	remove       bool
	dryRun       bool
	print        bool
}

// The formats of inject beside those of a bundle, which are inject's own Forms.
const (
	formatLXC    = "lxc"
	formatNspawn = "nspawn"
	formatDocker = "docker-args"
	formatPodman = "podman-args"
)

var injectFormats = []string{string(inject.OCI), string(inject.NspawnBundle), formatLXC, formatNspawn, formatDocker, formatPodman}

func newInject() *cobra.Command {
	var f injectFlags
	cmd := &cobra.Command{
		Use:               "inject [flags] [DEVICE ...]",
		Short:             "Add CDI devices to a container whose runtime does not support CDI",
		Args:              usageArgs(cobra.ArbitraryArgs),
		ValidArgsFunction: completeDevices(&f.SpecDirs),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := qualified(args)
			if err == nil {
				err = f.check(cmd, names)
			}
			if err == nil {
				f.user, err = f.owner()
			}
			if err != nil {
				return usageError(err)
			}
			switch {
			case f.bundled():
				return f.editFile(cmd, filepath.Join(f.bundle, "config.json"), names, f.editBundle)
			case f.format == formatLXC && f.file != "":
				return f.editFile(cmd, f.file, names, f.editLXC)
			case f.format == formatLXC:
				return f.printLXC(cmd, names)
			}
			return f.printOptions(cmd, names)
		},
	}
	f.addFlags(cmd.Flags())
	return cmd
}

func (f *injectFlags) addFlags(flags *pflag.FlagSet) {
	addChoice(flags, &f.format, "format", "", string(inject.OCI), config.Alternatives(injectFormats), injectFormats...)
	withoutVariable(flags, "format") // CDIGEN_FORMAT is that of a spec
	flags.StringVar(&f.bundle, "bundle", ".", "`directory` of the bundle whose config.json is edited (oci, oci-nspawn)")
	flags.StringVar(&f.file, "file", "", "container's configuration `file` to add the lines to (lxc; default: print them)")
	addChoice(flags, &f.cgroup, "cgroup", "", "", "cgroup `version` of the device filter: v1, v2, or none for containers of ordinary users (lxc; default: the host's)", "v1", "v2", "none")
	flags.StringVar(&f.rootfs, "rootfs", "", "container's root `directory`, in which symbolic links are resolved, since LXC does not follow them (lxc; default: from the --file)")
	flags.StringVar(&f.userOwned, "user-owned", "", "`user` who owns the bundle or the --file, as USER or USER:GROUP by name or number: read and write with the rights of that user and group (root only; default group: the user's own)")
	flags.BoolVar(&f.remove, "remove", false, "take each DEVICE out of the file again, or all devices if none is named")
	addDryRun(flags, &f.dryRun)
	flags.BoolVar(&f.print, "print", false, "print the edited file and change nothing")
	f.add(flags, "inject")
}

// bundled reports whether the config.json of a bundle is edited.
func (f *injectFlags) bundled() bool {
	return f.format == string(inject.OCI) || f.format == string(inject.NspawnBundle)
}

// check returns an error for flags that cannot be combined.
func (f *injectFlags) check(cmd *cobra.Command, names []string) error {
	lxc := f.format == formatLXC
	if cmd.Flags().Changed("bundle") && !f.bundled() {
		return fmt.Errorf("--bundle is for --format oci and oci-nspawn, not for %s", f.format)
	}
	for _, name := range []string{"file", "cgroup", "rootfs"} {
		if cmd.Flags().Changed(name) && !lxc {
			return fmt.Errorf("--%s is for --format lxc, not for %s", name, f.format)
		}
	}
	file := f.bundled() || f.file != ""
	switch {
	case f.remove && lxc && !file:
		return errors.New("--remove requires --file")
	case f.userOwned != "" && !file:
		return fmt.Errorf("--user-owned is for files: --format %s only prints", f.format)
	case (f.remove || f.dryRun || f.print) && !file:
		return fmt.Errorf("--remove, --dry-run and --print are for files: --format %s only prints", f.format)
	case f.dryRun && f.print:
		return errors.New("--dry-run cannot be combined with --print")
	case f.rootfs != "" && !isDirectory(f.rootfs):
		return fmt.Errorf("--rootfs %s: no such directory", f.rootfs)
	case len(names) == 0 && !f.remove:
		return errors.New("name the devices to inject, such as 0 or all: see cdigen list")
	}
	return nil
}

// owner returns the user that --user-owned names, nil for none.
func (f *injectFlags) owner() (*fsuser.User, error) {
	if f.userOwned == "" {
		return nil, nil
	}
	user, err := fsuser.Parse(f.userOwned)
	switch {
	case err != nil:
		return nil, fmt.Errorf("--user-owned: %w", err)
	case os.Geteuid() != 0:
		return nil, errors.New("--user-owned: only root can take the rights of another user")
	case user.UID == 0:
		return nil, errors.New("--user-owned requires another user than root")
	}
	return &user, nil
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// source returns the devices of the spec files, or an error if one that is wanted is not
// among them. Devices that are not in names are in the file already.
func (f *injectFlags) source(wanted, names []string) (inject.Source, error) {
	devices, broken := spec.ReadDirectories(f.SpecDirs).Devices()
	for _, name := range wanted {
		_, err := usable(name, devices, broken)
		switch {
		case err == nil:
			continue
		case f.remove:
			err = fmt.Errorf("%w: it would stay in the file: remove it too, with --remove %s %s", err, strings.Join(names, " "), name)
		case !slices.Contains(names, name):
			err = fmt.Errorf("%w: it was injected before: remove it first, with --remove %s", err, name)
		}
		return nil, err
	}
	return devices, nil
}

// document is a file that devices are injected into.
type document struct {
	// devices are in it.
	devices []string
	// with returns it with others instead.
	with func(source inject.Source, wanted []string) (edited []byte, notes []string, err error)
}

// editFile edits a file, or prints what it would be.
func (f *injectFlags) editFile(cmd *cobra.Command, path string, names []string, parse func(*inject.File) (*document, error)) error {
	file, err := f.open(cmd, path)
	if err != nil {
		return err
	}
	defer file.Close()
	d, err := parse(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	wanted := inject.Union(d.devices, names)
	if f.remove {
		if wanted, err = inject.Minus(d.devices, names); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
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
	f.warn(notes)
	return f.put(cmd, file, edited, wanted)
}

// editBundle edits a bundle's config.json.
func (f *injectFlags) editBundle(file *inject.File) (*document, error) {
	c, err := inject.ParseConfig(file.Data)
	if err != nil {
		return nil, err
	}
	return &document{c.Devices(), func(source inject.Source, wanted []string) ([]byte, []string, error) {
		if len(wanted) == 0 {
			return c.Base(), nil, nil
		}
		if f.remove {
			f.format = string(c.Form()) // the others stay as they are
		}
		return c.Inject(source, wanted, inject.Form(f.format))
	}}, nil
}

// editLXC edits the configuration of an LXC container.
func (f *injectFlags) editLXC(file *inject.File) (*document, error) {
	block, err := inject.ParseBlock(string(file.Data))
	if err != nil {
		return nil, err
	}
	return &document{block.Devices, func(source inject.Source, wanted []string) ([]byte, []string, error) {
		if len(wanted) == 0 {
			return []byte(block.With(nil, nil)), nil, nil
		}
		lines, notes, err := f.lxcLines(source, wanted, cmp.Or(f.rootfs, block.Rootfs()), file.Do)
		return []byte(block.With(wanted, lines)), notes, err
	}}, nil
}

// lxcLines returns the lines of a configuration for devices. The container's root directory,
// in which links are resolved, is empty if it is not known; do has the rights to read it.
func (f *injectFlags) lxcLines(source inject.Source, wanted []string, root string, do func(func() error) error) (lines, notes []string, err error) {
	contents, err := source.Contents(wanted)
	if err != nil {
		return nil, nil, err
	}
	cgroup := inject.Cgroup(f.cgroup)
	if cgroup == "" {
		cgroup = inject.HostCgroup()
	}
	real := func(path string) string { return path }
	if root != "" {
		real = follow(root, do)
	}
	return inject.LXC(contents, cgroup, real)
}

// printLXC prints the lines for the configuration of an LXC container.
func (f *injectFlags) printLXC(cmd *cobra.Command, names []string) error {
	source, err := f.source(names, names)
	if err != nil {
		return err
	}
	lines, notes, err := f.lxcLines(source, names, f.rootfs, func(read func() error) error { return read() })
	if err != nil {
		return err
	}
	f.warn(notes)
	_, err = io.WriteString(cmd.OutOrStdout(), (&inject.Block{}).With(names, lines))
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
	case errors.As(err, &link) && f.format == formatLXC:
		err = fmt.Errorf("%w: name that file with --file", err)
	case errors.As(err, &link):
		err = fmt.Errorf("%w: name the directory of that file with --bundle", err)
	case errors.As(err, &untrusted):
		err = f.untrusted(untrusted)
	case errors.Is(err, fs.ErrNotExist) && f.format != formatLXC:
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

// follow returns a function that resolves symbolic links in a container's root directory,
// with the rights that the file is read with. If the directory cannot be read, paths stay
// as they are. The container may change the directory at any time; [os.Root] keeps all
// names inside.
func follow(root string, do func(func() error) error) func(string) string {
	var tree discover.Tree
	err := do(func() error {
		dir, err := os.OpenRoot(root)
		if err == nil {
			tree = discover.NewTree(root, dir.FS())
		}
		return err
	})
	if err != nil {
		return func(name string) string { return name }
	}
	return func(name string) (real string) {
		_ = do(func() error { real = resolve(tree, name); return nil })
		return real
	}
}

// resolve resolves the symbolic links in the part of a name that exists.
func resolve(tree discover.Tree, name string) string {
	for there, rest := name, ""; there != "/"; there, rest = path.Dir(there), path.Join(path.Base(there), rest) {
		if real, err := tree.Resolve(there); err == nil {
			return path.Join("/", real, rest)
		}
	}
	return name
}

// printOptions prints options of a program's command line.
func (f *injectFlags) printOptions(cmd *cobra.Command, names []string) error {
	source, err := f.source(names, names)
	if err != nil {
		return err
	}
	contents, err := source.Contents(names)
	if err != nil {
		return err
	}
	options := map[string]func(*inject.Contents) ([][]string, []string, error){
		formatNspawn: inject.Nspawn, formatDocker: inject.Docker, formatPodman: inject.Podman,
	}[f.format]
	args, notes, err := options(contents)
	if err != nil {
		return err
	}
	f.warn(notes)
	text, quoted := inject.Words(args)
	if quoted {
		slog.Warn(`options are quoted, since one has a special character in it: use eval "… $(cdigen inject …) …"`)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), text)
	return err
}

// warn logs what a format cannot express.
func (f *injectFlags) warn(notes []string) {
	for _, note := range notes {
		slog.Warn(note, "format", f.format)
	}
}

// put writes a file that was edited, or prints it.
func (f *injectFlags) put(cmd *cobra.Command, file *inject.File, edited []byte, devices []string) error {
	if f.print {
		_, err := cmd.OutOrStdout().Write(edited)
		return err
	}
	plan := file.Plan(edited)
	if f.dryRun {
		return dryRun(cmd, plan)
	}
	names := strings.Join(devices, ",")
	if len(plan) == 0 {
		slog.Info("unchanged", "path", file.Path, "devices", names)
		return nil
	}
	if err := file.Apply(cmd.Context(), plan); err != nil {
		return err
	}
	if len(devices) == 0 {
		slog.Info("removed", "path", file.Path)
	} else {
		slog.Info("injected", "path", file.Path, "devices", names)
	}
	return nil
}
