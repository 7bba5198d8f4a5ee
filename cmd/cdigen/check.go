package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/table"
	"github.com/cdigen/cdigen/spec"
)

// verdict of a check.
type verdict string

const (
	isTrue   verdict = "ok"
	isStale  verdict = "stale"
	isBroken verdict = "broken"
)

// checked is one thing that is wrong with a spec file, or that nothing is.
type checked struct {
	Verdict verdict `json:"verdict"`
	File    string  `json:"file"`
	Subject string  `json:"subject,omitempty"`
	Message string  `json:"message,omitempty"`
}

func newCheck() *cobra.Command {
	var f presentFlags
	formats := []string{"table", "json"}
	cmd := &cobra.Command{
		Use:   "check [FILE ...]",
		Short: "Check that a spec is valid and true of the host",
		Long: `check reads the published spec, or spec files, and says what is wrong with them:

  broken  engines cannot read it, or a container would fail to start: a path of
          the host is missing, or is not what it should be; a device node has
          other numbers; a hook cannot be run
  stale   containers start, but get what the host no longer has: files of another
          driver version, or other content than generate would write now

Give it the flags that the spec is generated with. A spec of another kind than
--vendor and --class say is not compared with the host's GPUs.

Exit statuses: 0 all true, 1 failed, 2 unusable flags, 5 stale, 6 broken.`,
		Example: `  cdigen check
  cdigen check /etc/cdi/*.yaml`,
		Args: usageArgs(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.log.set(); err != nil {
				return err
			}
			if err := checkOutputFormat(f.output, formats...); err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{f.spec.output}
			}
			now, inv, _, err := f.present(cmd)
			if err != nil {
				return err
			}
			kind := f.spec.vendor + "/" + f.spec.class
			var all []checked
			for _, file := range args {
				list := checkFile(file, kind, now, inv)
				if len(list) == 0 {
					list = []checked{{Verdict: isTrue, File: file}}
				}
				all = append(all, list...)
			}
			if f.output == "json" {
				err = writeJSON(cmd.OutOrStdout(), all)
			} else {
				err = writeChecked(cmd.OutOrStdout(), all, colored(cmd))
			}
			return cmp.Or(err, verdictError(all))
		},
	}
	f.add(cmd, formats...)
	return cmd
}

// verdictError is the exit status of what was found.
func verdictError(all []checked) error {
	count := func(v verdict) (n int) {
		for _, c := range all {
			if c.Verdict == v {
				n++
			}
		}
		return n
	}
	broken, stale := count(isBroken), count(isStale)
	switch {
	case broken > 0:
		return &exitError{exitBroken, fmt.Errorf("%d broken, %d stale: run cdigen generate", broken, stale)}
	case stale > 0:
		return &exitError{exitStale, fmt.Errorf("%d stale: run cdigen generate", stale)}
	}
	return nil
}

// checkFile says what is wrong with a spec file, the worst first.
func checkFile(file, kind string, now *specs.Spec, inv *discover.Inventory) (list []checked) {
	s, err := readSpec(file)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("there is no such file")
		}
		return []checked{{isBroken, file, "", oneLine(err.Error())}}
	}
	add := func(v verdict, subject, format string, a ...any) {
		c := checked{v, file, subject, fmt.Sprintf(format, a...)}
		if !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	all := []specs.ContainerEdits{s.ContainerEdits}
	for _, d := range s.Devices {
		all = append(all, d.ContainerEdits)
	}
	nodes := knownNodes(inv)
	for _, e := range all {
		for _, m := range e.Mounts {
			if _, err := os.Stat(m.HostPath); err != nil {
				add(isBroken, m.HostPath, "%v", reason(err))
			} else if version, ok := otherVersion(m.HostPath, inv.Driver.Version); ok && s.Kind == kind {
				add(isStale, m.HostPath, "of driver %s; loaded is %s", version, inv.Driver.Version)
			}
		}
		for _, n := range e.DeviceNodes {
			if err := checkNode(n, nodes); err != nil {
				add(isBroken, cmp.Or(n.HostPath, n.Path), "%v", err)
			}
		}
		for _, h := range e.Hooks {
			if err := checkHook(h.Path); err != nil {
				add(isBroken, h.Path, "hook: %v", reason(err))
			}
		}
	}
	switch {
	case s.Kind != kind:
	case now == nil:
		add(isStale, "", "the host has no usable GPU now")
	default:
		if n := len(spec.Diff(s, now)); n > 0 {
			add(isStale, "", "generate would write %d differences now: see cdigen diff", n)
		}
	}
	slices.SortStableFunc(list, func(a, b checked) int { return cmp.Compare(a.Verdict, b.Verdict) })
	return list
}

// reason is an error without the path, which stands beside it.
func reason(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}

// versioned is the file name of a library of the driver's own version.
var versioned = regexp.MustCompile(`^lib(?:cuda|nvidia-ml|nvidia-ptxjitcompiler|nvidia-glcore|nvcuvid)\.so\.(\d+\.\d+(?:\.\d+)?)$`)

// otherVersion is the driver's version in the path of one of its libraries, if it is
// not the loaded one.
func otherVersion(path, loaded string) (version string, other bool) {
	m := versioned.FindStringSubmatch(filepath.Base(path))
	if m == nil || loaded == "" || m[1] == loaded {
		return "", false
	}
	return m[1], true
}

// knownNodes are the device nodes that were found, by their path on the host. Those
// of a table stand in for nodes that do not exist.
func knownNodes(inv *discover.Inventory) map[string]discover.DeviceNode {
	nodes := map[string]discover.DeviceNode{}
	add := func(list ...discover.DeviceNode) {
		for _, n := range list {
			nodes[n.HostPath] = n
		}
	}
	add(inv.ControlNodes...)
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if g.Node != nil {
			add(*g.Node)
		}
		add(g.DRM...)
		for _, d := range g.MIGDevices {
			add(d.Nodes...)
		}
	}
	return nodes
}

// checkNode says why a device node cannot be given to a container.
func checkNode(n *specs.DeviceNode, nodes map[string]discover.DeviceNode) error {
	path := cmp.Or(n.HostPath, n.Path)
	kind, major, minor := "c", int64(nodes[path].Major), int64(nodes[path].Minor)
	if _, known := nodes[path]; !known {
		var s unix.Stat_t
		if err := unix.Stat(path, &s); err != nil {
			return err
		}
		switch s.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
		case unix.S_IFBLK:
			kind = "b"
		default:
			return errors.New("not a device node")
		}
		major, minor = int64(unix.Major(s.Rdev)), int64(unix.Minor(s.Rdev))
	}
	pinned := n.Major != 0 || n.Minor != 0
	if n.Type != "" && n.Type != kind && (n.Type != "u" || kind != "c") || pinned && (n.Major != major || n.Minor != minor) {
		return fmt.Errorf("it is %s %d:%d and not %s %d:%d", kind, major, minor, n.Type, n.Major, n.Minor)
	}
	return nil
}

func writeChecked(w io.Writer, all []checked, color bool) error {
	colors := map[verdict]table.Color{isTrue: table.Green, isStale: table.Yellow, isBroken: table.Red}
	t := table.New(w, "STATE", "FILE", "SUBJECT", "FINDING")
	for _, c := range all {
		t.Row(colors[c.Verdict].Paint(string(c.Verdict), color), oneLine(c.File), dash(c.Subject), dash(c.Message))
	}
	return t.Flush()
}
