// Command parity compares what cdigen and nvidia-ctk put into a container, for each mode of
// nvidia-ctk: the device nodes, and the names of the files that they mount or link.
//
//	parity -cdigen bin/cdigen -nvidia-ctk PATH -doc docs/parity.md ROOT...
//
// A ROOT is a real driver root that internal/driverroots makes, for the modes that mount the
// driver. Differences are printed; the exit status is 1 when one is not listed in
// docs/parity.md with a reason. What cdigen adds of the driver need not be listed.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/driverroots"
)

func main() {
	cdigen := flag.String("cdigen", "bin/cdigen", "the program under test")
	peer := flag.String("nvidia-ctk", "", "the program to compare with")
	doc := flag.String("doc", "docs/parity.md", "the list of known differences")
	flag.Parse()
	known, err := readKnown(*doc)
	unlisted := 0
	for _, m := range modes {
		roots := flag.Args()
		if !m.root {
			roots = []string{""}
		}
		for _, root := range roots {
			var n int
			if err == nil {
				n, err = compare(m, root, *cdigen, *peer, known)
				unlisted += n
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "parity:", err)
		os.Exit(1)
	}
	if unlisted > 0 {
		fmt.Fprintf(os.Stderr, "parity: %d differences are not listed in %s\n", unlisted, *doc)
		os.Exit(1)
	}
}

// mode is a mode of nvidia-ctk, which is compared with a kind of cdigen.
type mode struct {
	name, kind string
	// host is the description of the simulated host, which has the driver itself unless
	// root says that it is to be a real one.
	host string
	root bool
	// args are further ones of nvidia-ctk, with HOST for the root of the host.
	args []string
	// store is the directory of the driver that Windows names, below the root of the host.
	store string
}

// lists is the directory with the files of Tegra systems that containers get.
const lists = "/etc/nvidia-container-runtime/host-files-for-container.d/"

var modes = []mode{
	{"nvml", "gpu", "h100x8", true, nil, ""},
	{"management", "management", "everything", true, nil, ""},
	{"gds", "gds", "everything", false, nil, ""},
	{"gdrcopy", "gdrcopy", "everything", false, nil, ""},
	{"mofed", "mofed", "everything", false, nil, ""},
	{"imex", "imex-channel", "everything", false, nil, ""},
	{"nvswitch", "nvswitch", "everything", false, nil, ""},
	// It looks for the lists at their places below the root of the machine only.
	{"csv", "gpu", "tegra-orin", false, []string{"--csv.file=HOST" + lists + "devices.csv", "--csv.file=HOST" + lists + "drivers.csv"}, ""},
	// It has no device all, which is the default.
	{"mig-caps", "mig-caps", "everything", false, []string{"--device-id=config", "--device-id=monitor", "--no-all-device"}, ""},
	{"wsl", "gpu", "wsl", false, nil, "/usr/lib/wsl/drivers/nv_dispi.inf_amd64_0a00000000000002"},
}

// difference is one that docs/parity.md lists: a row of one of its tables.
type difference struct {
	mode    string // empty: any
	pattern string
	more    bool // of cdigen's only
	reason  string
}

// knownRow is a row with a pattern of a name and a reason, and before them in the second
// table the mode and who has it.
var knownRow = regexp.MustCompile("(?m)^\\| (?:`([^`]+)` \\| (nvidia-ctk|cdigen) \\| )?`([^`]+)` \\| (.+) \\|$")

func readKnown(doc string) (list []difference, err error) {
	data, err := os.ReadFile(doc)
	if err != nil {
		return nil, err
	}
	for _, m := range knownRow.FindAllStringSubmatch(string(data), -1) {
		list = append(list, difference{mode: m[1], more: m[2] == "cdigen", pattern: m[3], reason: m[4]})
	}
	return list, nil
}

// place is a simulated host with a driver, in a directory that is removed afterwards.
type place struct {
	work, host, driver string
	arch, version      string
	env                []string // of nvidia-ctk
}

// dxcore compiles a stand-in for Windows' library, with the driver in the directory store, and
// returns the environment in which nvidia-ctk finds it.
func dxcore(work, store string) ([]string, error) {
	cmd := exec.Command(cmp.Or(os.Getenv("CC"), "cc"), "-shared", "-fPIC", "-Wall", "-Werror", "-o", filepath.Join(work, "libdxcore.so"), "internal/parity/src/dxcore.c")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return []string{"LD_LIBRARY_PATH=" + work, "FAKE_DXCORE_STORE=" + store}, nil
}

// prepare makes the host of a mode in a directory beside the driver root, so that files of
// that can be linked instead of copied; without one the host has its own driver.
func prepare(m mode, dir string) (p place, err error) {
	beside := filepath.Dir(dir)
	if dir == "" {
		beside = ""
	}
	if p.work, err = os.MkdirTemp(beside, "parity-"); err != nil {
		return p, err
	}
	d, err := simhost.Load(filepath.Join("testdata/hosts", m.host+".yaml"))
	if err != nil {
		return p, err
	}
	if dir == "" {
		p.host, err = driverroots.Simulated(p.work, d)
		p.driver, p.version, p.arch = p.host, d.Driver.Version, cmp.Or(d.Arch, "amd64")
		if err == nil && m.store != "" {
			p.env, err = dxcore(p.work, filepath.Join(p.host, m.store))
		}
		return p, err
	}
	root, err := driverroots.Open(dir)
	if err != nil {
		return p, err
	}
	p.version, p.arch = root.Version, root.Arch
	if p.host, p.driver, err = driverroots.WithFakeNVML(p.work, dir, d); err != nil {
		return p, err
	}
	// nvidia-ctk does not follow links that lead over /etc/alternatives of another root, and
	// looks at the names that the newest series has.
	for _, dir := range []string{filepath.Dir(root.Libraries), "usr/lib/nvidia"} {
		if err := os.Symlink(filepath.Base(root.Libraries), filepath.Join(p.driver, dir, "current")); err != nil && !os.IsExist(err) {
			return p, err
		}
	}
	return p, nil
}

func compare(m mode, dir, cdigen, peer string, known []difference) (unlisted int, err error) {
	p, err := prepare(m, dir)
	defer func() { _ = os.RemoveAll(p.work) }()
	if err != nil {
		return 0, err
	}
	ours, err := names(p.work, "cdigen.yaml", nil, cdigen, "generate", "--kind", m.kind, "--arch", p.arch, "--driver-root", p.driver, "--dev-root", p.host,
		"--proc-root", filepath.Join(p.host, "proc"), "--sys-root", filepath.Join(p.host, "sys"), "--output")
	if err != nil {
		return 0, err
	}
	args := []string{"--quiet", "cdi", "generate", "--mode", m.name, "--driver-root", p.driver, "--dev-root", p.host}
	for _, arg := range m.args {
		args = append(args, strings.ReplaceAll(arg, "HOST", p.host))
	}
	theirs, err := names(p.work, "nvidia-ctk.yaml", p.env, peer, append(args, "--output")...)
	if err != nil {
		return 0, err
	}
	fmt.Printf("mode %s, driver %s: nvidia-ctk has %d names, cdigen %d\n", m.name, p.version, len(theirs), len(ours))
	for _, more := range []bool{false, true} {
		from, others, what := theirs, ours, "without"
		if more {
			from, others, what = ours, theirs, "more"
		}
		for _, name := range from {
			if slices.Contains(others, name) {
				continue
			}
			reason := reasonFor(known, m.name, more, name, p.version)
			if reason == "" && (!more || !m.root) {
				unlisted++
				reason = "NOT LISTED"
			}
			fmt.Printf("  %s %s: %s\n", what, name, reason)
		}
	}
	return unlisted, nil
}

// names runs a generator and lists what its spec has: the paths of device nodes, and the names
// of files that it mounts, or links by a hook.
func names(work, output string, env []string, program string, args ...string) ([]string, error) {
	output = filepath.Join(work, output)
	cmd := exec.Command(program, append(args, output)...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program, err, out)
	}
	data, err := os.ReadFile(output)
	if err != nil {
		return nil, err
	}
	var s specs.Spec
	if err := yaml.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	var list []string
	edits := []specs.ContainerEdits{s.ContainerEdits}
	for _, d := range s.Devices {
		edits = append(edits, d.ContainerEdits)
	}
	for _, e := range edits {
		for _, m := range e.Mounts {
			list = append(list, path.Base(m.ContainerPath))
		}
		for _, n := range e.DeviceNodes {
			list = append(list, n.Path)
		}
		for _, h := range e.Hooks {
			for _, arg := range h.Args {
				if _, link, ok := strings.Cut(arg, "::"); ok {
					list = append(list, path.Base(link))
				}
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// reasonFor returns why one of the programs does not have a name; empty: none is listed.
func reasonFor(known []difference, mode string, more bool, name, version string) string {
	for _, d := range known {
		ok, _ := path.Match(strings.ReplaceAll(d.pattern, "VERSION", version), name)
		if ok && d.more == more && (d.mode == "" || d.mode == mode) {
			return d.reason
		}
	}
	return ""
}
