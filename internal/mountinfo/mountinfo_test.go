package mountinfo

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]Mount{
		"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw":                      {36, 35, "98:0", "/mnt1", "/mnt2", false, "ext3", "rw"},
		"36 35 0:25 / /run/a\\040b rw shared:7 master:1 propagate_from:2 - tmpfs shared:1 rw": {36, 35, "0:25", "/", "/run/a\\040b", true, "tmpfs", "rw"},
		"36 35 0:25 / /x rw - tmpfs shared:1 rw":                                              {36, 35, "0:25", "/", "/x", false, "tmpfs", "rw"},
		"36 35 0:25 / /x rw - cgroup none rw,cpu,cpuacct\n":                                   {36, 35, "0:25", "/", "/x", false, "cgroup", "rw,cpu,cpuacct"},
		"36 35 0:4 mnt:[4026532] /run/n rw - nsfs nsfs":                                       {36, 35, "0:4", "mnt:[4026532]", "/run/n", false, "nsfs", ""},
	} {
		if got, err := parse(line); err != nil || got != want {
			t.Errorf("%q is %+v: %v", line, got, err)
		}
	}
	for _, line := range []string{"", "\n", "a 35 0:25 / /x rw - tmpfs t rw", "36 35 0:25 / /x rw", "36 35 0:25 / /x rw -", "36 35 0:25 / - tmpfs t rw"} {
		if got, err := Parse([]byte(line)); err == nil && len(got) > 0 || line == "\n" && err == nil {
			t.Errorf("%q is %+v", line, got)
		}
	}
}

func TestReadKnowsTheMountsOfThisProcess(t *testing.T) {
	all, err := Read("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	proc := false
	for _, m := range all {
		proc = proc || m.Point == "/proc" && m.FSType == "proc"
	}
	if !proc {
		t.Errorf("/proc is not among %+v", all)
	}
	if _, err := Read(filepath.Join(t.TempDir(), "x")); !os.IsNotExist(err) {
		t.Errorf("a file that does not exist: %v", err)
	}
}

func TestLines(t *testing.T) {
	const lines = "36 35 0:25 / /run/a\\040b\\134c rw - tmpfs t rw\n37 35 0:25 / /x ro - tmpfs t rw\n"
	file := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	var points []string
	got, err := Lines(file, func(point string) bool {
		points = append(points, point)
		return point == "/x"
	})
	if err != nil || !slices.Equal(got, []string{"37 35 0:25 / /x ro - tmpfs t rw"}) {
		t.Errorf("%q: %v", got, err)
	}
	if !slices.Equal(points, []string{`/run/a b\c`, "/x"}) {
		t.Errorf("mount points %q", points)
	}
}

func BenchmarkThousandMounts(b *testing.B) {
	line := "36 35 98:0 /mnt1 /var/lib/containers/storage/overlay/0123456789abcdef/merged rw,noatime master:1 - overlay overlay rw,lowerdir=/a:/b\n"
	file := filepath.Join(b.TempDir(), "mountinfo")
	if err := os.WriteFile(file, []byte(strings.Repeat(line, 1000)), 0o600); err != nil {
		b.Fatal(err)
	}
	b.Run("Read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = Read(file)
		}
	})
	b.Run("Lines", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = Lines(file, func(string) bool { return false })
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n"))
	f.Add([]byte("36 35 0:4 mnt:[4026532] /run/n rw - nsfs nsfs"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = Parse(data) })
}
