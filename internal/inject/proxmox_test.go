package inject

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pve is what Proxmox makes of a container's configuration: it reads the file into sections
// with keys, comments and lxc lines, and writes it from these.
type pve struct {
	sections map[string]*pveSection // the container's own is ""
}

type pveSection struct {
	comment string
	keys    map[string]string
	lxc     [][2]string
}

var (
	pveSectionLine = regexp.MustCompile(`(?i)^\[([a-z][a-z0-9_\-]+|pve:pending)\]\s*$`)
	pveLXCLine     = regexp.MustCompile(`^(lxc\.[a-z0-9_\-.]+)(:|\s*=)\s*(.*?)\s*$`)
	pveKeyLine     = regexp.MustCompile(`^([a-z][a-z_]*\d*):\s*(.+?)\s*$`)
)

func newPVESection() *pveSection { return &pveSection{keys: map[string]string{}} }

func readPVE(t *testing.T, text string) *pve {
	t.Helper()
	at := newPVESection()
	p := &pve{map[string]*pveSection{"": at}}
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case strings.TrimSpace(line) == "":
		case pveSectionLine.MatchString(line):
			at = newPVESection()
			p.sections[pveSectionLine.FindStringSubmatch(line)[1]] = at
		case line[0] == '#':
			at.comment += strings.NewReplacer("%3A", ":", "%25", "%").Replace(line[1:]) + "\n"
		case pveLXCLine.MatchString(line):
			m := pveLXCLine.FindStringSubmatch(line)
			at.lxc = append(at.lxc, [2]string{m[1], m[3]})
		case pveKeyLine.MatchString(line):
			m := pveKeyLine.FindStringSubmatch(line)
			at.keys[m[1]] = m[2]
		default:
			t.Fatalf("Proxmox would lose %q", line)
		}
	}
	return p
}

func (p *pve) write() string {
	var b strings.Builder
	section := func(s *pveSection) {
		for line := range strings.Lines(s.comment) {
			b.WriteString("#" + strings.NewReplacer("%", "%25", ":", "%3A").Replace(line))
		}
		for _, key := range slices.Sorted(maps.Keys(s.keys)) {
			fmt.Fprintf(&b, "%s: %s\n", key, s.keys[key])
		}
		for _, l := range s.lxc {
			fmt.Fprintf(&b, "%s: %s\n", l[0], l[1])
		}
	}
	section(p.sections[""])
	for _, name := range append([]string{"pve:pending"}, slices.Sorted(maps.Keys(p.sections))...) {
		if s := p.sections[name]; s != nil && name != "" {
			b.WriteString("\n[" + name + "]\n")
			section(s)
			delete(p.sections, name)
		}
	}
	return b.String()
}

func (s *pveSection) clone() *pveSection {
	return &pveSection{s.comment, maps.Clone(s.keys), slices.Clone(s.lxc)}
}

const pveText = `# the family's films: 100%
# of them
hostname: films
arch: amd64
cores: 4
dev0: /dev/ttyUSB0,mode=0660

net0: name=eth0,bridge=vmbr0,type=veth
rootfs: local-lvm:vm-101-disk-0,size=8G
lxc.cgroup2.devices.allow = c 188:* rwm
lxc.mount.entry: /srv/films srv/films none bind,create=dir 0 0
`

// act does something that Proxmox's users do, to a configuration with devices and to one
// without alike.
func (p *pve) act(r *rand.Rand, n int) {
	own := p.sections[""]
	switch r.IntN(6) {
	case 0: // pct set
		own.keys["cores"] = strconv.Itoa(r.IntN(16) + 1)
		own.keys["memory"] = strconv.Itoa(r.IntN(1 << 16))
	case 1: // the notes
		own.comment = strings.Repeat("note: 5%\n", r.IntN(3))
	case 2: // pct snapshot
		name := fmt.Sprintf("snap%d", n%5)
		s := own.clone()
		s.keys["snaptime"] = strconv.Itoa(n)
		p.sections[name], own.keys["parent"] = s, name
	case 3: // pct delsnapshot
		delete(p.sections, fmt.Sprintf("snap%d", r.IntN(5)))
	case 4: // pending changes
		s := newPVESection()
		s.keys["cores"] = "8"
		p.sections["pve:pending"] = s
	case 5:
		delete(p.sections, "pve:pending")
	}
}

// Proxmox writes a file again 100 times, with changes and snapshots, between injections. No
// entry is lost or left, and afterwards the file is what it would be without any injection.
func TestProxmoxWritesTheFileAgain(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // repeatable
		with, without := pveText, pveText
		var values []string
		const file = "/var/lib/cdigen/proxmox-101.conf"
		for n := range 100 {
			if r.IntN(2) == 0 {
				nodes := []string{"/dev/nvidiactl,mode=0666", fmt.Sprintf("/dev/nvidia%d,mode=0666", r.IntN(4))}
				values = Union(values, nodes)
				p, err := ParseProxmox(with, file, values)
				check(t, err)
				with, err = p.With(file, nodes)
				check(t, err)
				again, err := ParseProxmox(with, file, values)
				check(t, err)
				if same, err := again.With(file, nodes); err != nil || same != with {
					t.Fatalf("seed %d, step %d: injected twice it is\n%s\nonce\n%s", seed, n, same, with)
				}
				own := readPVE(t, with).sections[""]
				if got := slices.Collect(maps.Values(own.keys)); !slices.Contains(got, nodes[0]) || !slices.Contains(got, nodes[1]) ||
					strings.Count(strings.Join(got, "\n"), "/dev/nvidia") != 2 || !slices.Contains(own.lxc, [2]string{"lxc.include", file}) {
					t.Fatalf("seed %d, step %d: the container has\n%s", seed, n, with)
				}
				continue
			}
			a, b := readPVE(t, with), readPVE(t, without)
			a.act(rand.New(rand.NewPCG(seed, uint64(n))), n) //nolint:gosec // the same for both
			b.act(rand.New(rand.NewPCG(seed, uint64(n))), n) //nolint:gosec // the same for both
			with, without = a.write(), b.write()
		}
		p, err := ParseProxmox(with, file, values)
		check(t, err)
		if got := p.Without(); got != without {
			t.Fatalf("seed %d: without devices it is\n%s\nwant\n%s", seed, got, without)
		}
	}
}

func TestProxmoxIsPutInAndTakenOut(t *testing.T) {
	const file, value = "/var/lib/cdigen/proxmox-101.conf", "/dev/nvidia0,mode=0666"
	for _, text := range []string{"", "arch: amd64\n", "arch: amd64", "arch: amd64\r\n", "\n\narch: amd64\n\n\n", pveText, "arch: amd64\n\n[snap1]\narch: amd64", "[snap1]\narch: amd64\n"} {
		p, err := ParseProxmox(text, file, []string{value})
		check(t, err)
		with, err := p.With(file, []string{value})
		check(t, err)
		back, err := ParseProxmox(with, file, []string{value})
		check(t, err)
		if now, _ := back.Injected(); !now || back.Without() != text {
			t.Errorf("%q became %q and that %q", text, with, back.Without())
		}
	}
}

func TestProxmoxTakesWhatIsFree(t *testing.T) {
	p, err := ParseProxmox("dev0: /dev/a\ndev2: /dev/b\n", "/f", nil)
	check(t, err)
	got, err := p.With("/f", []string{"/dev/c", "/dev/d"})
	check(t, err)
	if want := "dev0: /dev/a\ndev2: /dev/b\ndev1: /dev/c\ndev3: /dev/d\nlxc.include: /f\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What users have changed is theirs.
func TestProxmoxKeepsWhatUsersHaveChanged(t *testing.T) {
	const text = "dev0: /dev/nvidia0,mode=0600\nlxc.include: /etc/own.conf\n"
	p, err := ParseProxmox(text+"lxc.include: /f\n[s]\nlxc.include = /f\n", "/f", []string{"/dev/nvidia0,mode=0666"})
	check(t, err)
	if got := p.Without(); got != text+"[s]\n" {
		t.Errorf("got %q", got)
	}
}

func TestProxmoxTakesLinesOfLXCOut(t *testing.T) {
	const block = "# cdigen inject: begin nvidia.com/gpu=0\nlxc.environment = A=1\n# cdigen inject: end\n"
	p, err := ParseProxmox("arch: amd64\n"+block, "/f", nil)
	check(t, err)
	if got := p.Without(); got != "arch: amd64\n" || !slices.Equal(p.Devices, []string{"nvidia.com/gpu=0"}) {
		t.Errorf("got %q, %q", got, p.Devices)
	}
	_, err = ParseProxmox(readPVE(t, "arch: amd64\n"+block).write(), "/f", nil)
	if err == nil || !strings.HasPrefix(err.Error(), "line 1: devices were injected as lines of LXC, which Proxmox has moved") {
		t.Errorf("moved: %v", err)
	}
}

func FuzzProxmox(f *testing.F) {
	f.Add(pveText)
	f.Add("a\n\n[s]\nlxc.include: /f\ndev1: /dev/x")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseProxmox(text, "/f", []string{"/dev/x"})
		if err != nil {
			return
		}
		base := p.Without()
		plain, err := ParseProxmox(base, "/f", []string{"/dev/x"})
		check(t, err)
		with, err := plain.With("/f", []string{"/dev/x"})
		if err != nil {
			return // no number is free
		}
		back, err := ParseProxmox(with, "/f", []string{"/dev/x"})
		check(t, err)
		if got := back.Without(); got != base {
			t.Errorf("%q became %q and that %q", base, with, got)
		}
	})
}
