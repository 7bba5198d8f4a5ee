package ldcache_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/elfstub"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/ldcache"
)

// sample is a cache that ldconfig of glibc 2.36 wrote of one directory, in the
// format that its -c option names.
func sample(t testing.TB, format string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + format + ".cache")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var formats = []string{"new", "compat", "old"}

func TestAllFormatsAreRead(t *testing.T) {
	want := []string{"libz.so.1", "libnvidia-glcore.so.550.54.15", "libgcc_s.so.1", "libcuda.so.1"}
	for _, format := range formats {
		entries, err := ldcache.Parse(sample(t, format))
		var names []string
		for _, e := range entries {
			names = append(names, e.Name)
			if e.Path != "/usr/lib/nvidia/"+e.Name || !e.Is("amd64") || e.Is("386") || e.Is("arm64") || e.Is("vax") || e.HWCap != 0 {
				t.Errorf("%s: %+v", format, e)
			}
		}
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("%s: %q, %v; want %q", format, names, err, want)
		}
	}
}

func TestTheMachinesOwnCacheIsReadAsLdconfigDoes(t *testing.T) {
	data, err := os.ReadFile("/etc/ld.so.cache")
	if err != nil {
		hosttest.SkipWithout(t, "ld.so.cache", err)
	}
	ldconfig, err := exec.LookPath("ldconfig")
	if err != nil {
		ldconfig = "/sbin/ldconfig"
	}
	out, err := exec.Command(ldconfig, "-p").Output()
	if err != nil {
		hosttest.SkipWithout(t, "ldconfig", err)
	}
	entries, err := ldcache.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name+" => "+e.Path)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) \(.*\) => (\S+)$`).FindAllStringSubmatch(string(out), -1) {
		want = append(want, m[1]+" => "+m[2])
	}
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("%d entries; ldconfig -p has %d", len(got), len(want))
	}
}

// readBack is what ldconfig reads from the cache it wrote.
var readBack = regexp.MustCompile(`(?m)^\t(\S+) \((\S+?)(?:, hwcap: "(.*)")?\) => (\S+)$`)

func TestWhatLdconfigWritesIsReadAsItReadsIt(t *testing.T) {
	ldconfig, err := exec.LookPath("ldconfig")
	if err != nil {
		ldconfig = "/sbin/ldconfig"
	}
	if _, err := os.Stat(ldconfig); err != nil {
		hosttest.SkipWithout(t, "ldconfig", err)
	}
	// ldconfig takes the libraries' real path.
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, arch := range map[string]string{
		"lib64/libcuda.so.1":                         "amd64",
		"lib64/libnvidia-ml.so.1":                    "amd64",
		"lib64/glibc-hwcaps/x86-64-v2/libcuda.so.1":  "amd64",
		"lib32/libcuda.so.1":                         "386",
		"lib64/no-library.so.1":                      "",
		"lib64/glibc-hwcaps/x86-64-v2/libother.so.2": "amd64",
	} {
		data := []byte("text")
		if arch != "" {
			data = elfstub.SharedObject(arch, filepath.Base(name), "libc.so.6")
		}
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, data, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, []byte(dir+"/lib64\n"+dir+"/lib32\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// ldconfig adds the machine's own standard directories. In the old format it
	// does not say which libraries only some processors can use.
	for _, format := range formats {
		cache := filepath.Join(dir, format)
		if out, err := exec.Command(ldconfig, "-X", "-f", conf, "-C", cache, "-c", format).CombinedOutput(); err != nil {
			hosttest.SkipWithout(t, "ldconfig that writes the format "+format, fmt.Errorf("%w: %s", err, out))
		}
		out, err := exec.Command(ldconfig, "-p", "-C", cache).Output()
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(cache)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := ldcache.Parse(data)
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		lines := readBack.FindAllStringSubmatch(string(out), -1)
		if len(lines) != len(entries) {
			t.Fatalf("%s: %d entries; ldconfig reads %d", format, len(entries), len(lines))
		}
		ours := 0
		for i, m := range lines {
			e := entries[i]
			if e.Name != m[1] || e.Path != m[4] || e.Is("amd64") != (m[2] == "libc6,x86-64") || e.Is("386") != (m[2] == "libc6") || (e.HWCap != 0) != (m[3] != "") {
				t.Errorf("%s: %+v; ldconfig reads %q", format, e, m[0])
			}
			if strings.HasPrefix(e.Path, dir) {
				ours++
			}
		}
		if ours != 5 {
			t.Errorf("%s: %d of the libraries are in it; want 5", format, ours)
		}
	}
}

func TestArchitectureIsInTheFlags(t *testing.T) {
	for flags, arch := range map[uint32]string{0x0303: "amd64", 0x0003: "386", 0x0a03: "arm64"} {
		e := ldcache.Entry{Flags: flags}
		for _, other := range []string{"amd64", "386", "arm64"} {
			if e.Is(other) != (other == arch) {
				t.Errorf("flags %#x: Is(%s) = %v", flags, other, e.Is(other))
			}
		}
	}
}

func TestDamageIsAnErrorAndNeverMore(t *testing.T) {
	for _, format := range formats {
		data := sample(t, format)
		// The last entry's path needs the file's end but for the note behind it.
		whole := bytes.LastIndex(data, []byte("/usr/lib/nvidia/libcuda.so.1\x00")) + len("/usr/lib/nvidia/libcuda.so.1\x00")
		for n := range whole {
			if entries, err := ldcache.Parse(data[:n]); err == nil {
				t.Errorf("%s cut off at %d of %d: %d entries and no error", format, n, len(data), len(entries))
			}
		}
	}
	for _, c := range []struct {
		what   string
		format string
		at     int
		value  uint32
	}{
		{"a number of entries beyond the file", "new", 20, 1 << 31},
		{"a name outside the file", "new", 48 + 4, 1 << 30},
		{"a path outside the file", "new", 48 + 8, 0xffffffff},
		{"a cache that says it is not valid", "new", 28, 1},
		{"a number of entries beyond the file", "old", 12, 0xffffffff},
		{"a name outside the file", "old", 16 + 4, 1 << 30},
	} {
		data := slices.Clone(sample(t, c.format))
		binary.LittleEndian.PutUint32(data[c.at:], c.value)
		if _, err := ldcache.Parse(data); err == nil || !strings.HasPrefix(err.Error(), "ld.so.cache: ") {
			t.Errorf("%s (%s): %v; want an error", c.what, c.format, err)
		}
	}
	if _, err := ldcache.Parse([]byte("garbage")); err == nil {
		t.Error("garbage: no error")
	}
}

func TestBigEndianCacheIsRead(t *testing.T) {
	data := slices.Clone(sample(t, "new"))
	for at := 20; at < 28; at += 4 {
		swap(data[at : at+4])
	}
	data[28] = 3
	for i := range 4 {
		entry := data[48+24*i:]
		for at := 0; at < 16; at += 4 {
			swap(entry[at : at+4])
		}
		swap(entry[16:24])
	}
	entries, err := ldcache.Parse(data)
	if err != nil || len(entries) != 4 || entries[3].Name != "libcuda.so.1" || entries[3].Flags != 0x0303 {
		t.Errorf("%+v, %v", entries, err)
	}
}

func swap(b []byte) { slices.Reverse(b) }

func FuzzParse(f *testing.F) {
	for _, format := range formats {
		f.Add(sample(f, format))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := ldcache.Parse(data)
		if err != nil {
			return
		}
		if len(entries) > len(data)/12 {
			t.Errorf("%d entries of %d bytes", len(entries), len(data))
		}
		for _, e := range entries {
			if len(e.Name)+len(e.Path) > 2*len(data) {
				t.Errorf("entry with %d and %d bytes of %d", len(e.Name), len(e.Path), len(data))
			}
		}
	})
}

// BenchmarkParse reads a cache of 2000 libraries, as a full desktop has.
func BenchmarkParse(b *testing.B) {
	const entries = 2000
	var table, text bytes.Buffer
	at := func(s string) uint32 {
		pos := uint32(48 + 24*entries + text.Len())
		text.WriteString(s + "\x00")
		return pos
	}
	for i := range entries {
		name := fmt.Sprintf("libsomething%d.so.1", i)
		if err := binary.Write(&table, binary.LittleEndian, []uint32{0x0303, at(name), at("/usr/lib/x86_64-linux-gnu/" + name), 0, 0, 0}); err != nil {
			b.Fatal(err)
		}
	}
	header := make([]byte, 48)
	copy(header, "glibc-ld.so.cache1.1")
	binary.LittleEndian.PutUint32(header[20:], entries)
	binary.LittleEndian.PutUint32(header[24:], uint32(text.Len()))
	header[28] = 2
	data := slices.Concat(header, table.Bytes(), text.Bytes())
	b.ReportAllocs()
	for b.Loop() {
		if list, err := ldcache.Parse(data); err != nil || len(list) != entries {
			b.Fatal(len(list), err)
		}
	}
}
