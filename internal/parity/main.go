// Command parity compares what cdigen and nvidia-ctk put into a container from a
// real driver root: every file name that nvidia-ctk mounts or links has to be
// there with cdigen too, or be listed with a reason in docs/parity.md.
//
//	parity -cdigen bin/cdigen -nvidia-ctk PATH -doc docs/parity.md ROOT...
//
// A ROOT is one that internal/driverroots makes. Differences are printed; the
// exit status is 1 when one is not listed.
package main

import (
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

	"github.com/cdigen/cdigen/internal/driverroots"
	"github.com/cdigen/cdigen/internal/simhost"
)

func main() {
	cdigen := flag.String("cdigen", "bin/cdigen", "the program under test")
	peer := flag.String("nvidia-ctk", "", "the program to compare with")
	doc := flag.String("doc", "docs/parity.md", "the list of known differences")
	host := flag.String("host", "testdata/hosts/h100x8.yaml", "description of the simulated host with the GPUs")
	flag.Parse()
	known, err := readKnown(*doc)
	unlisted := 0
	for _, dir := range flag.Args() {
		var n int
		if err == nil {
			n, err = compare(dir, *host, *cdigen, *peer, known)
			unlisted += n
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

// knownRow is a row of the table in docs/parity.md: a pattern and a reason.
var knownRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.+) \\|$")

func readKnown(doc string) (map[string]string, error) {
	data, err := os.ReadFile(doc)
	if err != nil {
		return nil, err
	}
	known := map[string]string{}
	for _, m := range knownRow.FindAllStringSubmatch(string(data), -1) {
		known[m[1]] = m[2]
	}
	return known, nil
}

func compare(dir, description, cdigen, peer string, known map[string]string) (unlisted int, err error) {
	root, err := driverroots.Open(dir)
	if err != nil {
		return 0, err
	}
	// Beside the root, so that its files can be linked instead of copied.
	work, err := os.MkdirTemp(filepath.Dir(dir), "parity-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	d, err := simhost.Load(description)
	if err != nil {
		return 0, err
	}
	host, driver, err := driverroots.WithFakeNVML(work, dir, d)
	if err != nil {
		return 0, err
	}
	ours, err := names(work, "cdigen.yaml", cdigen, "generate", "--arch", root.Arch, "--driver-root", driver, "--dev-root", host,
		"--proc-root", filepath.Join(host, "proc"), "--sys-root", filepath.Join(host, "sys"), "--output")
	if err != nil {
		return 0, err
	}
	// nvidia-ctk does not follow links that lead over /etc/alternatives of another root, and
	// looks at the names that the newest series has.
	for _, dir := range []string{filepath.Dir(root.Libraries), "usr/lib/nvidia"} {
		if err := os.Symlink(filepath.Base(root.Libraries), filepath.Join(driver, dir, "current")); err != nil && !os.IsExist(err) {
			return 0, err
		}
	}
	theirs, err := names(work, "nvidia-ctk.yaml", peer, "--quiet", "cdi", "generate", "--mode", "nvml",
		"--driver-root", driver, "--dev-root", host, "--output")
	if err != nil {
		return 0, err
	}
	fmt.Printf("%s (driver %s): nvidia-ctk has %d file names, cdigen %d\n", dir, root.Version, len(theirs), len(ours))
	for _, name := range theirs {
		if slices.Contains(ours, name) {
			continue
		}
		reason := reasonFor(name, root.Version, known)
		if reason == "" {
			unlisted++
			reason = "NOT LISTED"
		}
		fmt.Printf("  without %s: %s\n", name, reason)
	}
	for _, name := range ours {
		if !slices.Contains(theirs, name) {
			fmt.Printf("  more: %s\n", name)
		}
	}
	return unlisted, nil
}

// names runs a generator and lists the names of files that its spec mounts, or
// links by a hook.
func names(work, output, program string, args ...string) ([]string, error) {
	output = filepath.Join(work, output)
	if out, err := exec.Command(program, append(args, output)...).CombinedOutput(); err != nil {
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
			list = append(list, path.Base(n.Path))
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

func reasonFor(name, version string, known map[string]string) string {
	for pattern, reason := range known {
		if ok, _ := path.Match(strings.ReplaceAll(pattern, "VERSION", version), name); ok {
			return reason
		}
	}
	return ""
}
