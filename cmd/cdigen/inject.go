package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/fsuser"
	"github.com/cdigen/cdigen/internal/inject"
	"github.com/cdigen/cdigen/internal/specdir"
)

// injectFlags are the options of inject.
type injectFlags struct {
	options
	require      requirements
	format       string
	bundle, file string
	cgroup       string
	rootfs       string
	userOwned    string
	user         *fsuser.User // that userOwned names
	stateDir     string
	remove       bool
	all          bool // --refresh
	pid          int
	dryRun       bool
	print        bool

	// What is known of the file that is edited.
	registry inject.Registry
	last     inject.Injection
	included []byte // by it, of Proxmox
	mounted  string // where its root file system may be mounted
	refresh  bool   // without new devices
}

// The formats of inject beside those of a bundle, which are inject's own Forms.
const (
	formatLXC    = "lxc"
	formatNspawn = "nspawn"
	formatDocker = "docker-args"
	formatPodman = "podman-args"
	formatEnroot = "enroot"
	formatHook   = "lxc-hook"
	formatIncus  = "incus"
)

var injectFormats = []string{string(inject.OCI), string(inject.NspawnBundle), formatLXC, inject.FormatProxmox, formatIncus, formatNspawn, formatDocker, formatPodman, formatEnroot, formatHook}

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
			if err := f.required(cmd, names); err != nil {
				return err
			}
			f.registry = inject.Registry(cmp.Or(f.stateDir, string(inject.DefaultRegistry())))
			switch {
			case f.all:
				return f.refreshAll(cmd)
			case f.pid != 0:
				return f.live(names)
			case f.format == formatHook:
				return f.lxcHook()
			case f.bundled():
				return f.editFile(cmd, filepath.Join(f.bundle, "config.json"), names)
			case f.file != "":
				return f.editFile(cmd, f.file, names)
			case f.format == formatLXC || f.format == formatIncus:
				return f.printLXC(cmd, names)
			case f.format == formatEnroot:
				return f.enroot(cmd, names)
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
	flags.StringVar(&f.file, "file", "", "container's configuration `file` to add the lines to (lxc, proxmox; default for lxc: print them)")
	addChoice(flags, &f.cgroup, "cgroup", "", "", "cgroup `version` of the device filter: v1, v2, or none for containers of ordinary users (lxc, proxmox; default: the host's)", "v1", "v2", "none")
	flags.StringVar(&f.rootfs, "rootfs", "", "container's root `directory`, in which symbolic links are resolved, since LXC does not follow them (lxc, proxmox; default: from the --file)")
	flags.StringVar(&f.userOwned, "user-owned", "", "`user` who owns the bundle or the --file, as USER or USER:GROUP by name or number: read and write with the rights of that user and group (root only; default group: the user's own)")
	flags.BoolVar(&f.remove, "remove", false, "take each DEVICE out of the file again, or all devices if none is named")
	flags.BoolVar(&f.all, "refresh", false, "inject again into all files that have devices, as the specs and device numbers now are")
	flags.IntVar(&f.pid, "pid", 0, "mount the devices in the running container of this `process`, until it ends")
	flags.StringVar(&f.stateDir, "state-dir", "", "`directory` with a record of each file that has devices (default: /var/lib/cdigen, for users other than root $XDG_STATE_HOME/cdigen)")
	f.require.add(flags)
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
	changed := cmd.Flags().Changed
	if changed("file") && !changed("format") {
		f.format = formatLXC // or Proxmox's, as the file is
	}
	lxc := f.format == formatLXC || f.format == inject.FormatProxmox
	if changed("bundle") && !f.bundled() {
		return fmt.Errorf("--bundle is for --format oci and oci-nspawn, not for %s", f.format)
	}
	for _, name := range []string{"file", "cgroup", "rootfs"} {
		if changed(name) && !lxc && (name != "rootfs" || f.format != formatIncus) {
			return fmt.Errorf("--%s is for --format lxc and proxmox, not for %s", name, f.format)
		}
	}
	file := f.bundled() || f.file != ""
	switch {
	case f.all && (len(names) > 0 || f.remove || f.print || changed("file") || changed("bundle") || changed("format") || f.userOwned != ""):
		return errors.New("--refresh is for all files as they are: it cannot be combined with devices, --file, --bundle, --format, --user-owned, --remove and --print")
	case f.all:
		return nil
	case changed("pid") && f.pid <= 0:
		return fmt.Errorf("--pid \"%d\": it must be above 0", f.pid)
	case f.pid != 0 && (f.remove || f.dryRun || f.print || changed("format") || changed("file") || changed("bundle") || f.userOwned != ""):
		return errors.New("--pid is for a running container: it can be combined with devices and --spec-dir only")
	case f.pid != 0 && os.Geteuid() != 0:
		return errors.New("--pid requires root")
	case f.format == formatHook && len(names) > 0:
		return errors.New("--format lxc-hook takes the devices from NVIDIA_VISIBLE_DEVICES")
	case f.format == formatHook && os.Getenv(lxcRoot) == "":
		return errors.New("--format lxc-hook is for mount hooks of LXC, which have a variable " + lxcRoot)
	case f.format == inject.FormatProxmox && !file:
		return errors.New("--format proxmox requires --file, such as /etc/pve/lxc/101.conf")
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
	case len(names) == 0 && !f.remove && f.file == "" && !changed("bundle") && !f.isEnrootHook() && f.format != formatHook:
		return errors.New("name the devices to inject, such as 0 or all: see cdigen list")
	}
	if f.rootfs != "" {
		f.rootfs, _ = filepath.Abs(f.rootfs) // it is there
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
	devices, broken := specdir.ReadDirectories(f.SpecDirs).Devices()
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

// contents returns what the named devices give a container.
func (f *injectFlags) contents(names []string) (*inject.Contents, error) {
	source, err := f.source(names, names)
	if err != nil {
		return nil, err
	}
	return source.Contents(names)
}

// lxcLines returns the lines of a configuration for contents. The container's root directory,
// in which links are resolved, is empty if it is not known; do has the rights to read it.
func (f *injectFlags) lxcLines(contents *inject.Contents, root string, do func(func() error) error) (lines, notes []string, err error) {
	cgroup := inject.Cgroup(f.cgroup)
	if cgroup == "" {
		cgroup = inject.HostCgroup()
	}
	rootfs := inject.OpenRootfs(root, f.last.Links, do)
	lines, notes, err = inject.LXC(contents, cgroup, rootfs)
	f.last.Links = rootfs.Links
	return lines, notes, err
}

// printLXC prints the lines for the configuration of an LXC container, or a profile of Incus.
func (f *injectFlags) printLXC(cmd *cobra.Command, names []string) error {
	contents, err := f.contents(names)
	if err != nil {
		return err
	}
	here := func(read func() error) error { return read() }
	var text []byte
	var notes []string
	if f.format == formatIncus {
		text, notes, err = inject.Incus(contents, inject.OpenRootfs(f.rootfs, nil, here))
	} else {
		var lines []string
		lines, notes, err = f.lxcLines(contents, f.rootfs, here)
		text = []byte((&inject.Block{}).With(names, lines))
	}
	if err != nil {
		return err
	}
	f.warn(notes)
	_, err = cmd.OutOrStdout().Write(text)
	return err
}

// printOptions prints options of a program's command line.
func (f *injectFlags) printOptions(cmd *cobra.Command, names []string) error {
	contents, err := f.contents(names)
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
