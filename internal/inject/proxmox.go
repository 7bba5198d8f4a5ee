package inject

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/lazyregexp"
)

// Proxmox is the configuration of a container of Proxmox VE, VMID.conf.
//
// Proxmox writes this file again at each change: keys are sorted, comments are at the top of
// their section and percent-encoded, and each snapshot is a section with a copy of the
// container's own (parse_pct_config and write_pct_config in its PVE::LXC::Config). So
// what was injected is recognised by what it says and not by where it is: a line that
// includes a file of cdigen's own, and devN lines with the values that were injected.
type Proxmox struct {
	// Devices that were injected as lines of LXC, which are taken out.
	Devices []string
	lines   []string // with their ends
	main    int      // how many of these are in front of the first section
	ours    func(line string) bool
}

var (
	proxmoxLine    = lazyregexp.New(`^(?:lxc\.include(?::|\s*=)|(dev[0-9]+):)\s*(.*?)\s*$`)
	proxmoxKey     = lazyregexp.New(`^(?:arch|ostype|rootfs|hostname|memory|unprivileged): *\S`)
	proxmoxSection = lazyregexp.New(`^\[[A-Za-z][A-Za-z0-9_:-]*\]\s*$`)
	proxmoxFile    = lazyregexp.New(`^[1-9][0-9]*\.conf$`)
	proxmoxDevice  = lazyregexp.New(`^/dev/[A-Za-z0-9/_.+-]+$`)
)

// IsProxmox reports whether text is a configuration of Proxmox VE and not of LXC, whose
// lines have an equals sign.
func IsProxmox(text string) bool {
	return slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool { return proxmoxKey().MatchString(line) })
}

// ParseProxmox reads a configuration in which file may be included, and values be those of
// device nodes that were injected.
func ParseProxmox(text, file string, values []string) (*Proxmox, error) {
	block, err := ParseBlock(text)
	if err != nil {
		return nil, err
	}
	if len(block.Devices) > 0 {
		text = block.With(nil, nil)
	}
	p := &Proxmox{Devices: block.Devices, lines: slices.Collect(strings.Lines(text)), ours: func(line string) bool {
		m := proxmoxLine().FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		return m != nil && (m[1] == "" && m[2] == file || m[1] != "" && slices.Contains(values, m[2]))
	}}
	for i, line := range p.lines {
		if strings.HasPrefix(line, "# cdigen inject%3A begin") {
			return nil, fmt.Errorf("line %d: devices were injected as lines of LXC, which Proxmox has moved: remove this comment, the next one and the lxc.* lines of these devices first", i+1)
		}
	}
	p.main = slices.IndexFunc(p.lines, func(line string) bool { return proxmoxSection().MatchString(line) })
	if p.main < 0 {
		p.main = len(p.lines)
	}
	return p, nil
}

// ProxmoxNumber returns the number of the container that a file is the configuration of.
func ProxmoxNumber(file string) (vmid string, err error) {
	if name := path.Base(file); proxmoxFile().MatchString(name) {
		return strings.TrimSuffix(name, ".conf"), nil
	}
	return "", fmt.Errorf("%s is not called like a container's configuration of Proxmox, such as 101.conf", file)
}

// Injected reports whether devices were injected into the container, and into it or one of
// its snapshots.
func (p *Proxmox) Injected() (now, anywhere bool) {
	return slices.ContainsFunc(p.lines[:p.main], p.ours), slices.ContainsFunc(p.lines, p.ours)
}

// Values returns which of the values of device nodes are still in the file.
func (p *Proxmox) Values(values []string) (left []string) {
	for _, line := range p.lines {
		if m := proxmoxLine().FindStringSubmatch(strings.TrimRight(line, "\r\n")); m != nil && m[1] != "" && slices.Contains(values, m[2]) {
			left = Union(left, m[2:3])
		}
	}
	return left
}

// Without returns the file without anything that was injected, into snapshots neither.
func (p *Proxmox) Without() string {
	return join(slices.DeleteFunc(slices.Clone(p.lines), p.ours), p.lines)
}

// With returns the file with a container that includes a file and has device nodes. Snapshots
// stay as they are.
func (p *Proxmox) With(file string, values []string) (string, error) {
	own := p.lines[:p.main]
	if same(own, p.ours, file, values) {
		return strings.Join(p.lines, ""), nil
	}
	own = slices.DeleteFunc(slices.Clone(own), p.ours)
	used := map[string]bool{}
	for _, line := range own {
		key, _, _ := strings.Cut(line, ":")
		used[key] = true
	}
	var lines []string
	for n := 0; len(values) > 0; n++ {
		key := fmt.Sprint("dev", n)
		switch {
		case n > maxProxmoxDevices:
			return "", errors.New("all of dev0 to dev255 are in use")
		case !used[key]:
			lines, values = append(lines, key+": "+values[0]+"\n"), values[1:]
		}
	}
	lines = append(lines, "lxc.include: "+file+"\n")
	end := len(own)
	for end > 0 && strings.TrimSpace(own[end-1]) == "" {
		end--
	}
	if end > 0 && !strings.HasSuffix(own[end-1], "\n") {
		own[end-1] += "\n"
		lines[len(lines)-1] = strings.TrimSuffix(lines[len(lines)-1], "\n")
	}
	return strings.Join(slices.Concat(own[:end], lines, own[end:], p.lines[p.main:]), ""), nil
}

// maxProxmoxDevices is the last N of devN.
const maxProxmoxDevices = 255

// same reports whether what was injected into lines is this file and these values.
func same(lines []string, ours func(string) bool, file string, values []string) bool {
	var have []string
	for _, line := range lines {
		if ours(line) {
			have = append(have, proxmoxLine().FindStringSubmatch(strings.TrimRight(line, "\r\n"))[2])
		}
	}
	want := append(slices.Clone(values), file)
	slices.Sort(have)
	slices.Sort(want)
	return slices.Equal(have, want)
}

// join joins the lines that are left of some. Without the newline at the end of the file,
// a new last line has none.
func join(left, all []string) string {
	text := strings.Join(left, "")
	if len(all) > 0 && !strings.HasSuffix(all[len(all)-1], "\n") {
		text = strings.TrimSuffix(text, "\n")
	}
	return text
}

// ProxmoxDevices takes the device nodes out of contents that Proxmox can make itself, with
// current numbers and for the container's own users, and returns them as values of devN.
func ProxmoxDevices(c *Contents) (values []string, err error) {
	if err := c.present(); err != nil {
		return nil, err
	}
	c.Nodes = slices.DeleteFunc(slices.Clone(c.Nodes), func(n Node) bool {
		var s unix.Stat_t
		if n.Path != n.HostPath || n.Path != path.Clean(n.Path) || !proxmoxDevice().MatchString(n.Path) ||
			!strings.Contains(n.Access, "w") || unix.Stat(n.HostPath, &s) != nil {
			return false
		}
		values = append(values, fmt.Sprintf("%s,mode=0%03o", n.Path, s.Mode&0o777))
		return true
	})
	return values, nil
}
