package elfname_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/elfname"
	"github.com/cdigen/cdigen/internal/elfstub"
)

// libraries are those of simulated hosts, by architecture.
func libraries(t testing.TB) map[string][]byte {
	t.Helper()
	list := map[string][]byte{}
	for _, arch := range []string{"amd64", "arm64", "386"} {
		list[arch] = elfstub.SharedObject(arch, "libGLX_nvidia.so.0", "libnvidia-glcore.so.550.54.15", "libnvidia-tls.so.550.54.15")
	}
	return list
}

func TestNamesOfALibrary(t *testing.T) {
	for arch, data := range libraries(t) {
		info, err := elfname.Read(bytes.NewReader(data))
		if err != nil || info.SONAME != "libGLX_nvidia.so.0" || info.Arch != arch ||
			!slices.Equal(info.Needed, []string{"libnvidia-glcore.so.550.54.15", "libnvidia-tls.so.550.54.15"}) {
			t.Errorf("%s: %+v, %v", arch, info, err)
		}
	}
}

// TestNamesOfTheMachinesOwnLibraries compares with package debug/elf, which goes by
// the section headers.
func TestNamesOfTheMachinesOwnLibraries(t *testing.T) {
	files, err := filepath.Glob("/lib/*-linux-gnu/lib[cmrz]*.so.[0-9]")
	if err != nil || len(files) == 0 {
		files, _ = filepath.Glob("/lib64/lib[cmrz]*.so.[0-9]")
	}
	if len(files) == 0 {
		t.Skip("no libraries where Debian and Fedora have them")
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		soname, err1 := f.DynString(elf.DT_SONAME)
		needed, err2 := f.DynString(elf.DT_NEEDED)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		info, err := elfname.Read(bytes.NewReader(data))
		if err != nil || info.SONAME != strings.Join(soname, "") || !slices.Equal(info.Needed, needed) || info.Arch != runtime.GOARCH {
			t.Errorf("%s: %+v, %v; debug/elf reads %q and %q", file, info, err, soname, needed)
		}
	}
}

// Offsets in the headers of ELF files of 64 and of 32 bits.
var (
	sectionHeaders = map[string][2]int{"amd64": {0x28, 8}, "arm64": {0x28, 8}, "386": {0x20, 4}}
	sectionCounts  = map[string]int{"amd64": 0x3c, "arm64": 0x3c, "386": 0x30}
)

func TestLibraryWithoutSectionHeaders(t *testing.T) {
	for arch, data := range libraries(t) {
		want, err := elfname.Read(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		at := sectionHeaders[arch]
		start := binary.LittleEndian.Uint32(data[at[0]:])
		clear(data[at[0]:][:at[1]])
		clear(data[sectionCounts[arch]:][:4]) // e_shnum and e_shstrndx
		info, err := elfname.Read(bytes.NewReader(data[:start]))
		if err != nil || !reflect.DeepEqual(info, want) || info.SONAME == "" {
			t.Errorf("%s: %+v, %v; want %+v", arch, info, err, want)
		}
	}
}

func TestX32LibraryIsNotAMD64(t *testing.T) {
	data := libraries(t)["386"]
	binary.LittleEndian.PutUint16(data[0x12:], uint16(elf.EM_X86_64))
	if info, err := elfname.Read(bytes.NewReader(data)); err != nil || info.Arch != "" {
		t.Errorf("%+v, %v; want no architecture", info, err)
	}
}

func TestDamagedDynamicSectionIsAnError(t *testing.T) {
	// The program header of PT_DYNAMIC is the second, and the dynamic section
	// follows: two DT_NEEDED, DT_SONAME, DT_SYMTAB, DT_SYMENT, DT_STRTAB, DT_STRSZ.
	const dynamic, entry = 64 + 3*56, 16
	for _, c := range []struct {
		what  string
		at    int
		value uint64
		want  string
	}{
		{"dynamic section beyond the end", 64 + 56 + 32, 1 << 20, "EOF"},
		{"dynamic section larger than any", 64 + 56 + 32, 1 << 40, "too large"},
		{"name outside the strings", dynamic + 8, 1 << 40, "a name at"},
		{"SONAME outside the strings", dynamic + 2*entry + 8, 1 << 40, "a name at"},
		{"strings outside all segments", dynamic + 5*entry + 8, 1 << 40, "no segment loads"},
		{"strings longer than their segment", dynamic + 6*entry + 8, 1 << 40, "too large"},
		{"strings that end within a name", dynamic + 6*entry + 8, 20, "a name at"},
	} {
		data := libraries(t)["amd64"]
		binary.LittleEndian.PutUint64(data[c.at:], c.value)
		info, err := elfname.Read(bytes.NewReader(data))
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, elfname.ErrNotELF) {
			t.Errorf("%s: %v; want an error with %q", c.what, err, c.want)
		}
		if !reflect.DeepEqual(info, elfname.Info{Arch: "amd64"}) {
			t.Errorf("%s: %+v; want the architecture alone", c.what, info)
		}
	}
}

func TestLibraryThatIsCutOffIsAnError(t *testing.T) {
	for arch, data := range libraries(t) {
		for n := range data {
			if info, err := elfname.Read(bytes.NewReader(data[:n])); err == nil {
				t.Fatalf("%s: %d of %d bytes: %+v and no error", arch, n, len(data), info)
			}
		}
	}
}

// counter counts reads and the bytes asked for.
type counter struct {
	io.ReaderAt
	reads, bytes int
}

func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	c.reads++
	c.bytes += len(p)
	return c.ReaderAt.ReadAt(p, off)
}

func TestLittleOfALargeLibraryIsRead(t *testing.T) {
	data := libraries(t)["amd64"]
	c := &counter{ReaderAt: bytes.NewReader(append(data, make([]byte, 50<<20)...))}
	if _, err := elfname.Read(c); err != nil {
		t.Fatal(err)
	}
	// Each is a system call: headers, end of the section headers, dynamic section, strings.
	if c.reads > 4 || c.bytes > 8<<10 {
		t.Errorf("%d reads of %d bytes", c.reads, c.bytes)
	}
}

func TestFileThatCannotBeReadIsNotTakenForOneThatIsNotELF(t *testing.T) {
	failure := errors.New("input/output error")
	if _, err := elfname.Read(failing{failure}); !errors.Is(err, failure) || errors.Is(err, elfname.ErrNotELF) {
		t.Errorf("%v; want %v alone", err, failure)
	}
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func TestLibraryWithoutSONAME(t *testing.T) {
	info, err := elfname.Read(bytes.NewReader(elfstub.SharedObject("amd64", "")))
	if err != nil || info.SONAME != "" || info.Needed != nil {
		t.Errorf("%+v, %v; want no names", info, err)
	}
}

func TestWhatIsNotELFIsTold(t *testing.T) {
	for _, data := range []string{"", "#!/bin/sh\n", "/* GNU ld script */", "\x7fELF", "\x7fELF\x02\x01\x01"} {
		if _, err := elfname.Read(bytes.NewReader([]byte(data))); !errors.Is(err, elfname.ErrNotELF) {
			t.Errorf("%q: %v; want %v", data, err, elfname.ErrNotELF)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, data := range libraries(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := elfname.Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		for _, name := range append(info.Needed, info.SONAME) {
			if len(name) > len(data) {
				t.Errorf("a name of %d bytes from a file of %d", len(name), len(data))
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	data := libraries(b)["amd64"]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := elfname.Read(bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
}
