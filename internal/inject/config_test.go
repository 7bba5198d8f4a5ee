package inject

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// runcSpec is like what "runc spec" writes, of which it has the form.
const runcSpec = `{
	"ociVersion": "1.0.0",
	"process": {
		"user": {
			"uid": 0,
			"gid": 0
		},
		"args": [
			"sh"
		],
		"env": [
			"PATH=/usr/bin:/bin",
			"TERM=xterm"
		],
		"cwd": "/"
	},
	"root": {
		"path": "rootfs"
	},
	"mounts": [
		{
			"destination": "/proc",
			"type": "proc",
			"source": "proc"
		},
		{
			"destination": "/dev/shm",
			"type": "tmpfs",
			"source": "shm",
			"options": [
				"nosuid",
				"size=65536k"
			]
		},
		{
			"destination": "/sys",
			"type": "sysfs",
			"source": "sysfs"
		}
	],
	"linux": {
		"resources": {
			"devices": [
				{
					"allow": false,
					"access": "rwm"
				}
			]
		},
		"namespaces": [
			{
				"type": "mount"
			}
		]
	}
}`

const minimal = `{"ociVersion":"1.0.0","process":{"cwd":"/"},"linux":{}}`

// configs are odd in every way that one can be and still be read.
var configs = map[string]string{
	"as runc writes it":          runcSpec,
	"minimal on one line":        minimal,
	"on one line with spaces":    `{"ociVersion": "1.0.0", "process": {"cwd": "/", "env": ["A=1", "B=2"]}, "mounts": [{"destination": "/a", "x": 1}], "linux": {"devices": []}}`,
	"newline at the end":         runcSpec + "\n",
	"two spaces":                 strings.ReplaceAll(runcSpec, "\t", "  "),
	"Windows newlines":           strings.ReplaceAll(runcSpec, "\n", "\r\n"),
	"no indentation":             strings.ReplaceAll(runcSpec, "\t", ""),
	"white space before commas":  `{ "process" : { "cwd" : "/" , "env" : [ "A=1" , "B=2" ] } , "linux" : { } , "annotations" : { "a" : "b" } }`,
	"null lists":                 `{"process": {"cwd": "/", "env": null, "user": null}, "mounts": null, "hooks": null, "linux": {"devices": null, "resources": null, "netDevices": null, "intelRdt": null}, "annotations": null}`,
	"empty lists":                `{"process": {"cwd": "/", "env": [ ], "user": { }}, "mounts": [], "hooks": {}, "linux": {"devices": [], "resources": {"devices": [ ]}, "intelRdt": {}}, "annotations": { }}`,
	"empty sections":             `{"process": {}, "linux": {  }}`,
	"hooks of its own":           `{"process": {"cwd": "/"}, "hooks": {"createContainer": [{"path": "/own", "unknown": 1}], "prestart": [{"path": "/own"}]}, "linux": {}}`,
	"variables of the same name": `{"process": {"env": ["ONE=own", "A=1", "COMMON=own", "COMMON=twice", "no equals sign"]}, "linux": {}}`,
	"equal variables":            `{"process": {"env": ["ONE=1", "COMMON=2"]}, "linux": {}}`,
	"mounts of the same places":  `{"process": {}, "mounts": [{"destination": "/usr/lib/lib.so.1", "source": "/own", "options": ["bind"]}, {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1m"]}, {"destination": "/a"}], "linux": {}}`,
	"mounts to be sorted":        `{"process": {}, "mounts": [{"destination": "/a/b/c/d/e/f"}, {"destination": "/a/b/c"}, {"destination": "/a"}, {"destination": "/a/b/c/d/e/f"}], "linux": {}}`,
	"nodes of the same paths":    `{"process": {}, "linux": {"devices": [{"path": "/dev/thing1", "type": "c", "major": 9, "minor": 9}, {"path": "/dev/own", "type": "c", "major": 1, "minor": 3, "unknown": {}}, {"path": "/dev/full", "type": "c", "major": 1, "minor": 7}]}}`,
	"rules of the same devices":  `{"process": {}, "linux": {"resources": {"devices": [{"allow": true, "type": "c", "major": 1, "minor": 7, "access": "rwm"}, {"allow": false, "type": "c", "major": 1, "minor": 7, "access": "rwm"}], "unknown": 1}}}`,
	"groups":                     `{"process": {"user": {"uid": 7, "gid": 8, "additionalGids": [1, 44]}}, "linux": {}}`,
	"class and net device":       `{"process": {}, "linux": {"intelRdt": {"closID": "own", "l3CacheSchema": "x", "unknown": 1}, "netDevices": {"eth9": {"name": "a"}, "eth7": {"name": "own"}}}}`,
	"other capitals in tables":   `{"process": {}, "linux": {"intelRdt": {"ClosID": "own", "L3cacheschema": "x"}, "netDevices": {"ETH7": {"name": "a"}}}}`,
	"a user namespace":           `{"process": {}, "linux": {"namespaces": [{"type": "user"}, {"type": "mount"}]}}`,
	"unknown fields":             `{"process": {"unknown": [1.50, 1e3, "\u00e4\ud834\udd1e"], "cwd": "/"}, "vendor": {"Mounts": 1}, "linux": {"unknown": {"a": {"b": null}}}, "zzz": "</script>"}`,
	"annotations":                "{\n \"process\": {},\n \"annotations\": {\n  \"a\": \"b\"\n },\n \"linux\": {}\n}",
	"special characters":         `{"process": {"env": ["A=ä€\u2028 <&>\\\"", "B=\ud800"]}, "linux": {}}`,
	"lists over several lines":   "{\"process\": {\"env\": [\"A=1\",\n  \"B=2\"\n]}, \"mounts\": [\n{\"destination\": \"/proc\"}\n], \"linux\": {\n\"devices\": [{\n\"path\": \"/dev/a\", \"type\": \"c\"}]}}",
}

var deviceSets = [][]string{
	{"vendor.com/thing=0"},
	{"vendor.com/thing=1"},
	{"vendor.com/thing=odd"},
	{"vendor.com/thing=odd", "vendor.com/thing=0", "vendor.com/thing=1"},
}

// generic is a config as any reader understands it, without the record.
func generic(t testing.TB, data []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	return m
}

// holds checks all that is promised of an injection into a config.
func holds(t *testing.T, source Source, original []byte, devices []string, form Form) {
	t.Helper()
	config, err := ParseConfig(original)
	check(t, err)
	injected, _, err := config.Inject(source, devices, form)
	check(t, err)
	again, err := ParseConfig(injected)
	if err != nil {
		t.Fatalf("%v in\n%s", err, injected)
	}
	if diff := cmp.Diff(string(config.Base()), string(again.Base())); diff != "" {
		t.Errorf("taken out again it is not as it was:\n%s\ninjected:\n%s", diff, injected)
	}
	if !slices.Equal(again.Devices(), devices) || again.Form() != form {
		t.Errorf("it has %q %s, want %q %s", again.Devices(), again.Form(), devices, form)
	}
	if twice, _, err := again.Inject(source, devices, form); err != nil || string(twice) != string(injected) {
		t.Errorf("injected twice (%v) it is\n%s\nonce\n%s", err, twice, injected)
	}

	// What a runtime reads is what the CDI library has made.
	got, err := decode(injected)
	check(t, err)
	if delete(got.Annotations, Annotation); len(got.Annotations) == 0 {
		got.Annotations = nil
	}
	want, err := decode(config.Base())
	check(t, err)
	if len(want.Annotations) == 0 {
		want.Annotations = nil
	}
	if form == OCI {
		library, err := cdi.NewCache(cdi.WithSpecDirs(filepath.Dir(source[0].File)), cdi.WithAutoRefresh(false))
		check(t, err)
		_, err = library.InjectDevices(want, devices...)
		check(t, err)
		if diff := cmp.Diff(text(want), text(got)); diff != "" {
			t.Errorf("not what the CDI library makes of it:\n%s", diff)
		}
	}

	// All else is as it was.
	before, after := generic(t, config.Base()), generic(t, injected)
	for _, leaf := range append(slices.Clone(leaves), "/annotations/"+Annotation) {
		drop(before, strings.Split(leaf[1:], "/"))
		drop(after, strings.Split(leaf[1:], "/"))
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("something else has changed:\n%s", diff)
	}
}

// drop takes away a part and what is left empty on the way to it.
func drop(m map[string]any, path []string) {
	if sub, ok := m[path[0]].(map[string]any); ok && len(path) > 1 {
		drop(sub, path[1:])
		if len(sub) > 0 {
			return
		}
	}
	if sub, ok := m[path[0]].(map[string]any); len(path) == 1 || m[path[0]] == nil || ok && len(sub) == 0 {
		delete(m, path[0])
	}
}

func TestInjectedIsTakenOutByteForByte(t *testing.T) {
	source, _ := odd(t)
	for name, config := range configs {
		t.Run(name, func(t *testing.T) {
			for _, devices := range deviceSets {
				for _, form := range []Form{OCI, NspawnBundle} {
					t.Run(fmt.Sprint(form, len(devices), devices[0]), func(t *testing.T) {
						holds(t, source, []byte(config), devices, form)
					})
				}
			}
		})
	}
}

func FuzzInjectAndTakeOut(f *testing.F) {
	source, _ := odd(f)
	for _, config := range configs {
		f.Add([]byte(config), uint(0))
		c, err := ParseConfig([]byte(config))
		check(f, err)
		injected, _, err := c.Inject(source, deviceSets[3], OCI)
		check(f, err)
		f.Add(injected, uint(2))
		f.Add([]byte(strings.ReplaceAll(string(injected), "COMMON=2", "COMMON=3")), uint(5))
	}
	f.Fuzz(func(t *testing.T, data []byte, choice uint) {
		if _, err := ParseConfig(data); err != nil {
			return
		}
		form := OCI
		if choice%2 == 1 {
			form = NspawnBundle
		}
		holds(t, source, data, deviceSets[choice/2%4], form)
	})
}

// Others' changes and ours commute: made in either order they give the same, but for
// the order in lists.
func TestOthersChangesStay(t *testing.T) {
	source, _ := odd(t)
	var names []string
	for name := range configs {
		names = append(names, name)
	}
	slices.Sort(names)
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		name := names[random.IntN(len(names))]
		devices := deviceSets[random.IntN(len(deviceSets))]
		seed := random.Uint64()
		config, err := ParseConfig([]byte(configs[name]))
		check(t, err)
		injected, _, err := config.Inject(source, devices, OCI)
		check(t, err)

		want := generic(t, config.Base())
		meddle(want, seed)
		changed := generic(t, injected)
		meddle(changed, seed)
		data, err := json.Marshal(changed)
		check(t, err)
		back, err := ParseConfig(data)
		check(t, err)
		got := generic(t, back.Base())
		sortLists(want)
		sortLists(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("round %d: %q with %q:\n%s", round, name, devices, diff)
		}
	}
}

// meddle changes a config as somebody might who knows nothing of us: the same things
// whether devices are injected or not.
func meddle(config map[string]any, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	table := func(m map[string]any, name string) map[string]any {
		t, ok := m[name].(map[string]any)
		if !ok {
			t = map[string]any{}
			m[name] = t
		}
		return t
	}
	add := func(m map[string]any, name string, element any) {
		list, _ := m[name].([]any)
		if random.IntN(2) == 0 {
			m[name] = append([]any{element}, list...)
		} else {
			m[name] = append(list, element)
		}
	}
	for range 1 + random.IntN(5) {
		switch random.IntN(9) {
		case 0:
			add(table(config, "process"), "env", fmt.Sprintf("OTHERS%d=1", random.IntN(3)))
		case 1:
			add(config, "mounts", map[string]any{"destination": fmt.Sprintf("/others%d", random.IntN(3)), "options": []any{"bind"}})
		case 2:
			add(table(config, "hooks"), []string{"createContainer", "poststop", "poststart"}[random.IntN(3)], map[string]any{"path": "/others"})
		case 3:
			add(table(config, "linux"), "devices", map[string]any{"path": "/dev/others", "type": "c", "major": 240.})
		case 4:
			add(table(table(config, "linux"), "resources"), "devices", map[string]any{"allow": true, "type": "c", "major": 240., "access": "r"})
		case 5:
			table(table(config, "linux"), "resources")["memory"] = map[string]any{"limit": 1e6}
		case 6:
			table(config, "annotations")["others"] = "1"
		case 7:
			table(config, "process")["cwd"] = "/others"
		case 8:
			table(table(config, "linux"), "netDevices")["others0"] = map[string]any{"name": "a"}
		}
	}
}

// sortLists puts all lists into one order; a list or table without anything in it is
// as none.
func sortLists(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for name, sub := range x {
			if sub = sortLists(sub); sub == nil {
				delete(x, name)
			}
		}
		if len(x) == 0 {
			return nil
		}
	case []any:
		if len(x) == 0 {
			return nil
		}
		slices.SortFunc(x, func(a, b any) int { return strings.Compare(text(a), text(b)) })
	}
	return v
}

// Cases of which the result can be read.
func TestOthersChanges(t *testing.T) {
	source, _ := odd(t)
	for _, c := range []struct {
		name, config string
		device       string
		change       func(spec *oci.Spec)
		want         string
	}{
		{"a variable that was replaced is back", `{"process":{"env":["COMMON=own","A=1"]},"linux":{}}`, "0",
			func(s *oci.Spec) { s.Process.Env = append(s.Process.Env, "B=2") },
			`{"process":{"env":["COMMON=own","A=1","B=2"]},"linux":{}}`},
		{"unless somebody has set it since", `{"process":{"env":["COMMON=own","A=1"]},"linux":{}}`, "0",
			func(s *oci.Spec) { s.Process.Env[0] = "COMMON=theirs" },
			`{"process":{"env":["COMMON=theirs","A=1"]},"linux":{}}`},
		{"an injected variable that somebody has changed stays his", `{"process":{},"linux":{}}`, "0",
			func(s *oci.Spec) { s.Process.Env[0] = "COMMON=theirs" },
			`{"process":{"env":["COMMON=theirs"]},"linux":{}}`},
		{"a mount that was replaced is back", `{"process":{},"mounts":[{"destination":"/usr/lib/lib.so.1","source":"/own"},{"destination":"/a"}],"linux":{}}`, "0",
			func(s *oci.Spec) { s.Mounts = append(s.Mounts, oci.Mount{Destination: "/b"}) },
			`{"process":{},"mounts":[{"destination":"/usr/lib/lib.so.1","source":"/own"},{"destination":"/a"},{"destination":"/b"}],"linux":{}}`},
		{"something between injected mounts stays behind what it was behind", `{"process":{},"mounts":[{"destination":"/a"},{"destination":"/b"}],"linux":{}}`, "0",
			func(s *oci.Spec) { s.Mounts = slices.Insert(s.Mounts, 1, oci.Mount{Destination: "/c"}) },
			`{"process":{},"mounts":[{"destination":"/a"},{"destination":"/c"},{"destination":"/b"}],"linux":{}}`},
		{"of two equal rules the later one is taken out", `{"process":{},"linux":{"resources":{"devices":[{"allow":true,"type":"c","major":1,"minor":5,"access":"rw"}]}}}`, "0",
			func(s *oci.Spec) {
				s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, oci.LinuxDeviceCgroup{Allow: false})
			},
			`{"process":{},"linux":{"resources":{"devices":[{"allow":true,"type":"c","major":1,"minor":5,"access":"rw"},{"allow":false}]}}}`},
		{"a hook of others keeps the section that was made", `{"process":{},"linux":{}}`, "odd",
			func(s *oci.Spec) { s.Hooks.Poststart = []oci.Hook{{Path: "/theirs"}} },
			`{"process":{},"linux":{},"hooks":{"poststart":[{"path":"/theirs"}]}}`},
		{"what somebody has removed stays removed", `{"process":{"env":["A=1","B=2"]},"linux":{}}`, "0",
			func(s *oci.Spec) { s.Process.Env = s.Process.Env[1:] },
			`{"process":{"env":["B=2"]},"linux":{}}`},
		{"sections that somebody has removed too", `{"process":{},"mounts":[{"destination":"/a"}],"linux":{}}`, "odd",
			func(s *oci.Spec) { s.Mounts, s.Hooks, s.Linux.Resources = nil, nil, nil },
			`{"process":{},"linux":{}}`},
		{"a net device of others stays", `{"process":{},"linux":{"netDevices":{"eth7":{"name":"own"}}}}`, "odd",
			func(s *oci.Spec) { s.Linux.NetDevices["eth8"] = oci.LinuxNetDevice{Name: "b"} },
			`{"process":{},"linux":{"netDevices":{"eth7":{"name":"own"},"eth8":{"name":"b"}}}}`},
		{"an annotation of others stays", `{"process":{},"linux":{}}`, "0",
			func(s *oci.Spec) { s.Annotations["theirs"] = "1" },
			`{"process":{},"linux":{},"annotations":{"theirs":"1"}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, err := ParseConfig([]byte(c.config))
			check(t, err)
			injected, _, err := config.Inject(source, []string{"vendor.com/thing=" + c.device}, OCI)
			check(t, err)
			s, err := decode(injected)
			check(t, err)
			c.change(s)
			back, err := ParseConfig([]byte(text(s)))
			check(t, err)
			// Go's own encoder has added a user and a version, which are others' changes.
			got, want := generic(t, back.Base()), generic(t, []byte(c.want))
			delete(got, "ociVersion")
			delete(got["process"].(map[string]any), "user")
			delete(got["process"].(map[string]any), "cwd")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s\n%s", back.Base(), diff)
			}
		})
	}
}

func TestOtherDevicesStayWhenOneIsTakenOut(t *testing.T) {
	source, _ := odd(t)
	config, err := ParseConfig([]byte(runcSpec))
	check(t, err)
	inject := func(c *Config, names ...string) *Config {
		t.Helper()
		data, _, err := c.Inject(source, names, OCI)
		check(t, err)
		c, err = ParseConfig(data)
		check(t, err)
		return c
	}
	both := inject(config, "vendor.com/thing=0", "vendor.com/thing=1")
	one, want := inject(both, "vendor.com/thing=1"), inject(config, "vendor.com/thing=1")
	if diff := cmp.Diff(want, one, cmp.AllowUnexported(Config{}, record{}), cmp.Transformer("text", func(c *Config) string { return string(c.Base()) + text(c.injected) })); diff != "" {
		t.Error(diff)
	}
}

func TestUnusableConfigIsRefusedWithItsPlace(t *testing.T) {
	source, _ := odd(t)
	config, err := ParseConfig([]byte(minimal))
	check(t, err)
	injected, _, err := config.Inject(source, deviceSets[0], OCI)
	check(t, err)
	with := func(old, replacement string) string {
		if !strings.Contains(string(injected), old) {
			t.Fatalf("no %s in %s", old, injected)
		}
		return strings.ReplaceAll(string(injected), old, replacement)
	}
	for _, c := range []struct{ name, config, err string }{
		{"empty", "", "line 1, column 1: unexpected end of JSON input"},
		{"cut off", "{\n \"process\": {", "line 2, column 14: unexpected end of the file"},
		{"a comment", "{\n // no JSON\n}", "line 2, column 2: invalid character '/' looking for beginning of object key string"},
		{"a comma too many", "{\"linux\": {},\n}", "line 2, column 1: invalid character '}' looking for beginning of object key string"},
		{"two values", minimal + "\n{}", "line 2, column 1: there is more after the end of the object"},
		{"lists in lists, 6 MB of them", `{"x": ` + strings.Repeat("[", 6<<20), "line 1, column 1006: it is nested more than 1000 levels deep"},
		{"tables in tables, 6 MB of them", strings.Repeat(`{"linux":`, 6<<20/9), "line 1, column 9001: it is nested more than 1000 levels deep"},
		{"a record of lists in lists", with(`\"was\":\"{}\"`, `\"was\":\"`+strings.Repeat("[", 6<<20)+strings.Repeat("]", 6<<20)+`\"`), "what was at /linux is not JSON"},
		{"a list", "[]", "line 1, column 1: it is a list, not an object"},
		{"a string for a list", "{\n \"mounts\": \"x\"}", "line 2, column 14: mounts must not be of JSON type string"},
		{"a number for a string", `{"process": {"env": [1]}}`, "process.env must not be of JSON type number"},
		{"Latin-1", "{\n\"a\": \"\xe4\"}", "line 2, column 7: it is not UTF-8"},
		{"Windows", `{"process": {}, "windows": {}}`, `it has no section "linux": it is not for a Linux container`},
		{"null for linux", `{"process": {}, "linux": null}`, `it has no section "linux"`},
		{"no process", `{"linux": {}}`, `it has no section "process"`},
		{"null", `null`, "line 1, column 1: it is null, not an object"},
		{"a section twice", "{\"process\": {}, \"linux\": {},\n\"linux\": {}}", `line 2, column 1: "linux": there must be one "linux" and none in other capitals`},
		{"other capitals", `{"process": {"Env": []}, "linux": {}}`, `line 1, column 14: "Env": there must be one "env"`},
		{"a record that is no JSON", `{"process": {}, "linux": {}, "annotations": {"com.github.cdigen.injected": "x"}}`, "annotation com.github.cdigen.injected is not what cdigen has written: invalid character 'x'"},
		{"a record that is no text", `{"process": {}, "linux": {}, "annotations": {"com.github.cdigen.injected": 1}}`, "annotations must not be of JSON type number"},
		{"a record without devices", with(`[\"vendor.com/thing=0\"]`, "[]"), "it names no device"},
		{"a record of another form", with(`\"form\":\"oci\"`, `\"form\":\"x\"`), `it is of the unknown form "x"`},
		{"a record of other parts", with(`\"at\":\"/mounts\"`, `\"at\":\"/root\"`), `it is of "/root", which no device changes`},
		{"a record of everything", with(`\"at\":\"/mounts\"`, `\"at\":\"\"`), `it is of "", which no device changes`},
		{"a record with something else", with(`\"was\":\"{}\"`, `\"was\":\"}\"`), "what was at /linux is not JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ParseConfig([]byte(c.config)); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v\nwant %s", err, c.err)
			}
		})
	}
}

// The options of bind mounts that systemd-nspawn has.
func TestNspawnBundleHasItsOwnMountOptions(t *testing.T) {
	source, _ := odd(t)
	config, err := ParseConfig([]byte(`{"process": {}, "mounts": [{"destination": "/own", "options": ["bind", "ro"]}], "linux": {"namespaces": [{"type": "user"}]}}`))
	check(t, err)
	data, notes, err := config.Inject(source, []string{"vendor.com/thing=odd", "vendor.com/thing=1"}, NspawnBundle)
	check(t, err)
	s, err := decode(data)
	check(t, err)
	var got []string
	for _, m := range s.Mounts {
		got = append(got, fmt.Sprintf("%s %s %s", m.Destination, m.Type, strings.Join(m.Options, ",")))
	}
	want := []string{
		"/own  bind,ro", "/scratch tmpfs nosuid,size=1m", "/opt/a b\\c bind rbind,idmap",
		"/opt/c:d bind norbind,idmap", "/opt/c:d none bind,remount,ro,noexec",
		"/opt/e,f bind ", "/opt/proc proc ",
		"/usr/lib/lib.so.1 bind rbind,idmap", "/usr/lib/lib.so.1 none bind,remount,ro,nosuid,nodev",
		"/dev/by-path/pci-0000:01:00.0-thing bind ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, d := range s.Linux.Devices {
		if strings.Contains(d.Path, "by-path") {
			t.Errorf("systemd-nspawn cannot make %s", d.Path)
		}
	}
	if s.Hooks != nil || s.Linux.IntelRdt != nil || s.Linux.NetDevices != nil {
		t.Errorf("what systemd-nspawn refuses is in it: %s", data)
	}
	if diff := cmp.Diff([]string{
		"left out: createContainer hook /bin/true", "left out: poststop hook /bin/false", "left out: class of service gold", "left out: network device eth7",
		`systemd-nspawn reads ociVersion 1.0.0 only; this is ""`,
	}, notes); diff != "" {
		t.Error(diff)
	}
}
