package mountinfo

import (
	"os"
	"path/filepath"
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

func FuzzParse(f *testing.F) {
	f.Add([]byte("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n"))
	f.Add([]byte("36 35 0:4 mnt:[4026532] /run/n rw - nsfs nsfs"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = Parse(data) })
}
