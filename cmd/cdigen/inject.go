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
	"tags.cncf.io/container-device-interface/pkg/parser"

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

const injectHelp = `inject adds CDI devices from the spec files of this host, of any vendor, to a container
whose runtime does not support CDI. A DEVICE without a kind is one of nvidia.com/gpu:
0 is nvidia.com/gpu=0.

  oci          edits the config.json of a bundle (--bundle) for runc, crun and others
  oci-nspawn   the same for systemd-nspawn --oci-bundle, which supports fewer options
  lxc          prints lines for an LXC container's configuration, or adds them to it
               (--file)
  nspawn       prints options for systemd-nspawn
  docker-args  prints options for docker run, for Docker before version 25
  podman-args  prints options for podman run, for podman before version 4.3

An edited file records its devices. New devices are added to those, and all are injected
again as the specs now describe them. --remove takes all devices out again, or only
each DEVICE named; changes that others have made to the file stay. A bundle that only
cdigen has changed is then as it was before, byte by byte.

A symbolic link in the place of the file is refused. root also refuses a file or
directory that another user can write to or exchange, since that user would decide
what root reads and writes. With --user-owned, root edits the file with the rights of
the user who owns it.

Options are printed for $(…), which the shell splits at white space. If an option has
white space or a special character in it, all are quoted for eval, and a warning says
so. Hooks require an OCI runtime. A warning names everything that a format cannot express.

Exit statuses:
  0  done
  1  failed: unknown device, missing host path, or a file that cannot be read or
     written or that another user can exchange
  2  unusable flags or arguments`

func newInject() *cobra.Command {
	var f injectFlags
	cmd := &cobra.Command{
		Use:   "inject [flags] [DEVICE ...]",
		Short: "Add CDI devices to a container whose runtime does not support CDI",
		Long:  injectHelp,
		Example: `  cdigen inject --bundle /srv/bundle 0
  cdigen inject --bundle /srv/bundle --remove
  cdigen inject --bundle /home/alice/bundle --user-owned alice 0
  cdigen inject --format lxc --file /var/lib/lxc/web/config all
  systemd-nspawn $(cdigen inject --format nspawn 0) -D /srv/debian
  docker run $(cdigen inject --format docker-args 0) debian nvidia-smi`,
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
			switch f.format {
			case string(inject.OCI), string(inject.NspawnBundle):
				return f.editBundle(cmd, names)
			case formatLXC:
				return f.lxc(cmd, names)
			}
			return f.printOptions(cmd, names)
		},
	}
	f.addFlags(cmd.Flags())
	return cmd
}

func (f *injectFlags) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&f.format, "format", string(inject.OCI), config.Alternatives(injectFormats))
	withoutVariable(flags, "format") // CDIGEN_FORMAT is that of a spec
	flags.StringVar(&f.bundle, "bundle", ".", "`directory` of the bundle whose config.json is edited (oci, oci-nspawn)")
	flags.StringVar(&f.file, "file", "", "container's configuration `file` to add the lines to (lxc; default: print them)")
	flags.StringVar(&f.cgroup, "cgroup", "", "cgroup `version` of the device filter: v1, v2, or none for containers of ordinary users (lxc; default: the host's)")
	flags.StringVar(&f.rootfs, "rootfs", "", "container's root `directory`, in which symbolic links are resolved, since LXC does not follow them (lxc; default: from the --file)")
	flags.StringVar(&f.userOwned, "user-owned", "", "`user` who owns the bundle or the --file, as USER or USER:GROUP by name or number: read and write with the rights of that user and group (root only; default group: the user's own)")
	flags.BoolVar(&f.remove, "remove", false, "take each DEVICE out of the file again, or all devices if none is named")
	addDryRun(flags, &f.dryRun)
	flags.BoolVar(&f.print, "print", false, "print the edited file and change nothing")
	f.add(flags, "inject")
	setValues(flags, "format", injectFormats...)
	setValues(flags, "cgroup", "v1", "v2", "none")
}

// qualified returns the qualified names of devices, each once.
func qualified(args []string) (names []string, err error) {
	for _, arg := range args {
		name := arg
		if !strings.Contains(arg, "=") {
			name = shortKind + "=" + arg
		}
		if _, _, _, err := parser.ParseQualifiedName(name); err != nil {
			return nil, fmt.Errorf("device %q: give it like 0, all or %s=0: %w", arg, shortKind, err)
		}
		names = inject.Union(names, []string{name})
	}
	return names, nil
}

// check returns an error for flags that cannot be combined.
func (f *injectFlags) check(cmd *cobra.Command, names []string) error {
	bundle := f.format == string(inject.OCI) || f.format == string(inject.NspawnBundle)
	file := bundle || f.format == formatLXC && f.file != ""
	given := cmd.Flags().Changed
	switch {
	case !slices.Contains(injectFormats, f.format):
		return fmt.Errorf("--format %q: use %s", f.format, config.Alternatives(injectFormats))
	case f.remove && f.format == formatLXC && !file:
		return errors.New("--remove requires --file")
	case f.userOwned != "" && !file:
		return fmt.Errorf("--user-owned is for files: --format %s only prints", f.format)
	case (f.remove || f.dryRun || f.print) && !file:
		return fmt.Errorf("--remove, --dry-run and --print are for files: --format %s only prints", f.format)
	case f.dryRun && f.print:
		return errors.New("--dry-run cannot be combined with --print")
	case given("bundle") && !bundle:
		return fmt.Errorf("--bundle is for --format oci and oci-nspawn, not for %s", f.format)
	case given("file") && f.format != formatLXC:
		return fmt.Errorf("--file is for --format lxc, not for %s", f.format)
	case given("cgroup") && f.format != formatLXC:
		return fmt.Errorf("--cgroup is for --format lxc, not for %s", f.format)
	case given("rootfs") && f.format != formatLXC:
		return fmt.Errorf("--rootfs is for --format lxc, not for %s", f.format)
	case !slices.Contains([]string{"", "v1", "v2", "none"}, f.cgroup):
		return fmt.Errorf("--cgroup %q: use v1, v2 or none", f.cgroup)
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
func (f *injectFlags) source(wanted, names []string) (*inject.Source, error) {
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
	return inject.Open(f.SpecDirs)
}

// wanted returns the devices of a file after the change; has are those before.
func (f *injectFlags) wanted(has, names []string) ([]string, error) {
	if f.remove {
		return inject.Minus(has, names)
	}
	return inject.Union(has, names), nil
}

// editBundle edits a bundle's config.json.
func (f *injectFlags) editBundle(cmd *cobra.Command, names []string) error {
	path := filepath.Join(f.bundle, "config.json")
	file, err := f.open(cmd, path)
	if err != nil {
		return err
	}
	defer file.Close()
	config, err := inject.ParseConfig(file.Data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	wanted, err := f.wanted(config.Devices(), names)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	edited := config.Base()
	if len(wanted) > 0 {
		source, err := f.source(wanted, names)
		if err != nil {
			return err
		}
		form := inject.Form(f.format)
		if f.remove {
			form = config.Form() // the others stay as they are
		}
		var notes []string
		if edited, notes, err = config.Inject(source, wanted, form); err != nil {
			return err
		}
		warn(string(form), notes)
	}
	return f.put(cmd, file, edited, wanted)
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

// lxc prints the lines for an LXC container, or adds them to its configuration.
func (f *injectFlags) lxc(cmd *cobra.Command, names []string) error {
	var (
		file  *inject.File
		block = &inject.Block{}
		err   error
	)
	if f.file != "" {
		if file, err = f.open(cmd, f.file); err != nil {
			return err
		}
		defer file.Close()
		if block, err = inject.ParseBlock(string(file.Data)); err != nil {
			return fmt.Errorf("%s: %w", f.file, err)
		}
	}
	wanted, err := f.wanted(block.Devices, names)
	if err != nil {
		return fmt.Errorf("%s: %w", f.file, err)
	}
	var lines []string
	if len(wanted) > 0 {
		contents, err := f.contents(wanted, names)
		if err != nil {
			return err
		}
		cgroup := inject.Cgroup(f.cgroup)
		if cgroup == "" {
			cgroup = inject.HostCgroup()
		}
		real := func(path string) string { return path }
		if root := cmp.Or(f.rootfs, block.Rootfs()); root != "" {
			real = follow(root, file)
		}
		var notes []string
		if lines, notes, err = inject.LXC(contents, cgroup, real); err != nil {
			return err
		}
		warn(f.format, notes)
	}
	edited := []byte(block.With(wanted, lines))
	if f.file == "" {
		_, err := cmd.OutOrStdout().Write(edited)
		return err
	}
	return f.put(cmd, file, edited, wanted)
}

// follow returns a function that resolves symbolic links in a container's root directory,
// with the rights that the file is read with. If the directory cannot be read, paths stay
// as they are. The container may change the directory at any time; [os.Root] keeps all
// names inside.
func follow(root string, file *inject.File) func(string) string {
	var tree discover.Tree
	err := file.Do(func() error {
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
		_ = file.Do(func() error { real = resolve(tree, name); return nil })
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

func (f *injectFlags) contents(wanted, names []string) (*inject.Contents, error) {
	source, err := f.source(wanted, names)
	if err != nil {
		return nil, err
	}
	return source.Contents(wanted)
}

// printOptions prints options of a program's command line.
func (f *injectFlags) printOptions(cmd *cobra.Command, names []string) error {
	contents, err := f.contents(names, names)
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
	warn(f.format, notes)
	text, quoted := inject.Words(args)
	if quoted {
		slog.Warn(`options are quoted, since one has a special character in it: use eval "… $(cdigen inject …) …"`)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), text)
	return err
}

// warn logs what a format cannot express.
func warn(format string, notes []string) {
	for _, note := range notes {
		slog.Warn(note, "format", format)
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
		return printPlan(cmd, plan)
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
