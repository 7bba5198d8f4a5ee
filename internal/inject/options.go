package inject

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"al.essio.dev/pkg/shellescape"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Nspawn returns options of systemd-nspawn(1). It lets a container use the device nodes
// that are bound into it, by itself.
func Nspawn(c *Contents) (args [][]string, notes []string, err error) {
	if err := c.present(); err != nil {
		return nil, nil, err
	}
	notes = leftOut(c.Hooks, c.Others, groups(c))
	option := func(name, value string) { args = append(args, []string{name + "=" + value}) }
	for _, env := range c.Env {
		option("--setenv", env)
	}
	var outside []string
	for _, n := range c.Nodes {
		source, inDev := n.inDev()
		if !inDev {
			outside = append(outside, source)
		}
		option("--bind", nspawnPair(source, n.Path))
	}
	notes = append(notes, outsideDev(outside)...)
	for _, m := range c.Mounts {
		switch {
		case isBind(m):
			name, value := "--bind", nspawnPair(m.Source, m.Destination)
			if slices.Contains(m.Options, "ro") {
				name = "--bind-ro"
			}
			if slices.Contains(m.Options, "bind") {
				value = nspawnEscape(m.Source) + ":" + nspawnEscape(m.Destination) + ":norbind"
			}
			option(name, value)
		case m.Type == "tmpfs":
			value := nspawnEscape(m.Destination)
			if len(m.Options) > 0 {
				value += ":" + strings.Join(m.Options, ",")
			}
			option("--tmpfs", value)
		default:
			notes = append(notes, leftOut([]string{m.Type + " at " + m.Destination})...)
		}
	}
	return args, notes, nil
}

// inDev returns a path of the node on the host that is in /dev, usually the same as in the
// container; ok is false if there is none. systemd's device filter takes no other paths.
func (n Node) inDev() (hostPath string, ok bool) {
	for _, p := range []string{n.HostPath, n.Path} {
		var node, s unix.Stat_t
		if strings.HasPrefix(path.Clean(p), "/dev/") && unix.Stat(n.HostPath, &node) == nil && unix.Stat(p, &s) == nil &&
			node.Rdev == s.Rdev && node.Mode&unix.S_IFMT == s.Mode&unix.S_IFMT {
			return p, true
		}
	}
	return n.HostPath, false
}

// outsideDev returns a note on paths of device nodes, if there are any.
func outsideDev(paths []string) []string {
	if len(paths) == 0 {
		return nil
	}
	return []string{"systemd-nspawn takes device nodes outside /dev with --keep-unit only: " + strings.Join(paths, ", ")}
}

func nspawnEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(path)
}

// nspawnPair returns an option's value of a path of the host and one in the container.
func nspawnPair(source, destination string) string {
	if source == destination {
		return nspawnEscape(source)
	}
	return nspawnEscape(source) + ":" + nspawnEscape(destination)
}

// Docker returns options of docker run, of 17.06 and later.
func Docker(c *Contents) (args [][]string, notes []string, err error) {
	// Others than these and "ro" Docker refuses.
	return engine(c, []string{"shared", "rshared", "slave", "rslave", "private"}, false)
}

// Podman returns options of podman run.
func Podman(c *Contents) (args [][]string, notes []string, err error) {
	return engine(c, []string{"nosuid", "nodev", "noexec", "shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"}, true)
}

// engine returns options that Docker and podman have alike; known are the options of
// mounts that this one has beyond "ro".
func engine(c *Contents, known []string, podman bool) (args [][]string, notes []string, err error) {
	if err := c.present(); err != nil {
		return nil, nil, err
	}
	notes = leftOut(c.Hooks, c.Others)
	add := func(name, value string) { args = append(args, []string{name, value}) }
	for _, env := range c.Env {
		add("-e", env)
	}
	for _, g := range c.Groups {
		add("--group-add", strconv.FormatUint(uint64(g), 10))
	}
	given := map[rule]bool{}
	var bound []Node
	for _, n := range c.Nodes {
		if strings.Contains(n.HostPath+n.Path, ":") || n.Type == "p" || n.Access == "" {
			bound = append(bound, n)
			continue
		}
		add("--device", n.HostPath+":"+n.Path+":"+n.Access)
		given[rule{n.kind(), n.Major, n.Minor, ""}] = true
	}
	for _, n := range bound {
		// --device cannot express a colon. Its filter is set by the device's other
		// nodes; where there is none, by a rule.
		mount := []string{"type=bind", "source=" + n.HostPath, "target=" + n.Path}
		if podman {
			mount = append(mount, "dev") // podman-run(1): by default it is nodev
		}
		add("--mount", commas(mount))
		if r := (rule{n.kind(), n.Major, n.Minor, ""}); n.Type != "p" && n.Access != "" && !given[r] {
			given[r] = true
			add("--device-cgroup-rule", fmt.Sprintf("%s %d:%d %s", r.kind, r.major, r.minor, n.Access))
		}
	}
	for _, m := range c.Mounts {
		switch {
		case isBind(m):
			args = append(args, bind(m, known, podman))
		case m.Type == "tmpfs":
			value := m.Destination
			if len(m.Options) > 0 {
				value += ":" + strings.Join(m.Options, ",")
			}
			add("--tmpfs", value)
		default:
			notes = append(notes, leftOut([]string{m.Type + " at " + m.Destination})...)
		}
	}
	return args, notes, nil
}

// bind returns the option for a bind mount.
func bind(m oci.Mount, known []string, podman bool) []string {
	propagation := []string{"private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"}
	var options []string
	for _, o := range m.Options {
		if o == "ro" || slices.Contains(known, o) {
			options = append(options, o)
		}
	}
	if !strings.Contains(m.Source+m.Destination, ":") {
		value := m.Source + ":" + m.Destination
		if len(options) > 0 {
			value += ":" + strings.Join(options, ",")
		}
		return []string{"-v", value}
	}
	mount := []string{"type=bind", "source=" + m.Source, "target=" + m.Destination}
	for _, o := range options {
		switch {
		case o == "ro":
			mount = append(mount, "readonly")
		case slices.Contains(propagation, o):
			mount = append(mount, "bind-propagation="+o)
		case podman:
			mount = append(mount, o)
		}
	}
	return []string{"--mount", commas(mount)}
}

// commas joins the fields of --mount, which are one record of comma-separated values.
func commas(fields []string) string {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write(fields) // into memory
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// Words returns options as text, one on each line with its value, for $(…) in a shell, which
// splits them at white space and expands patterns. If a word has one of these, quoted is
// true: all words are quoted and lines are joined with backslashes, for eval.
func Words(args [][]string) (text string, quoted bool) {
	for _, words := range args {
		for _, w := range words {
			// A backslash is nothing special in $(…).
			bare := strings.ReplaceAll(w, `\`, "/")
			quoted = quoted || shellescape.Quote(bare) != bare
		}
	}
	lines := make([]string, 0, len(args))
	for _, words := range args {
		if quoted {
			lines = append(lines, shellescape.QuoteCommand(words))
		} else {
			lines = append(lines, strings.Join(words, " "))
		}
	}
	if quoted {
		return strings.Join(lines, " \\\n") + "\n", true
	}
	return strings.Join(lines, "\n") + "\n", false
}
