package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/capture"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/table"
)

// environmentName is the variable that stands for a flag.
func environmentName(flag string) string {
	return "CDIGEN_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// environmentAnnotation is on flags that a variable has set.
const environmentAnnotation = "cdigen_environment"

// noVariable is the annotation of a flag for which no variable stands, since the
// variable means another command's.
const noVariable = "cdigen_no_variable"

func withoutVariable(flags *pflag.FlagSet, name string) {
	if err := flags.SetAnnotation(name, noVariable, []string{}); err != nil {
		panic(err) // there is no such flag
	}
}

// hasVariable says whether one stands for a flag.
func hasVariable(flag string) bool { return flag != "help" && flag != "version" }

// flagsFromEnvironment sets each flag that was not given from its variable.
func flagsFromEnvironment(cmd *cobra.Command) error {
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := environmentName(f.Name)
		value, ok := os.LookupEnv(name)
		if !ok || f.Changed || !hasVariable(f.Name) || f.Annotations[noVariable] != nil {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s=%q: %w", name, value, err))
			return
		}
		if err := cmd.Flags().SetAnnotation(f.Name, environmentAnnotation, []string{name}); err != nil {
			errs = append(errs, err)
		}
	})
	if len(errs) > 0 {
		return usageError(errors.Join(errs...))
	}
	return nil
}

// hostFlags say which host is looked at, and how.
type hostFlags struct {
	driverRoot, devRoot, procRoot, sysRoot string
	devNodes                               string
	librarySearchPath                      []string
	arch                                   string
	mpsDirectory                           string
	nvmlProbe                              string
	nvmlTimeout                            time.Duration
	noNVML                                 bool
	// late: the roots of the driver and of the device nodes may come later, and the host
	// is looked at more than once.
	late bool
	// pci: GPUs without NVIDIA's driver are looked for too.
	pci bool
	// captured is another host that is looked at instead; nil: none is.
	captured *capture.Capture
}

// addRoots adds the flags of where things are, for commands that need neither sysfs nor
// the user-space driver.
func (f *hostFlags) addRoots(flags *pflag.FlagSet) {
	f.arch, f.sysRoot = runtime.GOARCH, "/"
	flags.StringVar(&f.driverRoot, "driver-root", "/", "`directory` the user-space driver is installed below")
	flags.StringVar(&f.devRoot, "dev-root", "", "`directory` that has dev/ with the device nodes (default: the driver root where it has dev/nvidiactl, else /)")
	flags.StringVar(&f.procRoot, "proc-root", "/proc", "`directory` of the proc file system")
	flags.StringVar(&f.devNodes, "dev-nodes", "", "`file` with a table of device nodes that stand in for those of the dev root, for recorded and simulated hosts")
}

func (f *hostFlags) add(flags *pflag.FlagSet) {
	f.addRoots(flags)
	flags.StringVar(&f.sysRoot, "sys-root", "/sys", "`directory` of the sys file system")
	flags.StringSliceVar(&f.librarySearchPath, "library-search-path", nil, "further `directories` of the driver root to search for libraries, before all others")
	flags.StringVar(&f.arch, "arch", runtime.GOARCH, "`architecture` of the driver, by its Go name (amd64, arm64)")
	flags.StringVar(&f.mpsDirectory, "mps-directory", "", "`directory` with the pipes of the host's CUDA multi-process service, for containers to be its clients, such as /tmp/nvidia-mps (default: none, they are not)")
	flags.StringVar(&f.nvmlProbe, "nvml-probe", "", "`path` of cdigen-nvml (default: beside cdigen, then in PATH)")
	flags.DurationVar(&f.nvmlTimeout, "nvml-timeout", 10*time.Second, "time limit of the NVML probe")
	flags.BoolVar(&f.noNVML, "no-nvml", false, "do not ask NVML: MIG devices have no UUID and a lost GPU goes unnoticed")
}

// addCaptured adds the flag for commands that can look at a captured host as well.
func (f *hostFlags) addCaptured(flags *pflag.FlagSet) {
	flags.Var(&capturedFlag{f: f}, "captured", "`file` that cdigen capture has made of another host, to look at instead of this one")
}

// capturedFlag reads the file when it is set, since other flags need the architecture.
type capturedFlag struct {
	f    *hostFlags
	file string
}

func (c *capturedFlag) String() string { return c.file }

// Type is that of a path.
func (c *capturedFlag) Type() string { return "string" }

// Set reads the file.
func (c *capturedFlag) Set(file string) error {
	data, err := readGiven(file)
	if err == nil {
		c.f.captured, err = capture.Parse(data)
	}
	if err != nil {
		return err
	}
	c.file, c.f.arch = file, c.f.captured.Arch
	return nil
}

// checkCaptured refuses flags that say where to look on this machine. Variables that do
// so are of no account: a flag goes before them.
func (f *hostFlags) checkCaptured(flags *pflag.FlagSet) error {
	if f.captured == nil {
		return nil
	}
	for _, name := range []string{"driver-root", "dev-root", "proc-root", "sys-root", "dev-nodes", "library-search-path", "mps-directory", "arch", "nvml-probe", "nvml-timeout"} {
		if flag := flags.Lookup(name); flag.Changed && flag.Annotations[environmentAnnotation] == nil {
			return usageError(fmt.Errorf("--captured and --%s: use one of them: a captured host is whole", name))
		}
	}
	return nil
}

// host opens the host the flags name.
func (f *hostFlags) host() (discover.Host, error) {
	if f.captured != nil {
		return f.captured.Host(), nil
	}
	if f.devRoot == "" {
		f.devRoot = discover.DriverRootDev(f.driverRoot)
	}
	for _, dir := range []struct {
		flag string
		path *string
	}{{"driver-root", &f.driverRoot}, {"dev-root", &f.devRoot}, {"proc-root", &f.procRoot}, {"sys-root", &f.sysRoot}} {
		absolute, err := filepath.Abs(*dir.path)
		if err != nil {
			return discover.Host{}, err
		}
		info, err := os.Stat(absolute)
		switch {
		case errors.Is(err, fs.ErrNotExist) && f.late && (dir.path == &f.driverRoot || dir.path == &f.devRoot):
		case err != nil:
			return discover.Host{}, usageError(fmt.Errorf("--%s: %w", dir.flag, err))
		case !info.IsDir():
			return discover.Host{}, usageError(fmt.Errorf("--%s: %s is not a directory", dir.flag, absolute))
		}
		*dir.path = absolute
	}
	if filepath.Base(f.devRoot) == "dev" {
		if _, err := os.Stat(filepath.Join(f.devRoot, "dev")); err != nil {
			return discover.Host{}, usageError(fmt.Errorf("--dev-root %s: it has no dev in it: name the directory above, %s", f.devRoot, filepath.Dir(f.devRoot)))
		}
	}
	if discover.Triplet(f.arch) == "" {
		return discover.Host{}, usageError(fmt.Errorf("--arch %q: NVIDIA has drivers for amd64 and arm64", f.arch))
	}
	host := discover.Local(f.arch, f.driverRoot, f.devRoot, f.procRoot, f.sysRoot)
	if f.devNodes == "" {
		return host, nil
	}
	table, err := readTrusted(f.devNodes, f.late)
	if err == nil {
		host.Dev, err = host.Dev.WithNodes(table)
	}
	if err != nil {
		return discover.Host{}, usageError(fmt.Errorf("--dev-nodes %s: %w", f.devNodes, err))
	}
	return host, nil
}

// discoverOptions are the options of the modules.
func (f *hostFlags) discoverOptions() (discover.Options, error) {
	if f.captured != nil {
		o := f.captured.Options()
		if f.noNVML {
			o.Probe = nil
		}
		return o, nil
	}
	if f.mpsDirectory != "" && !filepath.IsAbs(f.mpsDirectory) {
		return discover.Options{}, usageError(fmt.Errorf("--mps-directory %s: want an absolute path: containers have it under the same name", f.mpsDirectory))
	}
	o := discover.Options{PCI: f.pci, LibrarySearchPath: f.librarySearchPath, MPSDirectory: f.mpsDirectory}
	if f.noNVML {
		return o, nil
	}
	if f.nvmlTimeout <= 0 {
		return o, usageError(fmt.Errorf("--nvml-timeout %v: it must be more than 0", f.nvmlTimeout))
	}
	probe := f.nvmlProbe
	if probe == "" {
		probe = discover.FindProbe()
	}
	o.Probe = func(library string) discover.ProbeFunc {
		return discover.CommandProbe(probe, library, f.nvmlTimeout)
	}
	return o, nil
}

// logFlags say how the program talks.
type logFlags struct {
	level, format string
}

func (f *logFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.level, "log-level", "info", "least `level` that is logged: debug, info, warn or error")
	flags.StringVar(&f.format, "log-format", "text", "`format` of the log on standard error: text or json")
}

// setLog installs the logger that a command is asked for.
func setLog(flags *pflag.FlagSet) error {
	f := logFlags{"info", "text"}
	for name, value := range map[string]*string{"log-level": &f.level, "log-format": &f.format} {
		if flag := flags.Lookup(name); flag != nil {
			*value = flag.Value.String()
		}
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return usageError(fmt.Errorf("--log-level %q: use debug, info, warn or error", f.level))
	}
	o := &slog.HandlerOptions{Level: level}
	switch f.format {
	case "text":
		// The journal and terminals that log have a clock of their own.
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
		slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, o)))
	case "json":
		slog.SetDefault(slog.New(slog.NewJSONHandler(printable.JSON(os.Stderr), o)))
	default:
		return usageError(fmt.Errorf("--log-format %q: use text or json", f.format))
	}
	return nil
}

// addOutputFormat adds the flag of how a command prints what it found.
func addOutputFormat(flags *pflag.FlagSet, format *string, formats ...string) {
	flags.StringVarP(format, "output-format", "o", formats[0], alternatives(formats))
	setValues(flags, "output-format", formats...)
}

func checkOutputFormat(format string, formats ...string) error {
	if !slices.Contains(formats, format) {
		return usageError(fmt.Errorf("--output-format %q: use %s", format, alternatives(formats)))
	}
	return nil
}

// maybeFile adds to the error of a format that looks like a file, as generate -o takes
// one, which flag that is.
func maybeFile(err error, format, instead string) error {
	if !strings.ContainsAny(format, "./") {
		return err
	}
	return fmt.Errorf("%w: %s", err, instead)
}

// alternatives are words as in "table, json or csv".
func alternatives(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// colored says whether colours are wanted on standard output: on a terminal, unless
// --no-color or NO_COLOR (no-color.org) say no.
func colored(cmd *cobra.Command) bool {
	off, err := cmd.Flags().GetBool("no-color")
	return err == nil && !off && os.Getenv("NO_COLOR") == "" && table.IsTerminal(cmd.OutOrStdout())
}

// count is a number and a noun, "1 change" or "2 changes".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(printable.JSON(w))
	e.SetEscapeHTML(false) // commands have > and &
	e.SetIndent("", "  ")
	return e.Encode(v)
}
