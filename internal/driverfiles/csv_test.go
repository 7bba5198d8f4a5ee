package driverfiles

import (
	"bytes"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCSV(t *testing.T) {
	entries, bad := ParseCSV([]byte("# devices\n\ndev, /dev/dri/card*\r\n  lib ,/usr//lib/libcuda.so.1.1/ \nsym,/etc/vulkan/icd.d/nvidia_icd.json\ndir, /dev/dri/by-path\n" +
		"dev /dev/nvmap\nblk, /dev/sda\nlib, usr/lib/x.so\nlib, /usr/lib/../../etc/shadow\nlib, \nlib, /a[\nlib, /a\x1bb\nlib, /" + strings.Repeat("a", 5000)))
	want := []Entry{{3, "dev", "/dev/dri/card*"}, {4, "lib", "/usr/lib/libcuda.so.1.1"}, {5, "sym", "/etc/vulkan/icd.d/nvidia_icd.json"}, {6, "dir", "/dev/dri/by-path"}}
	if diff := cmp.Diff(want, entries); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	for i, b := range bad {
		if b.Line != 7+i || b.Err == nil {
			t.Errorf("%+v", b)
		}
	}
	if len(bad) != 8 {
		t.Errorf("%d lines are not understood, want 8", len(bad))
	}
	entries, bad = ParseCSV(bytes.Repeat([]byte("dev, /dev/nvmap\n"), MaxCSVEntries+2))
	if len(entries) != MaxCSVEntries || len(bad) != 2 || bad[0].Line != MaxCSVEntries+1 {
		t.Errorf("%d entries, %v", len(entries), bad)
	}
}

func FuzzParseCSV(f *testing.F) {
	f.Add([]byte("dev, /dev/dri/card*\nsym, /usr/lib/aarch64-linux-gnu/tegra\n"))
	f.Add([]byte("lib, /../etc/shadow\ndir,/\n#\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, bad := ParseCSV(data)
		line := 0
		for _, e := range entries {
			if e.Line <= line || !path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path || strings.ContainsAny(e.Path, "\x00\n") {
				t.Errorf("%+v after line %d", e, line)
			}
			line = e.Line
		}
		if max := bytes.Count(data, []byte("\n")) + 1; len(entries)+len(bad) > max {
			t.Errorf("%d lines of %d", len(entries)+len(bad), max)
		}
	})
}
