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
	"tags.cncf.io/container-device-interface/pkg/parser"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/fsuser"
	"github.com/cdigen/cdigen/internal/inject"
	"github.com/cdigen/cdigen/internal/trust"
	"github.com/cdigen/cdigen/spec"
)

// injectFlags say for what runtime devices are injected, and where.
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
		Use:   "inject [flags] [DEVICE ...]",
		Short: "Give a container CDI devices where its runtime has no CDI",
		Long: `inject takes CDI devices from the spec files of this host, whoever wrote them, and
gives them to a container whose runtime knows nothing of CDI. A DEVICE without a
kind is one of nvidia.com/gpu: 0 is nvidia.com/gpu=0.

  oci          edits the config.json of a bundle (--bundle) for runc, crun and others
  oci-nspawn   the same for systemd-nspawn --oci-bundle, which knows fewer options
  lxc          prints lines of an LXC container's configuration, or keeps them in one
               (--file)
  nspawn       prints options of systemd-nspawn
  docker-args  prints options of docker run, for a Docker older than 25
  podman-args  prints options of podman run, for a podman older than 4.3

A file that is edited has a record of its devices. Devices are added to those that
it has, which are injected anew as the specs now have them. --remove takes them out
again, or with DEVICE these only; what others have changed in the file stays. A
bundle that nobody else has changed is then as it was, byte by byte.

A symbolic link in the place of the file is refused. root also refuses a file or
directory that another user can write to or exchange, since that user would decide
what root reads and writes. With --user-owned, root edits the file with the rights of
the user who owns it.

Options are printed for $(…), where a shell takes them apart at white space and does
nothing else. When one of them has white space or a special character in it, all are
quoted for eval, and standard error says so. Hooks are for OCI runtimes only; what a
format cannot say is told on standard error.

Exit statuses: 0 done, 1 failed: no such device, a path that the host lacks, a file
that cannot be read or written or that another user can exchange; 2 unusable flags or
arguments.`,
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
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", string(inject.OCI), config.Alternatives(injectFormats))
	withoutVariable(flags, "format") // CDIGEN_FORMAT is that of a spec
	flags.StringVar(&f.bundle, "bundle", ".", "`directory` of the bundle whose config.json is edited (oci, oci-nspawn)")
	flags.StringVar(&f.file, "file", "", "container's configuration `file` to keep the lines in, at its end (lxc; default: print them)")
	flags.StringVar(&f.cgroup, "cgroup", "", "`version` of the device filter: v1, v2, or none for containers of ordinary users (lxc; default: this host's)")
	flags.StringVar(&f.rootfs, "rootfs", "", "container's root `directory`, to mount where symbolic links in it lead, since LXC follows none (lxc; default: what the --file says)")
	flags.StringVar(&f.userOwned, "user-owned", "", "`user` who owns the bundle or the --file, as USER or USER:GROUP by name or number: read and write with the rights of that user and group (root only; default group: the user's own)")
	flags.BoolVar(&f.remove, "remove", false, "take the devices out of the file again, without DEVICE all of them")
	addDryRun(flags, &f.dryRun)
	flags.BoolVar(&f.print, "print", false, "print the edited file and leave the file itself as it is")
	f.add(flags, "inject")
	setValues(flags, "format", injectFormats...)
	setValues(flags, "cgroup", "v1", "v2", "none")
	return cmd
}

// qualified are names with their kinds, each once.
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

// check refuses flags that do not go together.
func (f *injectFlags) check(cmd *cobra.Command, names []string) error {
	bundle := f.format == string(inject.OCI) || f.format == string(inject.NspawnBundle)
	file := bundle || f.format == formatLXC && f.file != ""
	given := cmd.Flags().Changed
	switch {
	case !slices.Contains(injectFormats, f.format):
		return fmt.Errorf("--format %q: use %s", f.format, config.Alternatives(injectFormats))
	case f.remove && f.format == formatLXC && !file:
		return errors.New("--remove: name the container's configuration with --file: lines that were only printed are nowhere to be removed from")
	case f.userOwned != "" && !file:
		return fmt.Errorf("--user-owned is for files: --format %s only prints", f.format)
	case (f.remove || f.dryRun || f.print) && !file:
		return fmt.Errorf("--remove, --dry-run and --print are for files: --format %s only prints", f.format)
	case f.dryRun && f.print:
		return errors.New("--dry-run and --print: use one of them")
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
		return fmt.Errorf("--rootfs %s: there is no such directory", f.rootfs)
	case len(names) == 0 && !f.remove:
		return errors.New("name the devices to inject, such as 0 or all: cdigen list has their names")
	}
	return nil
}

// owner is the user that --user-owned names; nil: none.
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
		return nil, errors.New("--user-owned names another user than root: root's own files do not need it")
	}
	return &user, nil
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// source has the devices that are wanted, or says why not. Others than those named
// are in a file already.
func (f *injectFlags) source(wanted, names []string) (*inject.Source, error) {
	devices, broken := spec.ReadDirectories(f.SpecDirs).Devices()
	for _, name := range wanted {
		_, err := usable(name, devices, broken)
		switch {
		case err == nil:
			continue
		case f.remove:
			err = fmt.Errorf("%w: it stays in the file: take it out too, with --remove %s %s", err, strings.Join(names, " "), name)
		case !slices.Contains(names, name):
			err = fmt.Errorf("%w: it was injected before: take it out first, with --remove %s", err, name)
		}
		return nil, err
	}
	return inject.Open(f.SpecDirs)
}

// wanted are the devices that a file is to have, which has some.
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
		tell(string(form), notes)
	}
	return f.put(cmd, file, edited, wanted)
}

// open opens the file that is to be edited.
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

// untrusted says what to do about a file that another user can exchange.
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

// lxc prints lines for an LXC container, or keeps them in a file.
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
		tell(f.format, notes)
	}
	edited := []byte(block.With(wanted, lines))
	if f.file == "" {
		_, err := cmd.OutOrStdout().Write(edited)
		return err
	}
	return f.put(cmd, file, edited, wanted)
}

// follow makes a function that follows the links of a container's root directory, with
// the rights that the file is read with. Where that cannot be read, a path stays as it
// is. The container may exchange what is in the directory at any time: [os.Root] sees to
// it that no name leads out of it.
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

// resolve follows the links in a name, as far as there is something at it: what is not
// there yet has no links in it.
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
	tell(f.format, notes)
	text, quoted := inject.Words(args)
	if quoted {
		slog.Warn(`options are quoted, since one has a special character in it: use eval "… $(cdigen inject …) …"`)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), text)
	return err
}

// tell says what a format cannot do.
func tell(format string, notes []string) {
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
