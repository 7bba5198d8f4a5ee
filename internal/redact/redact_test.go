package redact

import (
	"encoding/hex"
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
	Words: []string{"rack 7"},
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
		{"per-device identifier", "GPU PDI : 0x8adaed1e5a5ddb23", `^GPU PDI : 0x02\d{14}$`},
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
		{"home without a leading slash", "home/ldapuser9/lib", `^home/redacted-user-\d{8}/lib$`},
		{"home of a short name", "/srv/homes/jo/lib", `^/srv/homes/redacted-user-\d{8}/lib$`},
		{"home of a Mac", "/Users/x", `^/Users/redacted-user-\d{8}$`},
		{"short names in an account", "vm@a", "^user@host$"},
		{"mail", "Jane.Doe+gpu@lab.example.org", "^user@host$"},
		{"IPv4 address", "from 10.20.30.40:22.", `^from 0\.1\d\d\.1\d\d\.1\d\d:22.$`},
		{"IPv4 network", "10.20.0.0/16", `^0\.1\d\d\.1\d\d\.1\d\d/16$`},
		{"IPv4 address in a name", "ip-10-20-30-40", `^redacted-host-\d{8}$`},
		{"IPv6 address", "at fe80::e42:a1ff:fe03:5f: no route", `^at 2001:db8(:\d{4}){6}: no route$`},
		{"IPv6 address after a colon", "node:2001:470:1:2::7/64", `^node:2001:db8(:\d{4}){6}/64$`},
		{"IPv6 address in full", "[fe80:0000:0000:0000:0c42:a103:005f:ae10]:80", `^\[2001:db8(:\d{4}){6}\]:80$`},
		{"IPv4 address in an IPv6 address", "::ffff:10.20.30.40", `^::ffff:0(\.1\d\d){3}$`},
		{"host in a domain", "gpu3.hpc.acme.com: unreachable", `^redacted-host-\d{8}: unreachable$`},
		{"host below a country", "n1.uni-musterstadt.de.", `^redacted-host-\d{8}.$`},
		{"host in a domain of second level", "n1.acme.co.in", `^redacted-host-\d{8}$`},
		{"host in the cloud", "ip-10-0-0-1.ec2.internal x.compute.amazonaws.com", `^redacted-host-\d{8} redacted-host-\d{8}$`},
		{"URL", "GET https://jane:pw@git.acme.org/x?y=z, done", `^GET https://redacted-host-\d{8}, done$`},
		{"URL of a bare name", "http://registry7:5000/v2", `^http://redacted-host-\d{8}$`},
		{"GUID of InfiniBand", "0x0c42a103005fae10", `^0x02\d{14}$`},
		{"GUID in groups", "0c42:a103:005f:ae10", `^02\d\d(:\d{4}){3}$`},
		{"GUID without 0x", "0c42a103005fae10", `^02\d{14}$`},
		{"Ethernet address of Cisco's form", "3cec.ef01.020a", `^02\d\d\.\d{4}\.\d{4}$`},
		{"Ethernet address without separators", "mac=3cecef01020a", `^mac=02\d{10}$`},
		{"UUID without dashes", "GPU-9221d5d10c5e4a4f8a4e3f0d1c8f0b1a", `^GPU-0{8}\d{24}$`},
		{"container's ID", "docker-3f4e8a9b1c2d4e5f60718293a4b5c6d7e8f9a0b1c2d3e4f5061728394a5b6c7d.scope", `^docker-0{8}\d{56}\.scope$`},
		{"container's short ID", "3f4e8a9b1c2d", `^02\d{10}$`},
		{"container's name", "container name: angry_darwin", `^container name: redacted-name-\d{8}$`},
		{"host's name with a label", `{"hostname":"n7"}`, `^{"hostname":"redacted-name-\d{8}"}$`},
		{"serial number with a short label", "S/N: 1650A22", `^S/N: redacted-serial-\d{8}$`},
		{"serial number with a shorter label", "board SN=CZ3D41", `^board SN=redacted-serial-\d{8}$`},
		{"service tag", "Service Tag: 7XK2P53", `^Service Tag: redacted-serial-\d{8}$`},
		{"serial number without a label", "board 1650522001234", `^board 9999\d{9}$`},
		{"instance of Amazon's", "i-0abc1234def567890 vol-0a1b2c3d", `^redacted-id-\d{8} redacted-id-\d{8}$`},
		{"resource of Amazon's", "arn:aws:iam::123456789012:role/x", `^redacted-id-\d{8}$`},
		{"resource of Google's", "projects/acme-ml-17/zones/us-central1-a/instances/gpu-7", `^projects/redacted-id-\d{8}/zones/us-central1-a/instances/redacted-id-\d{8}$`},
		{"WWN", "wwn-0x5000c500a1b2c3d4 naa.5000c500a1b2c3d4", `^wwn-0x02\d{14} naa.02\d{14}$`},
		{"IQN", "iqn.1993-08.org.debian:01:abcdef", `^redacted-id-\d{8}$`},
		{"NQN", "nqn.2014-08.org.nvmexpress:uuid:9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1a", `^redacted-id-\d{8}$`},
		{"machine-id", "0123456789abcdef0123456789abcdef", `^0{8}\d{24}$`},
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

func TestWhatIdentifiesNobodyStays(t *testing.T) {
	r := New([]byte("key"), known)
	for _, text := range strings.Split(`NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build
0000:3b:00.0 00000000:3B:00.0 0000:03:00.1 pci0000:00 pci-0000:3b:00.0-card 195:255 /dev/char/195:0 10000:e1:00.0
VBIOS 96.00.99.00.01, G520.0200.00.05, NVML 12.550.54.15 and 11.470.82.01, CUDA 12.4, 12:34:56, 2024-03-14T01:44:02.123456789Z
libcuda.so.1 libcuda.so.550.54.15 libnvidia-egl-wayland.so.1.1.13 libx.so.1.2.3.4 v1.2.3.4 nvidia-drm_gbm.so 10_nvidia.json
5.15.146.1-microsoft-standard-WSL2 4.18.0-553.5.1.el8_10.x86_64 6.8.0-1008-nvidia-64k
nvidia.com/gpu=all https://github.com/cdigen/cdigen/issues docs.nvidia.com cdi.k8s.io http://127.0.0.1:9101/metrics localhost ::1 0.0.0.0
cdigen.service getty.target nvidia_icd.x86_64.json main.go libnvidia-gtk3.so.535.161.08 run.sh a.py README.md os.path.join io.containerd.runc.v2
0x0000000000000000 0xffffffffc0a00000 0x7fffffffffff 0x10de 0x030200 000001ffffffffff 858993459200 3735928559
GPU-????????-????-????-????-???????????? std::string a::b unix:///run/x.sock N/A /home/kubernetes/bin/nvidia genome/x
NVIDIA H100 80GB HBM3, NVIDIA A100-SXM4-80GB, NVIDIA GeForce RTX 4090, 1g.10gb+me, MIG 1c.3g.40gb, Quadro RTX 6000/8000
Serial Number : N/A, hostname: localhost, asn: AS7, container: 3 names`, "\n") {
		if got := r.Text(text); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
		if left := r.Left(text); left != nil {
			t.Errorf("in %q is left %q", text, left)
		}
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
	if got, want := r.Text(strings.ReplaceAll(a, "-", "")), strings.ReplaceAll(one, "-", ""); got != want {
		t.Errorf("without dashes it becomes %s, not %s", got, want)
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
		"etc/passwd":                      "root:x:0:0::/root:/bin/sh\nvideo:x:1002::\njane:x:1000:1000::/home/jane:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nldap9:x:1234567:100::/:\nbroken\n",
		"etc/hosts":                       "127.0.0.1 localhost\n::1 ip6-localhost # ours\n10.0.0.9\tstorage3.example.org storage3 st\n",
		"home/ldapuser9/.profile":         "",
		"home/kubernetes/bin/x":           "",
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
		Hosts: []string{"node7", "node7.cluster.example.org", "storage3.example.org", "storage3"}, Users: []string{"joe", "jane", "ldap9", "ldapuser9"},
		Serials: []string{"J1003QZ3"},
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
	ids.Add([]string{"localhost", "nvidia", "GPU", "a", "10.0.0.1", "x y", "-x-", "", "node", "gpu1", "ip6-allnodes"}, []string{"root", "video", "jane", "Jane"}, []string{"1234", "none", "12345"})
	want := Identifiers{Hosts: []string{"node"}, Users: []string{"jane"}, Serials: []string{"12345"}}
	for _, word := range []string{"", "x", " xy", "xy\n", "x\xff"} {
		if ids.AddWord(word) {
			t.Errorf("%q is taken for a word", word)
		}
	}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
}

var replacedUUID = regexp.MustCompile(`^0{8}-\d{4}-\d{4}-\d{4}-\d{12}$`)

// FuzzRedact: no identifier is left in any text, in whatever it stands, and the same
// becomes the same.
func FuzzRedact(f *testing.F) {
	f.Add("NVRM version: … (root@gpu-node-17)\n", "gpu-node-17", "jane", "1323021009876", []byte("0123456789abcdef"))
	f.Add("GPU-9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1a/home/jane 3c:ec:ef:01:02:0a", "beef", "cafe", "0000-1111", []byte{})
	f.Add("00000000-1234-1234-1234-123456789012 Serial Number : 123-456 redacted-user-12345678", "redacted-host-12345678", "serial", "12345678", []byte("key"))
	f.Add("node:fe80::1: 10.0.0.1.5 0c42:a103:005f:ae10::1 ip-10-0-0-1.acme.de/home/x https://a@b.c/d S/N:1-2", "a.b", "x-y", "i-0abc1234", []byte("0"))
	f.Fuzz(func(t *testing.T, text, host, user, number string, uuid []byte) {
		var ids Identifiers
		ids.Add([]string{host}, []string{user}, []string{number})
		r := New(uuid, ids)
		var u [16]byte
		copy(u[:], uuid)
		id := regexp.MustCompile(`^(.{8})(.{4})(.{4})(.{4})(.{12})$`).ReplaceAllString(hex.EncodeToString(u[:]), "$1-$2-$3-$4-$5")
		whole := strings.Join([]string{text, "GPU-" + id, host, user, number, text, "MIG-" + id}, "\n")
		got := r.Text(whole)
		if left := r.Left(got); len(left) > 0 {
			t.Errorf("%q becomes %q, which has %q left", whole, got, left)
		}
		for _, word := range append(append(ids.Hosts, ids.Users...), ids.Serials...) {
			if strings.Contains(strings.ToLower(got), "\n"+strings.ToLower(word)+"\n") && !forms()[0].replaced.MatchString(word) {
				t.Errorf("%q is left in %q", word, got)
			}
		}
		replaced := r.Text("GPU-" + id)
		if replacedUUID.MatchString(id) {
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
