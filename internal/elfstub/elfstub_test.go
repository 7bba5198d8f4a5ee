package elfstub

import (
	"bytes"
	"debug/elf"
	"testing"
)

func TestLibraryIsOfItsArchitecture(t *testing.T) {
	for arch, want := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "386": elf.EM_386} {
		f, err := elf.NewFile(bytes.NewReader(SharedObject(arch, "libx.so.1")))
		if err != nil || f.Machine != want || f.Type != elf.ET_DYN {
			t.Errorf("%s: %+v, %v", arch, f, err)
		}
	}
}
