package discover_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

func TestGPUThatAContainerWasNotGivenIsNotBroken(t *testing.T) {
	for name, c := range map[string]struct {
		mark     string   // of a container
		missing  []string // nodes
		withheld int
		broken   int
	}{
		"a host":                          {"", []string{"nvidia1", "nvidia2"}, 0, 2},
		"a container of podman":           {"run/.containerenv", []string{"nvidia1", "nvidia2"}, 2, 0},
		"a container of Docker":           {".dockerenv", []string{"nvidia0"}, 1, 0},
		"a container of LXC with systemd": {"run/systemd/container", []string{"nvidia1"}, 1, 0},
		"a container of LXC without it":   {"proc/1/environ", []string{"nvidia1"}, 1, 0},
		"an empty variable":               {"proc/1/environ=", []string{"nvidia1"}, 0, 1},
		"a container with all":            {"run/.containerenv", nil, 0, 0},
		"a container without any":         {"run/.containerenv", []string{"nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidia4", "nvidia5", "nvidia6", "nvidia7"}, 0, 8},
	} {
		t.Run(name, func(t *testing.T) {
			d, dir := hosttest.Load(t, "h100x8"), t.TempDir()
			d.MissingNodes = c.missing
			if err := d.Build(dir, simhost.Options{}); err != nil {
				t.Fatal(err)
			}
			if mark, empty := strings.CutSuffix(c.mark, "="); empty {
				writeIn(t, dir, mark, "PATH=/bin\x00container=\x00HOME=/\x00")
				c.mark = "" // it is a host
			} else if mark != "" {
				writeIn(t, dir, mark, "PATH=/bin\x00container=lxc\x00HOME=/\x00")
			}
			// NVML knows the GPUs with a node only, and numbers those.
			probe := changed(t, d.Probe(), func(r *nvmlprobe.Report) error {
				r.GPUs = slices.DeleteFunc(r.GPUs, func(g nvmlprobe.GPU) bool {
					return c.mark != "" && g.Minor != nil && slices.Contains(c.missing, "nvidia"+string(rune('0'+*g.Minor)))
				})
				for i := range r.GPUs {
					r.GPUs[i].Index = i
				}
				return nil
			})
			inv := discovered(t, hosttest.Reopen(t, d, dir), probe)
			withheld, broken := findings(inv, discover.NodeWithheld, ""), 0
			for _, f := range inv.Findings {
				if f.Severity == discover.Broken {
					broken++
				}
				if c.broken == 0 && f.Severity != discover.Note {
					t.Errorf("finding %+v", f)
				}
			}
			if len(withheld) != c.withheld || broken != c.broken {
				t.Errorf("%d findings of nodes that were not given, %d of what is broken; want %d and %d: %+v", len(withheld), broken, c.withheld, c.broken, inv.Findings)
			}
			for i := range inv.GPUs {
				if g := &inv.GPUs[i]; g.Withheld && g.Usable() {
					t.Errorf("%s is usable", g.Name())
				}
			}
			if got := len(inv.GPUs) - inv.Usable(); got != len(c.missing) {
				t.Errorf("%d GPUs are not usable; want %d", got, len(c.missing))
			}
		})
	}
}
