package config

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// commands returns the commands that have options.
func commands() []string {
	var list []string
	for _, o := range table() {
		list = append(list, strings.Split(o.commands, ",")...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// layers makes them of the texts that one option has by flag, variable and settings
// file; empty stands for none.
func layers(option, flag, environment, settings string) Layers {
	l := Layers{Flags: map[string]string{}, Environment: map[string]string{}}
	if flag != "" {
		l.Flags[option] = flag
	}
	if environment != "" {
		l.Environment[Variable(option)] = environment
	}
	if settings != "" {
		l.Settings = ParseSettings("x.env", "# first\n"+Variable(option)+"="+settings+"\n")
	}
	return l
}

func TestTheHighestLayerThatHasAValueWins(t *testing.T) {
	setting := Source{FromSettings, "x.env", 2}
	for _, c := range []struct {
		option, flag, environment, settings, profile string
		want                                         any
		source                                       Source
	}{
		// Each kind of value by default and from each layer alone.
		{option: "vendor", want: "nvidia.com"},
		{option: "vendor", profile: "k8s-device-plugin", want: "k8s.device-plugin.nvidia.com", source: Source{Kind: FromProfile}},
		{option: "vendor", settings: "b.org", want: "b.org", source: setting},
		{option: "vendor", environment: "c.org", want: "c.org", source: Source{Kind: FromEnvironment}},
		{option: "vendor", flag: "d.org", want: "d.org", source: Source{Kind: FromFlag}},
		{option: "no-all", want: false},
		{option: "no-all", profile: "k8s-device-plugin", want: true, source: Source{Kind: FromProfile}},
		{option: "no-all", settings: "true", want: true, source: setting},
		{option: "no-all", environment: "1", want: true, source: Source{Kind: FromEnvironment}},
		{option: "no-all", flag: "true", want: true, source: Source{Kind: FromFlag}},
		{option: "grace", want: 30 * time.Second},
		{option: "grace", settings: "1m", want: time.Minute, source: setting},
		{option: "grace", environment: "2s", want: 2 * time.Second, source: Source{Kind: FromEnvironment}},
		{option: "grace", flag: "3ms", want: 3 * time.Millisecond, source: Source{Kind: FromFlag}},
		{option: "device-name-strategy", want: []string{"index", "uuid"}},
		{option: "device-name-strategy", settings: `"index, pci"`, want: []string{"index", "pci"}, source: setting},
		{option: "device-name-strategy", environment: "pci", want: []string{"pci"}, source: Source{Kind: FromEnvironment}},
		{option: "device-name-strategy", flag: "uuid,index", want: []string{"uuid", "index"}, source: Source{Kind: FromFlag}},
		{option: "device", flag: `0,"a,b"`, want: []string{"0", "a,b"}, source: Source{Kind: FromFlag}},
		// Each pair of neighbours.
		{option: "vendor", flag: "d.org", environment: "c.org", want: "d.org", source: Source{Kind: FromFlag}},
		{option: "vendor", environment: "c.org", settings: "b.org", want: "c.org", source: Source{Kind: FromEnvironment}},
		{option: "vendor", settings: "b.org", profile: "k8s-device-plugin", want: "b.org", source: setting},
		{option: "no-all", settings: "false", profile: "k8s-device-plugin", want: false, source: setting},
		{option: "no-all", environment: "false", profile: "k8s-device-plugin", want: false, source: Source{Kind: FromEnvironment}},
		{option: "no-all", flag: "false", profile: "k8s-device-plugin", want: false, source: Source{Kind: FromFlag}},
		// The ends.
		{option: "vendor", flag: "d.org", settings: "b.org", want: "d.org", source: Source{Kind: FromFlag}},
		{option: "vendor", flag: "d.org", environment: "c.org", settings: "b.org", profile: "k8s-device-plugin", want: "d.org", source: Source{Kind: FromFlag}},
		{option: "vendor", flag: "nvidia.com", profile: "k8s-device-plugin", want: "nvidia.com", source: Source{Kind: FromFlag}},
	} {
		l := layers(c.option, c.flag, c.environment, c.settings)
		if c.profile != "" {
			l.Flags[profileOption] = c.profile
		}
		got, problems := Load("watch", l)
		if len(problems) > 0 {
			t.Errorf("%+v: %v", c, problems)
		}
		value := reflect.ValueOf(find("watch", c.option).field(&got)).Elem().Interface()
		if !reflect.DeepEqual(value, c.want) || got.Sources[c.option] != c.source {
			t.Errorf("%+v: got %v from %+v", c, value, got.Sources[c.option])
		}
	}
}

func TestAnInvalidValueIsReportedWhereItStands(t *testing.T) {
	for _, c := range []struct {
		option, flag, environment, settings string
		problem                             string
		want                                any
	}{
		{option: "no-all", settings: "many", problem: `CDIGEN_NO_ALL="many" in x.env, line 2: use true or false`, want: false},
		{option: "grace", settings: "long", problem: `CDIGEN_GRACE="long" in x.env, line 2: use a duration such as 500ms, 10s or 1m`, want: 30 * time.Second},
		{option: "grace", settings: "0s", problem: `CDIGEN_GRACE="0s" in x.env, line 2: it must be 1ms or more`, want: 30 * time.Second},
		{option: "profile", settings: "slurm", problem: `CDIGEN_PROFILE="slurm" in x.env, line 2: use k8s-device-plugin`, want: ""},
		{option: "format", environment: "xml", problem: `CDIGEN_FORMAT="xml": use yaml or json`, want: ""},
		{option: "format", flag: "xml", problem: `--format "xml": use yaml or json`, want: ""},
		{option: "library-layout", flag: "", settings: "flat", problem: `CDIGEN_LIBRARY_LAYOUT="flat" in x.env, line 2: use auto, debian, fedora, private or nix`, want: "auto"},
		{option: "hooks", flag: "later", problem: `--hooks "later": use one or more of cuda-compat, device-params, ldcache, symlinks, none`, want: []string(nil)},
		{option: "hooks", flag: "none,later", problem: `--hooks "none,later": unknown "later": use one or more of cuda-compat, device-params, ldcache, symlinks, none`, want: []string(nil)},
		{option: "device-name-strategy", flag: " ", problem: `--device-name-strategy " ": use one or more of index, uuid, type-index, pci`, want: []string{"index", "uuid"}},
		{option: "device-name-strategy", flag: "index,serial", problem: `--device-name-strategy "index,serial": unknown "serial": use one or more of index, uuid, type-index, pci`, want: []string{"index", "uuid"}},
		{option: "device-name-strategy", flag: ",", problem: `--device-name-strategy ",": unknown "": use one or more of index, uuid, type-index, pci`, want: []string{"index", "uuid"}},
		{option: "device", flag: `a"b`, problem: `--device "a\"b": not a list with commas: bare " in non-quoted-field`, want: []string(nil)},
		{option: "class", flag: "no class", problem: `--class "no class": invalid class. `, want: "gpu"},
		{option: "max-cdi-version", environment: "0.5", problem: `CDIGEN_MAX_CDI_VERSION="0.5": use a version from 0.3.0 to `, want: ""},
		// The next layer has a value.
		{option: "grace", environment: "long", settings: "1s", problem: `CDIGEN_GRACE="long": `, want: time.Second},
		{option: "grace", flag: "long", environment: "2s", settings: "1s", problem: `--grace "long": `, want: 2 * time.Second},
		// An empty variable of an option that cannot be empty sets nothing.
		{option: "grace", environment: `""`, problem: `CDIGEN_GRACE="\"\"": `, want: 30 * time.Second},
		{option: "grace", settings: `""`, want: 30 * time.Second},
		{option: "library-layout", settings: `""`, want: "auto"},
		{option: "kernel-log", settings: `""`, want: ""},
	} {
		got, problems := Load("watch", layers(c.option, c.flag, c.environment, c.settings))
		if value := reflect.ValueOf(find("watch", c.option).field(&got)).Elem().Interface(); !reflect.DeepEqual(value, c.want) {
			t.Errorf("%+v: got %v", c, value)
		}
		switch {
		case c.problem == "" && len(problems) == 0:
		case c.problem == "" || len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), c.problem):
			t.Errorf("%+v: got %v", c, problems)
		}
	}
	if _, problems := Load("generate", Layers{Flags: map[string]string{"nvml-timeout": ""}}); len(problems) != 1 {
		t.Errorf("an empty flag: got %v", problems)
	}
}

func TestAnInvalidValueOfAnotherCommandsOptionIsNoProblem(t *testing.T) {
	l := layers("grace", "", "", "long")
	for _, command := range commands() {
		_, problems := Load(command, l)
		if has := find(command, "grace") != nil; has != (len(problems) > 0) {
			t.Errorf("%s: %v", command, problems)
		}
	}
}

func TestSettingsAndCapturesAreNamedByNoSettings(t *testing.T) {
	c, problems := Load("generate", Layers{Settings: ParseSettings("x.env", "CDIGEN_SETTINGS=other.env\nCDIGEN_CAPTURED=host.yaml\n")})
	if c.Settings.Path != "x.env" || c.Captured != "" || len(problems) > 0 {
		t.Errorf("got %q, %q, %v", c.Settings.Path, c.Captured, problems)
	}
}

func TestTheFieldsOfAConfigAreOptions(t *testing.T) {
	// What is not an option's: where values come from, and what follows from others.
	others := []string{"Command", "Details", "Settings", "Sources", "Unnamed", "layers"}
	c := Default()
	fields := map[any]bool{}
	for i := range table() {
		fields[table()[i].field(&c)] = true
	}
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if !slices.Contains(others, name) && !fields[v.Field(i).Addr().Interface()] {
			t.Errorf("no option sets %s", name)
		}
	}
}

func TestACommandHasOneOptionOfAName(t *testing.T) {
	for _, command := range commands() {
		names := map[string]bool{}
		for _, o := range Options(command) {
			if names[o.Name] {
				t.Errorf("%s has --%s twice", command, o.Name)
			}
			names[o.Name] = true
			c := Default()
			if err := o.set(&c, o.Default()); err != nil {
				t.Errorf("%s --%s: its default: %v", command, o.Name, err)
			}
		}
	}
}

// value returns a text that an option takes.
func value(o *Option, r *rand.Rand) string {
	if len(o.Values) > 0 {
		picked := []string{o.Values[r.IntN(len(o.Values))]}
		if o.Type() == "stringSlice" {
			picked = append(picked, o.Values[r.IntN(len(o.Values))])
		}
		return JoinList(picked)
	}
	words := []string{"", "a b", `quote"d`, "x,y", "line\nbreak", "=", "/dir", "ü"}
	switch o.Type() {
	case "bool":
		return []string{"true", "false"}[r.IntN(2)]
	case "duration":
		return time.Duration(1 + r.Int64N(1e12)).Round(10 * time.Millisecond).String()
	case "stringSlice":
		if o.Name == "device" {
			words = []string{"0", "6:1", "GPU-a", "0000:3b:00.0"}
		}
		var list []string
		for range r.IntN(4) {
			list = append(list, words[r.IntN(len(words))])
		}
		return JoinList(list)
	}
	switch o.Name {
	case "vendor", "class":
		return []string{"a.b", "c"}[r.IntN(2)]
	case "mps-directory":
		return "/mps"
	case "max-cdi-version":
		return "0.6.0"
	}
	return words[r.IntN(len(words))]
}

func TestArgsGiveTheSameConfigAgain(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, command := range commands() {
		for range 300 {
			l := Layers{Flags: map[string]string{}, Environment: map[string]string{}}
			var text strings.Builder
			for _, o := range Options(command) {
				if o.Name == settingsOption || o.Name == capturedOption || o.Name == modeOption { // not beside a kind
					continue
				}
				if r.IntN(4) == 0 {
					l.Flags[o.Name] = value(o, r)
				}
				if r.IntN(4) == 0 {
					l.Environment[Variable(o.Name)] = value(o, r)
				}
				if r.IntN(4) == 0 {
					text.WriteString(Variable(o.Name) + "='" + value(o, r) + "'\n")
				}
			}
			if find(command, settingsOption) != nil {
				l.Settings = ParseSettings("x.env", text.String())
			}
			c, _ := Load(command, l)
			flags := map[string]string{}
			for _, arg := range c.Args(command) {
				name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
				flags[name] = value
			}
			again, problems := Load(command, Layers{Flags: flags, Settings: l.Settings})
			if len(problems) > 0 {
				t.Fatalf("%s %v: %v", command, c.Args(command), problems)
			}
			c.Sources, again.Sources, c.layers, again.layers = nil, nil, Layers{}, Layers{}
			if !reflect.DeepEqual(c, again) {
				t.Fatalf("%s %q:\n%+v\n%+v", command, flags, c, again)
			}
		}
	}
}

func TestArgsOfAnotherCommand(t *testing.T) {
	settings := ParseSettings("/etc/cdigen/cdigen.env", "CDIGEN_DEV_ROOT=/d\nCDIGEN_VENDOR=b.org\nCDIGEN_POLL=5s\n")
	for _, c := range []struct {
		name    string
		flags   map[string]string
		command string
		want    []string
	}{
		{"what the settings have the command reads", nil, "generate", nil},
		{"what doctor does not know stays as it is set", nil, "watch", nil},
		{"a command without settings is given them", nil, "system", []string{"--dev-root=/d"}},
		{"a default that the settings override is given", map[string]string{"vendor": "nvidia.com"}, "generate", []string{"--vendor=nvidia.com"}},
		{"a value of the settings is not repeated", map[string]string{"vendor": "b.org"}, "generate", nil},
		{"options of other commands are left out", map[string]string{"vendor": "c.org", "device": "1"}, "status", nil},
		{"a profile is named, and not what it has", map[string]string{"profile": "k8s-device-plugin"}, "generate", []string{"--profile=k8s-device-plugin"}},
		{"what a profile has may be overridden by the default", map[string]string{"profile": "k8s-device-plugin", "no-all": "false"}, "generate", []string{"--no-all=false", "--profile=k8s-device-plugin"}},
		{"no profile needs no flag", map[string]string{"profile": ""}, "generate", nil},
		{"lists", map[string]string{"device": `0,"a,b"`}, "generate", []string{`--device=0,"a,b"`}},
		{"a command without options", map[string]string{"vendor": "c.org"}, "version", nil},
	} {
		got, problems := Load("doctor", Layers{Flags: c.flags, Settings: settings})
		if args := got.Args(c.command); len(problems) > 0 || !slices.Equal(args, c.want) {
			t.Errorf("%s: got %v, %v", c.name, args, problems)
		}
	}
	none, _ := Load("doctor", Layers{Flags: map[string]string{"settings": ""}})
	if args := none.Args("generate"); !slices.Equal(args, []string{"--settings="}) {
		t.Errorf("without settings: got %v", args)
	}
	inSettings, _ := Load("doctor", Layers{Settings: ParseSettings("x.env", "CDIGEN_PROFILE=k8s-device-plugin")})
	if args := inSettings.Args("generate"); args != nil || !inSettings.NoAll {
		t.Errorf("a profile in the settings: got %v", args)
	}
}

func TestWithoutASettingThereIsTheNextValue(t *testing.T) {
	l := Layers{Settings: ParseSettings("x.env", "CDIGEN_EDITS=/none\nCDIGEN_OUTPUT=/x.yaml\nCDIGEN_PROFILE=k8s-device-plugin\n")}
	c, _ := Load("doctor", l)
	if _, err := c.Spec(); err == nil || err.Error() != `CDIGEN_EDITS="/none" in x.env, line 1: open /none: no such file or directory` {
		t.Errorf("got %v", err)
	}
	next := c.Without("edits")
	if _, err := next.Spec(); err != nil || next.Edits != "" || c.Edits != "/none" || len(next.Args("generate")) > 0 {
		t.Errorf("got %v, %q, %v", err, next.Edits, next.Args("generate"))
	}
	if next = c.Without("output"); next.Output != "/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json" {
		t.Errorf("got %q", next.Output)
	}
}

func TestTheSettingsThatACommandReads(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x.env")
	if err := os.WriteFile(file, []byte("CDIGEN_VENDOR=b.org\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(dir, "large.env")
	if err := os.WriteFile(large, make([]byte, MaxGiven+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, command string
		flags         map[string]string
		environment   map[string]string
		path          string
		err           string
	}{
		{name: "none given", command: "check", flags: map[string]string{"profile": "slurm"}},
		{name: "of a profile", command: "check", flags: map[string]string{"profile": "k8s-device-plugin"}, path: "/etc/cdigen/k8s-device-plugin.env"},
		{name: "by a flag", command: "check", flags: map[string]string{"settings": file, "profile": "k8s-device-plugin"}, path: file},
		{name: "by a variable", command: "check", environment: map[string]string{"CDIGEN_SETTINGS": file}, path: file},
		{name: "a flag overrides the variable", command: "check", flags: map[string]string{"settings": ""}, environment: map[string]string{"CDIGEN_SETTINGS": file}},
		{name: "a command without", command: "list", environment: map[string]string{"CDIGEN_SETTINGS": file}},
		{name: "another host's", command: "generate", flags: map[string]string{"settings": file, "captured": "x"}},
		{name: "check looks at this host", command: "check", flags: map[string]string{"settings": file}, environment: map[string]string{"CDIGEN_CAPTURED": "x"}, path: file},
		{name: "missing", command: "check", flags: map[string]string{"settings": "/none.env"}, err: "--settings: open /none.env: no such file or directory"},
		{name: "a directory", command: "check", flags: map[string]string{"settings": dir}, err: "--settings: read " + dir + ": is a directory"},
		{name: "too large", command: "check", flags: map[string]string{"settings": large}, err: "--settings: read " + large + ": file too large: more than 32 MiB"},
	} {
		l := Layers{Flags: c.flags, Environment: c.environment}
		s, err := l.ReadSettings(c.command)
		if s.Path != c.path || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%s: got %q, %v", c.name, s.Path, err)
		}
		if s.Path == file && s.Variables["CDIGEN_VENDOR"] != (Setting{"b.org", 1}) {
			t.Errorf("%s: got %v", c.name, s.Variables)
		}
	}
}

func TestErrorsOfAHostNameTheOption(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		command, option, value, err string
	}{
		{"generate", "driver-root", dir + "/none", `--driver-root "` + dir + `/none": stat ` + dir + `/none: no such file or directory`},
		{"watch", "driver-root", dir + "/none", ""},
		{"watch", "proc-root", dir + "/none", `--proc-root "` + dir + `/none": stat ` + dir + `/none: no such file or directory`},
		{"generate", "proc-root", "/etc/passwd", `--proc-root "/etc/passwd": not a directory`},
		{"generate", "dev-root", "/dev", `--dev-root "/dev": there is no dev in it: name the directory above, /`},
		{"generate", "dev-nodes", dir + "/none", `--dev-nodes "` + dir + `/none": open ` + dir + `/none: no such file or directory`},
	} {
		got, _ := Load(c.command, Layers{Flags: map[string]string{c.option: c.value}})
		before := got
		target, err := got.Target()
		if (err == nil) != (c.err == "") || err != nil && (err.Error() != c.err || !errors.As(err, new(*Problem))) {
			t.Errorf("%s: got %v", c.option, err)
		}
		if !reflect.DeepEqual(got, before) {
			t.Errorf("%s: Target has changed the configuration", c.option)
		}
		if err == nil && target.Roots.Driver != c.value {
			t.Errorf("%s: got %+v", c.option, target.Roots)
		}
	}
	system, _ := Load("system", Layers{Flags: map[string]string{"proc-root": dir}})
	if target, err := system.Target(); err != nil || target.Roots.Sys != "/" || target.Roots.Dev != "/" {
		t.Errorf("system: got %v", err)
	}
}

func TestOtherProfile(t *testing.T) {
	if _, err := os.Stat(DefaultOutput); err == nil {
		t.Skip("this machine has a spec")
	}
	plugin := Profiles["k8s-device-plugin"].Options["output"]
	is := func(output string) bool { return output == plugin }
	if got := OtherProfile(DefaultOutput, is); got != "k8s-device-plugin" {
		t.Errorf("got %q", got)
	}
	if got := OtherProfile("/x.yaml", is); got != "" {
		t.Errorf("got %q", got)
	}
	if got := OtherProfile(DefaultOutput, func(string) bool { return false }); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestArgsOfAModeAreItsKind(t *testing.T) {
	c, problems := Load("generate", Layers{Environment: map[string]string{"CDIGEN_MODE": "imex"}})
	if args := c.Args("generate"); len(problems) > 0 || !slices.Equal(args, []string{"--kind=imex-channel"}) {
		t.Errorf("%q, %v", args, problems)
	}
}
