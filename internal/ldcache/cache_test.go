package ldcache_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/elfstub"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/ldcache"
)

// What was read is written as it was, byte for byte.
func TestCacheIsWrittenAsItWasRead(t *testing.T) {
	caches := map[string][]byte{}
	for _, format := range formats {
		caches[format] = sample(t, format)
	}
	if data, err := os.ReadFile("/etc/ld.so.cache"); err == nil {
		caches["this machine"] = data
	}
	for name, data := range caches {
		c, err := ldcache.Read(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := c.Encode(); !bytes.Equal(got, data) {
			t.Errorf("%s: %d entries, %d bytes; want %d", name, len(c.Entries), len(got), len(data))
		}
	}
}

// library is one that a test makes.
type library struct{ dir, soname, arch, needed string }

// Entries that are added one by one, in any order, make the cache that ldconfig
// writes of all of them.
func TestAddedEntriesMakeTheCacheOfLdconfig(t *testing.T) {
	const ldconfig = "/sbin/ldconfig"
	if _, err := os.Stat(ldconfig); err != nil {
		hosttest.SkipWithout(t, "ldconfig", err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var libraries []library
	for i, name := range []string{
		"libcuda.so.1", "libcuda.so.2", "libcuda.so.10", "libnvidia-ml.so.1", "libnvidia-glcore.so.550.54.14", "libnvidia-glcore.so.550.163.01",
		"libEGL_nvidia.so.0", "libGLX_nvidia.so.0", "libz.so.1", "libz.so", "lib-.so.1", "lib_.so.1", "libA.so.1", "liba.so.1", "lib1.so", "lib02.so",
		"libnvcuvid.so.1", "libnvidia-opencl.so.1", "libOpenCL.so.1", "ld-nvidia.so.2", "libé.so.1",
	} {
		for _, sub := range []string{"first", "second"} {
			if sub == "second" && i%3 == 0 {
				continue
			}
			libraries = append(libraries, library{sub, name, "amd64", "libc.so.6"})
		}
		if i%2 == 0 {
			libraries = append(libraries, library{"32", name, "386", "libc.so.6"})
		}
		if i%4 == 0 {
			libraries = append(libraries, library{"first/glibc-hwcaps/x86-64-v2", name, "amd64", "libc.so.6"},
				library{"second/glibc-hwcaps/x86-64-v3", name, "amd64", "libc.so.6"})
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "second/glibc-hwcaps/x86-64-v4"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range libraries {
		file := filepath.Join(dir, l.dir, l.soname)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, elfstub.SharedObject(l.arch, l.soname, l.needed), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, []byte(fmt.Sprintf("%[1]s/first\n%[1]s/second\n%[1]s/32\n", dir)), 0o644); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, format := range formats {
		cache := filepath.Join(dir, format)
		if out, err := exec.Command(ldconfig, "-X", "-f", conf, "-C", cache, "-c", format).CombinedOutput(); err != nil {
			hosttest.SkipWithout(t, "ldconfig that writes the format "+format, fmt.Errorf("%w: %s", err, out))
		}
		want, err := os.ReadFile(cache)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			c, err := ldcache.Read(want)
			if err != nil {
				t.Fatal(err)
			}
			// Those of the plain directories are taken out and added again.
			var added []ldcache.Entry
			c.Entries = slices.DeleteFunc(c.Entries, func(e ldcache.Entry) bool {
				ours := e.HWCap == 0 && strings.HasPrefix(e.Path, dir) && !strings.Contains(e.Path, "glibc-hwcaps") && random.IntN(2) == 0
				if ours {
					added = append(added, e)
				}
				return ours
			})
			random.Shuffle(len(added), func(i, j int) { added[i], added[j] = added[j], added[i] })
			place := func(e ldcache.Entry) int {
				if strings.Contains(e.Path, "glibc-hwcaps") {
					return -1 // which the old format does not tell
				}
				i := slices.Index([]string{dir + "/first", dir + "/second", dir + "/32"}, filepath.Dir(e.Path))
				if i < 0 {
					return 3 // the standard directories come last
				}
				return i
			}
			for _, e := range added {
				if !c.Add(e, func(other ldcache.Entry) bool { return place(other) > place(e) }) {
					t.Fatalf("%s: %+v is there already", format, e)
				}
				if c.Add(e, nil) {
					t.Fatalf("%s: %+v is added twice", format, e)
				}
			}
			if got := c.Encode(); !bytes.Equal(got, want) {
				again, err := ldcache.Read(got)
				if err != nil {
					t.Fatalf("%s: %v", format, err)
				}
				original, _ := ldcache.Parse(want)
				for i, e := range again.Entries {
					if i < len(original) && e != original[i] {
						t.Fatalf("%s: entry %d is %+v; ldconfig has %+v", format, i, e, original[i])
					}
				}
				t.Fatalf("%s: the entries are right and the bytes are not: %d bytes, want %d", format, len(got), len(want))
			}
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	c := ldcache.Empty("ldconfig (GNU libc) stable release version 2.36")
	for i := range 3000 {
		name := fmt.Sprintf("lib%d-%d.so.%d", i*7919%1000, i, i%13)
		c.Add(ldcache.Entry{Name: name, Path: "/usr/lib/x86_64-linux-gnu/" + name, Flags: 0x303}, nil)
	}
	data := c.Encode()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		c, err := ldcache.Read(data)
		if err != nil {
			b.Fatal(err)
		}
		for i := range 40 {
			name := fmt.Sprintf("libnvidia-%d.so.1", i)
			c.Add(ldcache.Entry{Name: name, Path: "/usr/lib/nvidia/" + name, Flags: 0x303}, nil)
		}
		c.Encode()
	}
}

// Damage is an error, and what is read can be written and read again.
func FuzzRead(f *testing.F) {
	for _, format := range formats {
		f.Add(sample(f, format))
	}
	c := ldcache.Empty("ldconfig")
	c.HWCaps = []string{"x86-64-v2", "x86-64-v3"}
	c.Add(ldcache.Entry{Name: "liba.so.1", Path: "/lib/glibc-hwcaps/x86-64-v3/liba.so.1", Flags: 0x303, HWCap: 1<<62 | 1}, nil)
	c.Add(ldcache.Entry{Name: "liba.so.1", Path: "/lib/liba.so.1", Flags: 0x303}, nil)
	f.Add(c.Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ldcache.Read(data)
		if err != nil {
			return
		}
		again, err := ldcache.Read(c.Encode())
		if err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
		if !slices.Equal(again.HWCaps, c.HWCaps) || again.Generator != c.Generator {
			t.Errorf("%q %q, want %q %q", again.HWCaps, again.Generator, c.HWCaps, c.Generator)
		}
		if c.Layout == ldcache.New && !slices.Equal(again.Entries, c.Entries) {
			t.Errorf("%+v, want %+v", again.Entries, c.Entries)
		}
		again.Add(ldcache.Entry{Name: "libcuda.so.1", Path: "/usr/lib/libcuda.so.1", Flags: 0x303}, nil)
		if third, err := ldcache.Read(again.Encode()); err != nil || !slices.ContainsFunc(third.Entries, func(e ldcache.Entry) bool { return e.Path == "/usr/lib/libcuda.so.1" }) {
			t.Errorf("the added library is not read back: %v", err)
		}
	})
}

func TestNamesThatShareBytesAreLimited(t *testing.T) {
	// 5,000 entries, each with the same name of 4 KB.
	c := ldcache.Empty("ldconfig")
	name := "lib" + strings.Repeat("x", 4000) + ".so.1"
	for i := range 5000 {
		c.Entries = append(c.Entries, ldcache.Entry{Name: name, Path: "/lib/" + name, Flags: uint32(i)})
	}
	data := c.Encode()
	if len(data) > 1<<20 {
		t.Fatalf("the test's file has %d bytes", len(data))
	}
	if _, err := ldcache.Read(data); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("error %v", err)
	}
}

// What is made of any names and paths is read back as it is, in an order in which
// the loader's search finds it, and ldconfig itself accepts it.
func FuzzAdd(f *testing.F) {
	f.Add("libcuda.so.1\x00/usr/lib/libcuda.so.1\x00libcuda.so.2\x00/usr/lib/libcuda.so.2", false)
	f.Add("lib10.so\x00/a\x00lib9.so\x00/b\x00lib9.so\x00/c\x00\x00", true)
	f.Add("liba-1.so.4294967299\x00/lib/liba-1.so.4294967299\x00lib\xff.so\x00/\xff", false)
	_, missing := os.Stat("/sbin/ldconfig")
	f.Fuzz(func(t *testing.T, text string, first bool) {
		c := ldcache.Empty("ldconfig")
		added := map[ldcache.Entry]bool{}
		words := strings.Split(text, "\x00")
		for i := 0; i+1 < len(words); i += 2 {
			if len(words[i]) > 200 || len(words[i+1]) > 200 {
				return
			}
			e := ldcache.Entry{Name: words[i], Path: words[i+1], Flags: 0x303}
			if c.Add(e, func(ldcache.Entry) bool { return first }) == added[e] {
				t.Errorf("%+v was there before: %v", e, added[e])
			}
			added[e] = true
		}
		data := c.Encode()
		again, err := ldcache.Read(data)
		if err != nil || !slices.Equal(again.Entries, c.Entries) || len(again.Entries) != len(added) {
			t.Fatalf("%d entries of %d were read: %v", len(again.Entries), len(added), err)
		}
		if missing != nil {
			return
		}
		file := filepath.Join(t.TempDir(), "cache")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("/sbin/ldconfig", "-p", "-C", file).CombinedOutput()
		if want := fmt.Sprintf("%d libs found in cache `%s'\n", len(added), file); err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("ldconfig -p: %v: %.200s, want %s", err, out, want)
		}
	})
}
