package transform_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/internal/transform"
)

// transformed parses a spec, transforms it and returns it in YAML.
func transformed(t *testing.T, text string, tr transform.Roots) (string, int) {
	t.Helper()
	s, _, err := spectext.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	before, err := spectext.Encode(s, spectext.YAML)
	if err != nil {
		t.Fatal(err)
	}
	moved, count, err := tr.Apply(s)
	if err != nil {
		t.Fatal(err)
	}
	after, err := spectext.Encode(s, spectext.YAML)
	if err != nil || string(before.Bytes()) != string(after.Bytes()) {
		t.Errorf("the spec given was changed, %v: %s", err, cmp.Diff(string(before.Bytes()), string(after.Bytes())))
	}
	out, err := spectext.Encode(moved, spectext.YAML)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spectext.Validate(out.Bytes()); err != nil {
		t.Errorf("%v:\n%s", err, out.Bytes())
	}
	return string(out.Bytes()), count
}

// edits is a spec with edits, in YAML's flow style.
func specWith(edits string) string {
	return "cdiVersion: 0.5.0\nkind: vendor.com/device\ndevices:\n- name: a\n  containerEdits: " + edits + "\n"
}

func TestPathsAreMovedOnOneSide(t *testing.T) {
	host := func(from, to string) transform.Roots {
		return transform.Roots{From: from, To: to, Side: transform.HostSide}
	}
	container := func(from, to string) transform.Roots {
		return transform.Roots{From: from, To: to, Side: transform.ContainerSide}
	}
	for name, c := range map[string]struct {
		tr            transform.Roots
		edits, wanted string
		count         int
	}{
		"host paths of mounts": {
			host("/driver", "/run/x"),
			`{mounts: [{hostPath: /driver/lib/a, containerPath: /driver/lib/a}, {hostPath: /driver, containerPath: /b}, {hostPath: /driver/, containerPath: /c}]}`,
			`{mounts: [{hostPath: /run/x/lib/a, containerPath: /driver/lib/a}, {hostPath: /run/x, containerPath: /b}, {hostPath: /run/x/, containerPath: /c}]}`, 3,
		},
		"container paths of mounts": {
			container("/driver", "/run/x"),
			`{mounts: [{hostPath: /driver/lib/a, containerPath: /driver/lib/a}]}`, `{mounts: [{hostPath: /driver/lib/a, containerPath: /run/x/lib/a}]}`, 1,
		},
		"only whole components are the same": {
			host("/driver", "/x"),
			`{mounts: [{hostPath: /driver-backup/a, containerPath: /a}, {hostPath: /driver.d, containerPath: /b}, {hostPath: /y/driver/a, containerPath: /c}]}`,
			`{mounts: [{hostPath: /driver-backup/a, containerPath: /a}, {hostPath: /driver.d, containerPath: /b}, {hostPath: /y/driver/a, containerPath: /c}]}`, 0,
		},
		"slashes at the end of what is moved do not count": {
			host("/driver//", "/x/"),
			`{mounts: [{hostPath: /driver/a, containerPath: /a}]}`, `{mounts: [{hostPath: /x/a, containerPath: /a}]}`, 1,
		},
		"from the root": {
			host("/", "/run/x"),
			`{mounts: [{hostPath: /driver/a, containerPath: /a}, {hostPath: /, containerPath: /b}, {hostPath: tmpfs, containerPath: /c}]}`,
			`{mounts: [{hostPath: /run/x/driver/a, containerPath: /a}, {hostPath: /run/x, containerPath: /b}, {hostPath: tmpfs, containerPath: /c}]}`, 2,
		},
		"to the root": {
			host("/run/x", "/"),
			`{mounts: [{hostPath: /run/x/a, containerPath: /a}, {hostPath: /run/x, containerPath: /b}, {hostPath: /run/x/, containerPath: /c}]}`,
			`{mounts: [{hostPath: /a, containerPath: /a}, {hostPath: /, containerPath: /b}, {hostPath: /, containerPath: /c}]}`, 3,
		},
		"a path with dots in it is where it leads to": {
			host("/driver", "/x"),
			`{mounts: [{hostPath: /driver/../etc/a, containerPath: /a}, {hostPath: /y/../driver/./a, containerPath: /b}, {hostPath: //driver//a, containerPath: /c}]}`,
			`{mounts: [{hostPath: /driver/../etc/a, containerPath: /a}, {hostPath: /x/a, containerPath: /b}, {hostPath: /x/a, containerPath: /c}]}`, 2,
		},
		"host paths of nodes, which they get only where they need one": {
			host("/driver", "/x"),
			`{deviceNodes: [{path: /driver/dev/a}, {path: /dev/b}, {path: /dev/c, hostPath: /driver/dev/c}, {path: /driver/dev/d, hostPath: /dev/d}, {path: /x/dev/e, hostPath: /driver/dev/e}]}`,
			`{deviceNodes: [{path: /driver/dev/a, hostPath: /x/dev/a}, {path: /dev/b}, {path: /dev/c, hostPath: /x/dev/c}, {path: /driver/dev/d, hostPath: /dev/d}, {path: /x/dev/e}]}`, 3,
		},
		"container paths of nodes, which stay what they are on the host": {
			container("/driver", "/x"),
			`{deviceNodes: [{path: /driver/dev/a}, {path: /dev/b}, {path: /driver/dev/c, hostPath: /dev/c}, {path: /driver/dev/d, hostPath: /x/dev/d}, {path: /dev/e, hostPath: /driver/dev/e}]}`,
			`{deviceNodes: [{path: /x/dev/a, hostPath: /driver/dev/a}, {path: /dev/b}, {path: /x/dev/c, hostPath: /dev/c}, {path: /x/dev/d}, {path: /dev/e, hostPath: /driver/dev/e}]}`, 3,
		},
		"variables of the container": {
			container("/driver", "/x"),
			`{env: [A=/driver/a, "B=/driver/a:/driver/b:/c", "C=c=/driver", D=driver, "E=unix:///driver/e", "F=", "G=/driver-backup:/driver", "PATH=:/driver/bin:"]}`,
			`{env: [A=/x/a, "B=/x/a:/x/b:/c", "C=c=/driver", D=driver, "E=unix:///driver/e", "F=", "G=/driver-backup:/x", "PATH=:/x/bin:"]}`, 5,
		},
		"variables are not the host's": {
			host("/driver", "/x"), `{env: [A=/driver/a]}`, `{env: [A=/driver/a]}`, 0,
		},
		"a hook that runs on the host names its paths": {
			host("/driver", "/x"),
			`{hooks: [{hookName: createRuntime, path: /driver/bin/h, args: [/driver/bin/h, do, /driver/a, --b, /driver/b, --c=/driver/c, "/driver/d:/e"], env: ["LD_LIBRARY_PATH=/driver/lib:/lib"]}]}`,
			`{hooks: [{hookName: createRuntime, path: /x/bin/h, args: [/x/bin/h, do, /x/a, --b, /x/b, --c=/x/c, "/x/d:/e"], env: ["LD_LIBRARY_PATH=/x/lib:/lib"]}]}`, 7,
		},
		"a hook that runs on the host names no path of the container": {
			container("/driver", "/x"),
			`{hooks: [{hookName: createRuntime, path: /driver/bin/h, args: [/driver/bin/h, /driver/a, --c=/driver/c], env: [A=/driver/lib]}]}`,
			`{hooks: [{hookName: createRuntime, path: /driver/bin/h, args: [/driver/bin/h, /driver/a, --c=/driver/c], env: [A=/driver/lib]}]}`, 0,
		},
		"of an unknown createContainer hook the program and its variables are the host's": {
			host("/driver", "/x"),
			`{hooks: [{hookName: createContainer, path: /driver/bin/h, args: [/driver/bin/h, --ldconfig-path, /driver/a, /driver/b], env: [A=/driver/lib]}]}`,
			`{hooks: [{hookName: createContainer, path: /x/bin/h, args: [/x/bin/h, --ldconfig-path, /driver/a, /driver/b], env: [A=/x/lib]}]}`, 3,
		},
		"of an unknown createContainer hook the arguments are the container's": {
			container("/driver", "/x"),
			`{hooks: [{hookName: createContainer, path: /driver/bin/h, args: [/driver/bin/h, --ldconfig-path, /driver/a, /driver/b], env: [A=/driver/lib]}]}`,
			`{hooks: [{hookName: createContainer, path: /driver/bin/h, args: [/driver/bin/h, --ldconfig-path, /x/a, /x/b], env: [A=/driver/lib]}]}`, 2,
		},
		"a startContainer hook is the container's": {
			container("/driver", "/x"),
			`{hooks: [{hookName: startContainer, path: /driver/bin/h, args: [/driver/bin/h, /driver/b], env: [A=/driver/lib]}]}`,
			`{hooks: [{hookName: startContainer, path: /x/bin/h, args: [/x/bin/h, /x/b], env: [A=/x/lib]}]}`, 4,
		},
		"a startContainer hook is not the host's": {
			host("/driver", "/x"),
			`{hooks: [{hookName: startContainer, path: /driver/bin/h, args: [/driver/bin/h, /driver/b], env: [A=/driver/lib]}]}`,
			`{hooks: [{hookName: startContainer, path: /driver/bin/h, args: [/driver/bin/h, /driver/b], env: [A=/driver/lib]}]}`, 0,
		},
		"of NVIDIA's hooks ldconfig is the host's": {
			host("/usr", "/x/usr"),
			`{hooks: [{hookName: createContainer, path: /usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib, --ldconfig-path, /usr/sbin/ldconfig, --ldconfig-path=/usr/sbin/ldconfig, --folder=/usr/lib]}]}`,
			`{hooks: [{hookName: createContainer, path: /x/usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib, --ldconfig-path, /x/usr/sbin/ldconfig, --ldconfig-path=/x/usr/sbin/ldconfig, --folder=/usr/lib]}]}`, 3,
		},
		"of NVIDIA's hooks all else is the container's": {
			container("/usr/lib", "/x"),
			`{hooks: [{hookName: createContainer, path: /usr/lib/nvidia-cdi-hook, args: [nvidia-cdi-hook, create-symlinks, --link, "/usr/lib/a::/usr/lib/b", "--link=../c::/usr/lib/pci-0000:01:00.0-card", --folder, /usr/lib, --ldconfig-path, /usr/lib/ldconfig]}]}`,
			`{hooks: [{hookName: createContainer, path: /usr/lib/nvidia-cdi-hook, args: [nvidia-cdi-hook, create-symlinks, --link, "/x/a::/x/b", "--link=../c::/x/pci-0000:01:00.0-card", --folder, /x, --ldconfig-path, /usr/lib/ldconfig]}]}`, 4,
		},
		"of this project's hook too": {
			container("/usr/lib64", "/x"),
			`{hooks: [{hookName: createContainer, path: /usr/bin/cdigen-hook, args: [cdigen-hook, apply, "--steps=ldcache,symlinks", --strict, --host-driver-version=550.54.15, --library=/usr/lib64/libcuda.so.1, "--link=libcuda.so.1::/usr/lib64/libcuda.so.550"]}]}`,
			`{hooks: [{hookName: createContainer, path: /usr/bin/cdigen-hook, args: [cdigen-hook, apply, "--steps=ldcache,symlinks", --strict, --host-driver-version=550.54.15, --library=/x/libcuda.so.1, "--link=libcuda.so.1::/x/libcuda.so.550"]}]}`, 2,
		},
		"a hook of another stage has the same arguments": {
			container("/usr/lib64", "/x"),
			`{hooks: [{hookName: createRuntime, path: /usr/bin/nvidia-ctk, args: [nvidia-ctk, hook, update-ldcache, --folder, /usr/lib64]}]}`,
			`{hooks: [{hookName: createRuntime, path: /usr/bin/nvidia-ctk, args: [nvidia-ctk, hook, update-ldcache, --folder, /x]}]}`, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, count := transformed(t, specWith(c.edits), c.tr)
			want, _ := transformed(t, specWith(c.wanted), transform.Roots{From: "/no/such", To: "/x", Side: c.tr.Side})
			if diff := cmp.Diff(want, got); diff != "" || count != c.count {
				t.Errorf("%d moved; want %d\n%s", count, c.count, diff)
			}
		})
	}
}

func TestCommonEditsAndEachDeviceAreTransformed(t *testing.T) {
	const mount = "{mounts: [{hostPath: /driver/a, containerPath: /a}]}"
	got, count := transformed(t, specWith(mount)+"- name: b\n  containerEdits: "+mount+"\ncontainerEdits: "+mount+"\n",
		transform.Roots{From: "/driver", To: "/x", Side: transform.HostSide})
	if strings.Count(got, "hostPath: /x/a\n") != 3 || count != 3 {
		t.Errorf("%d moved:\n%s", count, got)
	}
}

func TestVersionIsTheLowestNeeded(t *testing.T) {
	for name, c := range map[string]struct {
		version, edits string
		tr             transform.Roots
		want           string
	}{
		"a host path needs 0.5.0": {"0.3.0", "{deviceNodes: [{path: /driver/a}]}", transform.Roots{From: "/", To: "/x", Side: transform.HostSide}, "0.5.0"},
		"nothing needs it any more": {
			"0.5.0", "{deviceNodes: [{path: /dev/a, hostPath: /x/dev/a}]}", transform.Roots{From: "/x", To: "/", Side: transform.HostSide}, "0.3.0",
		},
		"nothing moved needs no more than before": {
			"0.3.0", "{deviceNodes: [{path: /dev/a}]}", transform.Roots{From: "/x", To: "/", Side: transform.HostSide}, "0.3.0",
		},
		"it was more than needed":      {"0.8.0", "{env: [A=1]}", transform.Roots{From: "/x", To: "/", Side: transform.HostSide}, "0.3.0"},
		"group IDs go on needing more": {"1.0.0", "{additionalGids: [5]}", transform.Roots{From: "/x", To: "/", Side: transform.HostSide}, "0.7.0"},
	} {
		got, _ := transformed(t, strings.Replace(specWith(c.edits), "0.5.0", c.version, 1), c.tr)
		if want := "cdiVersion: " + c.want + "\n"; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s; want %s", name, got, want)
		}
	}
}

func TestTransformsThatCannotBeAreRefused(t *testing.T) {
	for _, tr := range []transform.Roots{
		{From: "", To: "/x", Side: transform.HostSide},
		{From: "/x", To: "", Side: transform.HostSide},
		{From: "x", To: "/x", Side: transform.HostSide},
		{From: "/x", To: "./x", Side: transform.ContainerSide},
		{From: "/x/../y", To: "/x", Side: transform.HostSide},
		{From: "/x", To: "/..", Side: transform.HostSide},
		{From: "/x", To: "/y", Side: "hosts"},
		{From: "/x", To: "/y"},
	} {
		if s, _, err := tr.Apply(&specs.Spec{}); err == nil {
			t.Errorf("%+v: %+v", tr, s)
		}
	}
	if _, _, err := (transform.Roots{From: "/x/..y", To: "/...", Side: transform.HostSide}).Apply(&specs.Spec{}); err != nil {
		t.Errorf("names that begin with dots: %v", err)
	}
}

// randomSpec has paths below the directories, and others that look like them.
func randomSpec(r *rand.Rand, dirs []string) *specs.Spec {
	path := func() string {
		switch p := dirs[r.IntN(len(dirs))] + []string{"", "/", "/lib/a.so", "/b", "-backup/c", ".d"}[r.IntN(6)]; r.IntN(8) {
		case 0:
			return "relative" + p
		default:
			return p
		}
	}
	value := func() string {
		items := []string{path(), path(), "x", "pci-0000:01:00.0"}
		r.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		return strings.Join(items[:1+r.IntN(4)], []string{":", "::", "="}[r.IntN(3)])
	}
	edits := func() (e specs.ContainerEdits) {
		for i := range r.IntN(3) {
			e.Env = append(e.Env, fmt.Sprintf("V%d=%s", i, value()))
			e.Mounts = append(e.Mounts, &specs.Mount{HostPath: path(), ContainerPath: path()})
			n := &specs.DeviceNode{Path: path()}
			// One that says the same twice would say it once afterwards.
			if host := path(); r.IntN(2) == 0 && host != n.Path {
				n.HostPath = host
			}
			e.DeviceNodes = append(e.DeviceNodes, n)
			h := &specs.Hook{
				HookName: []string{"createContainer", "startContainer", "createRuntime", "poststop"}[r.IntN(4)],
				Path:     strings.TrimSuffix(path(), "/") + []string{"/h", "/nvidia-cdi-hook", "/cdigen-hook"}[r.IntN(3)],
				Args:     []string{"h"}, Env: []string{"A=" + value()},
			}
			for range r.IntN(4) {
				flag := []string{"--ldconfig-path", "--link", "--folder", "-x"}[r.IntN(4)]
				h.Args = append(h.Args, [][]string{{flag, value()}, {flag + "=" + value()}, {value()}}[r.IntN(3)]...)
			}
			e.Hooks = append(e.Hooks, h)
		}
		return e
	}
	s := &specs.Spec{Kind: "v.com/d", Devices: []specs.Device{{Name: "a", ContainerEdits: edits()}, {Name: "b", ContainerEdits: edits()}}, ContainerEdits: edits()}
	s.Version, _ = specs.MinimumRequiredVersion(s)
	return s
}

func TestThereAndBackIsTheSame(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		// No path lies below B beforehand: what is moved there could not be told from it.
		from := []string{"/", "/a", "/a/b", "/usr/lib64/"}[r.IntN(4)]
		to := []string{"/run/nvidia/driver", "/z/", "/a-backup2"}[r.IntN(3)]
		s := randomSpec(r, []string{"/a", "/a/b", "/usr/lib64", "/usr", "/dev"})
		side := []transform.Side{transform.HostSide, transform.ContainerSide}[r.IntN(2)]
		there, moved, err := transform.Roots{From: from, To: to, Side: side}.Apply(s)
		if err != nil {
			t.Fatal(err)
		}
		back, movedBack, err := transform.Roots{From: to, To: from, Side: side}.Apply(there)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, back); diff != "" || moved != movedBack {
			t.Fatalf("seed %d, %s from %s to %s: %d and %d moved\n%s", seed, side, from, to, moved, movedBack, diff)
		}
	}
}
