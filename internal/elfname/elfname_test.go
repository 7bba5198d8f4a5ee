package elfname_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cdigen/cdigen/internal/elfname"
	"github.com/cdigen/cdigen/internal/simhost"
)

// libraries are those of simulated hosts, by architecture.
func libraries(t testing.TB) map[string][]byte {
	t.Helper()
	list := map[string][]byte{}
	for _, arch := range []string{"amd64", "arm64", "386"} {
		list[arch] = simhost.SharedObject(arch, "libGLX_nvidia.so.0", "libnvidia-glcore.so.550.54.15", "libnvidia-tls.so.550.54.15")
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

func TestNamesOfTheMachinesOwnLibraries(t *testing.T) {
	files, err := filepath.Glob("/lib/*-linux-gnu/libc.so.6")
	if err != nil || len(files) == 0 {
		files, _ = filepath.Glob("/lib64/libc.so.6")
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		info, err := elfname.Read(f)
		if err != nil || info.SONAME != "libc.so.6" {
			t.Errorf("%s: %+v, %v", file, info, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLibraryWithoutSONAME(t *testing.T) {
	info, err := elfname.Read(bytes.NewReader(simhost.SharedObject("amd64", "")))
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
