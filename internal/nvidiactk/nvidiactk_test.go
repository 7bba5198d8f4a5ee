package nvidiactk

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTheTableHasEveryFlag compares the table with testdata/flags.txt, and that with the help
// of nvidia-ctk itself where NVIDIA_CTK names it (make parity does).
func TestTheTableHasEveryFlag(t *testing.T) {
	data, err := os.ReadFile("testdata/flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	var table []string
	for _, c := range Commands {
		for _, f := range c.Flags {
			table = append(table, strings.TrimRight(fmt.Sprintf("%s: %s %s", c.Name, strings.Join(f.Names, " "), f.Variable), " "))
		}
	}
	listed := strings.Split(strings.TrimSpace(string(data)), "\n")
	if diff := cmp.Diff(listed, table); diff != "" {
		t.Errorf("the table is not testdata/flags.txt (-list +table):\n%s", diff)
	}
	if program := os.Getenv("NVIDIA_CTK"); program != "" {
		if diff := cmp.Diff(helpOf(t, program), listed); diff != "" {
			t.Errorf("testdata/flags.txt is not what nvidia-ctk has (-nvidia-ctk +list):\n%s", diff)
		}
	}
}

var (
	flagName = regexp.MustCompile(`(?:^   |, )--?([a-z.-]+)`)
	variable = regexp.MustCompile(`\$(NVIDIA_[A-Z_]+)`)
)

// helpOf returns the flags of nvidia-ctk as its help has them.
func helpOf(t *testing.T, program string) (list []string) {
	for _, c := range Commands {
		cmd := exec.Command(program, append(strings.Fields(c.Name), "--help")...)
		cmd.Env = []string{"COLUMNS=1000"}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", cmd.Args, err)
		}
		own, lines := c.Name == "", bufio.NewScanner(bytes.NewReader(out))
		on := false
		for lines.Scan() {
			line := lines.Text()
			if strings.HasSuffix(line, "OPTIONS:") {
				on = own || !strings.HasPrefix(line, "GLOBAL")
			}
			names, vars := flagName.FindAllStringSubmatch(strings.SplitN(line, "[ ", 2)[0], -1), variable.FindStringSubmatch(line)
			if on && names == nil && vars != nil {
				list[len(list)-1] += " " + vars[1] // of a text that has two lines
			}
			if !on || names == nil || names[0][1] == "help" || names[0][1] == "version" {
				continue
			}
			words := []string{c.Name + ":"}
			for _, n := range names {
				words = append(words, n[1])
			}
			if vars != nil {
				words = append(words, vars[1])
			}
			list = append(list, strings.Join(words, " "))
		}
	}
	return list
}

func TestTranslate(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"cdi generate", "cdigen generate --output=-"},
		{"cdi generate --output=/etc/cdi/nvidia.yaml", "cdigen generate --output=/etc/cdi/nvidia.yaml"},
		{"cdi generate --output a.yaml --mode nvml --device-id 0 --device-id=1", "cdigen generate --output=a.yaml --mode=nvml --device=0 --device=1"},
		{"cdi generate --no-all-device --output -", "cdigen generate --no-all --output=-"},
		{"cdi generate --no-all-device=false --output -", "cdigen generate --output=-"},
		{"cdi generate --discovery-mode=gds --cdi-vendor x.org --output=-", "cdigen generate --mode=gds --vendor=x.org --output=-"},
		{"cdi generate --debug --disable-hook all --output=-", "cdigen generate --log-level=debug --output=-"},
		{"cdi list", "cdigen list"},
		{"cdi transform root --from / --to /x --input a", "cdigen transform root --from=/ --to=/x --input=a"},
		{"runtime configure", "cdigen runtime enable docker"},
		{"runtime configure --runtime=containerd --set-as-default --cdi.enabled", "cdigen runtime enable containerd"},
		{"runtime configure --runtime crio --config /x/y --dry-run", "cdigen runtime enable --config=/x/y --dry-run crio"},
		{"config default --output=x", "cdigen settings"},
		{"hook update-ldcache --folder /x", ""},
	} {
		line, notes, ok := Translate(strings.Fields(c.args))
		if !ok || line != c.want || line == "" && len(notes) == 0 {
			t.Errorf("%s: got %q, want %q; notes %q", c.args, line, c.want, notes)
		}
	}
	for _, args := range [][]string{nil, {"generate"}, {"cdi"}, {"runtime", "enable"}} {
		if line, _, ok := Translate(args); ok {
			t.Errorf("%v: got %q", args, line)
		}
	}
	_, notes, _ := Translate([]string{"cdi", "generate", "--disable-hook=chmod"})
	if len(notes) != 2 || !strings.HasPrefix(notes[0], "cdigen publishes to ") || !strings.HasPrefix(notes[1], "--disable-hook is left out: ") {
		t.Errorf("notes are %q", notes)
	}
}

// Commands of nvidia-ctk have flags of one name that mean different things.
func TestAFlagIsThatOfTheCommand(t *testing.T) {
	for _, c := range []struct{ command, flag, want string }{
		{"runtime enable", "config", "config"}, {"settings", "config", "settings"}, {"generate", "config", ""},
		{"generate", "output", "output"}, {"settings", "output", ""}, {"generate", "device-ids", "device"},
	} {
		if f := Find(c.command, c.flag); f == nil || f.Use != c.want {
			t.Errorf("--%s of %s: got %+v, want %q", c.flag, c.command, f, c.want)
		}
	}
	if f := Find("generate", "nonsense"); f != nil {
		t.Errorf("got %+v", f)
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct{ variable, value, want string }{
		{"NVIDIA_CTK_CDI_GENERATE_DEVICE_IDS", "0,1", "device=0,1"},
		{"NVIDIA_CTK_CDI_GENERATE_NO_ALL_DEVICE", "true", "no-all=true"},
		{"NVIDIA_CTK_CDI_GENERATE_NO_ALL_DEVICE", "false", ""},
		{"NVIDIA_CTK_CDI_GENERATE_NO_ALL_DEVICE", "0", ""},
		{"NVIDIA_CTK_CDI_GENERATE_NO_ALL_DEVICE", "", ""},
		{"NVIDIA_CTK_DEBUG", "1", "log-level=debug"},
		{"NVIDIA_CTK_CDI_GENERATE_DISABLED_HOOKS", "all", ""},
	} {
		got := ""
		if option, text, ok := ByVariable(c.variable).Setting(c.value); ok {
			got = option + "=" + text
		}
		if got != c.want {
			t.Errorf("%s=%s: got %q, want %q", c.variable, c.value, got, c.want)
		}
	}
	if f := ByVariable("NVIDIA_VISIBLE_DEVICES"); f != nil {
		t.Errorf("got %+v", f)
	}
}
