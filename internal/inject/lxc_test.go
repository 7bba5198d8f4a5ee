package inject

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/hosttest"
)

func TestBlockIsPutInAndTakenOut(t *testing.T) {
	for _, text := range []string{"", "\n", "lxc.uts.name = a\n", "lxc.uts.name = a", "a\r\n", "a\n\n\n", "# cdigen inject\n", "a\n\n[snap1]\nb\n", "[snap1]\nb"} {
		b, err := ParseBlock(text)
		check(t, err)
		if len(b.Devices) > 0 {
			t.Errorf("%q has devices %q", text, b.Devices)
		}
		with := b.With([]string{"v.com/a=0", "v.com/a=1"}, []string{"lxc.environment = A=1"})
		again, err := ParseBlock(with)
		check(t, err)
		if strings.Join(again.Devices, " ") != "v.com/a=0 v.com/a=1" {
			t.Errorf("%q has devices %q", with, again.Devices)
		}
		if got := again.With([]string{"v.com/a=0", "v.com/a=1"}, []string{"lxc.environment = A=1"}); got != with {
			t.Errorf("injected twice it is %q, once %q", got, with)
		}
		if got := again.With(nil, nil); got != text {
			t.Errorf("%q became %q and that %q", text, with, got)
		}
	}
}

func TestBlockIsBeforeSections(t *testing.T) {
	b, err := ParseBlock("arch: amd64\n\n[snap1]\narch: amd64\n")
	check(t, err)
	if got, want := b.With([]string{"v.com/a=0"}, []string{"new"}), "arch: amd64\n\n# cdigen inject: begin v.com/a=0\nnew\n# cdigen inject: end\n[snap1]\narch: amd64\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBlockStaysWhereItIs(t *testing.T) {
	b, err := ParseBlock("before\n# cdigen inject: begin v.com/a=0\nold\n# cdigen inject: end\nafter\n")
	check(t, err)
	if got, want := b.With([]string{"v.com/a=1"}, []string{"new"}), "before\n# cdigen inject: begin v.com/a=1\nnew\n# cdigen inject: end\nafter\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := b.With(nil, nil), "before\nafter\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBrokenBlockIsRefused(t *testing.T) {
	const begin, end = "# cdigen inject: begin a.com/b=c\n", "# cdigen inject: end\n"
	for text, want := range map[string]string{
		"x\n" + begin:                     "line 2: a beginning of injected lines without an end",
		"x\n" + end:                       "line 2: an end of injected lines without a beginning",
		begin + end + end:                 "line 3: an end of injected lines without a beginning",
		begin + begin + end:               "line 2: devices were injected in line 1 already: remove one of the two blocks",
		begin + end + begin + end:         "line 3: devices were injected in line 1 already: remove one of the two blocks",
		"# cdigen inject: begin\n" + end:  "the injected lines in it name no device",
		"# cdigen inject: begin \n" + end: "the injected lines in it name no device",
	} {
		if _, err := ParseBlock(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestRootfsOfAConfiguration(t *testing.T) {
	for text, want := range map[string]string{
		"lxc.rootfs.path = dir:/srv/a\n":                          "/srv/a",
		"lxc.rootfs.path=/srv/a b \nlxc.uts.name = x":             "/srv/a b",
		"lxc.rootfs.path = /a\n lxc.rootfs.path = /b\n":           "/b",
		"#lxc.rootfs.path = /a\n":                                 "",
		"lxc.rootfs.path = overlay:/lower:/upper\n":               "",
		"lxc.rootfs.path = zfs:pool/a\nlxc.rootfs.options = /a\n": "",
		"": "",
	} {
		b, err := ParseBlock(text)
		check(t, err)
		if got := b.Rootfs(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestLXCMountsWhereLinksLead(t *testing.T) {
	source, _ := odd(t)
	c, err := source.Contents([]string{"vendor.com/thing=0"})
	check(t, err)
	root := hosttest.Reachable(t)
	check(t, os.MkdirAll(filepath.Join(root, "real/usr/lib"), 0o755))
	check(t, os.Symlink("real/usr", filepath.Join(root, "usr")))
	lines, _, err := LXC(c, CgroupNone, OpenRootfs(root, nil, func(do func() error) error { return do() }))
	check(t, err)
	text := strings.Join(lines, "\n")
	for _, want := range []string{" real/usr/lib/lib.so.1 none ", " dev/thing0 none "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func FuzzBlock(f *testing.F) {
	f.Add("lxc.uts.name = a\n")
	f.Add("a\n# cdigen inject: begin a.com/b=c\nx\n# cdigen inject: end\nb")
	f.Add("# cdigen inject: begin a.com/b=c\n# cdigen inject: end")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ParseBlock(text)
		if err != nil {
			return
		}
		base := b.With(nil, nil)
		plain, err := ParseBlock(base)
		if err != nil || len(plain.Devices) > 0 {
			return // what was around a block may look like one
		}
		back, err := ParseBlock(plain.With([]string{"v.com/a=0"}, []string{"line"}))
		if err != nil {
			t.Fatal(err)
		}
		if got := back.With(nil, nil); got != base {
			t.Errorf("%q became %q", base, got)
		}
	})
}
