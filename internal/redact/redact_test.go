package redact

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var known = Identifiers{
	Hosts: []string{"gpu-node-17.example.org", "gpu-node-17"}, Users: []string{"jane"}, Serials: []string{"1323021009876", "JKQZ93/A"},
	MachineIDs: []string{"0123456789abcdef0123456789abcdef"}, Words: []string{"rack 7"},
}

func TestIdentifiersAreReplacedInTheirForm(t *testing.T) {
	const uuid = "00000000-4703-8412-2395-412334510192"
	for _, c := range []struct{ name, text, want string }{
		{"UUID of a GPU", "GPU UUID: \t GPU-9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1a\n", `^GPU UUID: \t GPU-0{8}-\d{4}-\d{4}-\d{4}-\d{12}\n$`},
		{"UUID in capitals", "9221D5D1-0C5E-4A4F-8A4E-3F0D1C8F0B1A", `^0{8}(-\d{4}){3}-\d{12}$`},
		{"UUID of a MIG device of old", "MIG-GPU-9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1a/7/0", `^MIG-GPU-0{8}(-\d{4}){3}-\d{12}/7/0$`},
		{"UUID between other hexadecimal digits", "ff9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1aff", `^ff0{8}(-\d{4}){3}-\d{12}ff$`},
		{"UUID that is replaced already", uuid, "^" + uuid + "$"},
		{"UUID that the driver does not know yet", "GPU-????????-????-????-????-????????????", `^GPU-\?{8}(-\?{4}){3}-\?{12}$`},
		{"Ethernet address", "ether 3c:ec:ef:01:02:0a\n", `^ether 02(:\d\d){5}\n$`},
		{"Ethernet address with dashes", "3C-EC-EF-01-02-0A", `^02(-\d\d){5}$`},
		{"InfiniBand address", "0c:42:a1:03:00:5f:ae:10", `^02(:\d\d){7}$`},
		{"serial number with its label", "    Serial Number : 1650522001234\n", `^    Serial Number : redacted-serial-\d{8}\n$`},
		{"serial number in JSON", `{"serial": "1650522001234"}`, `^{"serial": "redacted-serial-\d{8}"}$`},
		{"per-device identifier", "GPU PDI : 0x8adaed1e5a5ddb23", `^GPU PDI : redacted-serial-\d{8}$`},
		{"serial number that is not told", "Serial Number : N/A", "^Serial Number : N/A$"},
		{"serial number of the machine", "x=JKQZ93/A;", `^x=redacted-serial-\d{8};$`},
		{"host", "Linux gpu-node-17 6.1", `^Linux redacted-host-\d{8} 6.1$`},
		{"host with its domain", "gpu-node-17.example.org", `^redacted-host-\d{8}$`},
		{"host in capitals, in a path", "/mnt/GPU-Node-17_a/x", `^/mnt/redacted-host-\d{8}_a/x$`},
		{"host in a longer name", "xgpu-node-17 gpu-node-171", "^xgpu-node-17 gpu-node-171$"},
		{"who built the module", "(root@gpu-node-17)  Thu", `^\(user@host\)  Thu$`},
		{"who built the module elsewhere", "(dvs-builder@U22-I3-AF03-09-4)", `^\(user@host\)$`},
		{"user", "/data/jane/lib", `^/data/redacted-user-\d{8}/lib$`},
		{"home of somebody else", "/home/joe.doe/lib", `^/home/redacted-user-\d{8}/lib$`},
		{"another word", "in Rack 7.", `^in redacted-word-\d{8}.$`},
		{"machine-id", "0123456789abcdef0123456789abcdef", `^0{8}\d{24}$`},
		{"what tells nothing", "NVRM 0000:3b:00.0 00000000:3B:00.0 96.00.99.00.01 12:34:56 550.54.15 NVIDIA H100 80GB HBM3", "^NVRM 0000:3b:00.0 00000000:3B:00.0 96.00.99.00.01 12:34:56 550.54.15 NVIDIA H100 80GB HBM3$"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := New([]byte("key"), known)
			got := r.Text(c.text)
			if !regexp.MustCompile(c.want).MatchString(got) {
				t.Errorf("%q becomes %q", c.text, got)
			}
			if left := r.Left(got); left != nil {
				t.Errorf("%q has %q left", got, left)
			}
			if again := r.Text(got); again != got {
				t.Errorf("%q becomes %q when it is done again", got, again)
			}
			if left := r.Left(c.text); (got != c.text) != (left != nil) {
				t.Errorf("in %q is left %q", c.text, left)
			}
		})
	}
}

func TestSameIsReplacedBySame(t *testing.T) {
	const a, b = "9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1a", "9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1b"
	r := New([]byte("key"), known)
	one, other := r.Text(a), r.Text(b)
	if one == other {
		t.Errorf("two UUIDs become one: %s", one)
	}
	if got, want := r.Text("GPU-"+a+" "+strings.ToUpper(b)+" MIG-"+b), "GPU-"+one+" "+other+" MIG-"+other; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if again := New([]byte("key"), Identifiers{}).Text(a); again != one {
		t.Errorf("another redactor with the key makes %s of it, not %s", again, one)
	}
	if foreign := New([]byte("other"), known).Text(a); foreign == one {
		t.Error("the key makes no difference")
	}
}

func TestCollectReadsTheMachine(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"proc/sys/kernel/hostname":        "node7\n",
		"etc/hostname":                    "node7.cluster.example.org\n",
		"etc/passwd":                      "root:x:0:0::/root:/bin/sh\nvideo:x:1002::\njane:x:1000:1000::/home/jane:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nbroken\n",
		"etc/machine-id":                  "0123456789abcdef0123456789abcdef\n",
		"sys/class/dmi/id/product_serial": "J1003QZ3\n",
		"sys/class/dmi/id/board_serial":   "To be filled by O.E.M.\n",
		"sys/class/dmi/id/chassis_serial": "None\n",
	} {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	got := Collect(root, func(name string) string { return map[string]string{"SUDO_USER": "joe", "USER": "root"}[name] })
	want := Identifiers{
		Hosts: []string{"node7", "node7.cluster.example.org"}, Users: []string{"joe", "jane"},
		Serials: []string{"J1003QZ3"}, MachineIDs: []string{"0123456789abcdef0123456789abcdef"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if empty := Collect(t.TempDir(), func(string) string { return "" }); !cmp.Equal(empty, Identifiers{}) {
		t.Errorf("an empty machine has %+v", empty)
	}
}

func TestWordThatTellsNothingIsNoIdentifier(t *testing.T) {
	var ids Identifiers
	ids.Add([]string{"localhost", "nvidia", "GPU", "a", "10.0.0.1", "x y", "-x-", "", "node"}, []string{"root", "video", "jane", "Jane"}, []string{"1234", "none", "12345"})
	want := Identifiers{Hosts: []string{"node"}, Users: []string{"jane"}, Serials: []string{"12345"}}
	for _, word := range []string{"", "x", " xy", "xy\n"} {
		if ids.AddWord(word) {
			t.Errorf("%q is taken for a word", word)
		}
	}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
}

// FuzzRedact: no identifier is left in any text, in whatever it stands, and the same
// becomes the same.
func FuzzRedact(f *testing.F) {
	f.Add("NVRM version: … (root@gpu-node-17)\n", "gpu-node-17", "jane", "1323021009876", []byte("0123456789abcdef"))
	f.Add("GPU-9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1a/home/jane 3c:ec:ef:01:02:0a", "beef", "cafe", "0000-1111", []byte{})
	f.Add("00000000-1234-1234-1234-123456789012 Serial Number : 123-456 redacted-user-12345678", "redacted-host-12345678", "serial", "12345678", []byte("key"))
	f.Fuzz(func(t *testing.T, text, host, user, number string, uuid []byte) {
		var ids Identifiers
		ids.Add([]string{host}, []string{user}, []string{number})
		r := New(uuid, ids)
		var u [16]byte
		copy(u[:], uuid)
		id := regexp.MustCompile(`^(.{8})(.{4})(.{4})(.{4})(.{12})$`).ReplaceAllString(hexadecimal(u[:]), "$1-$2-$3-$4-$5")
		whole := strings.Join([]string{text, "GPU-" + id, host, user, number, text, "MIG-" + id}, "\n")
		got := r.Text(whole)
		if left := r.Left(got); len(left) > 0 {
			t.Errorf("%q becomes %q, which has %q left", whole, got, left)
		}
		for _, word := range append(append(ids.Hosts, ids.Users...), ids.Serials...) {
			if strings.Contains(strings.ToLower(got), "\n"+strings.ToLower(word)+"\n") && !wordReplaced.MatchString(word) {
				t.Errorf("%q is left in %q", word, got)
			}
		}
		replaced := r.Text("GPU-" + id)
		if uuidReplaced.MatchString(id) {
			return // it looks like one that was replaced
		}
		if strings.Contains(strings.ToLower(got), id) {
			t.Errorf("%s is left in %q", id, got)
		}
		if !strings.Contains(got, "\n"+replaced+"\n") || !strings.HasSuffix(got, "\nMIG-"+strings.TrimPrefix(replaced, "GPU-")) {
			t.Errorf("%s becomes %s, but not twice in %q", id, replaced, got)
		}
	})
}

func hexadecimal(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}
