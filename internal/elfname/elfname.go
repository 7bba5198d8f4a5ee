// Package elfname reads the names in an ELF shared library.
package elfname

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
)

// Info is what a library says of itself.
type Info struct {
	SONAME string
	Needed []string
	Arch   string
}

// ErrNotELF is returned for a file that is not ELF.
var ErrNotELF = errors.New("not an ELF file")

// Read reads.
func Read(r io.ReaderAt) (Info, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrNotELF, err)
	}
	var info Info
	switch f.Machine {
	case elf.EM_X86_64:
		info.Arch = "amd64"
	case elf.EM_AARCH64:
		info.Arch = "arm64"
	case elf.EM_386:
		info.Arch = "386"
	}
	names, err := f.DynString(elf.DT_SONAME)
	if err != nil {
		return info, err
	}
	if len(names) > 0 {
		info.SONAME = names[0]
	}
	info.Needed, err = f.DynString(elf.DT_NEEDED)
	return info, err
}
