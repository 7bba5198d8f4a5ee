// Package elfname reads the names in an ELF shared library: its own, and those of
// the libraries it needs.
package elfname

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
)

// Info is what a library says of itself.
type Info struct {
	// SONAME is the DT_SONAME entry; empty for a library without one.
	SONAME string
	// Needed are the DT_NEEDED entries, in the file's order.
	Needed []string
	// Arch is the architecture by its Go name, "amd64"; empty for one that the
	// driver was never made for.
	Arch string
}

// ErrNotELF is in the error for a file that is not ELF, or is damaged.
var ErrNotELF = errors.New("not an ELF file")

// architectures by the fields of the ELF header that tell them.
var architectures = map[[3]uint16]string{
	{uint16(elf.EM_X86_64), uint16(elf.ELFCLASS64), uint16(elf.ELFDATA2LSB)}:  "amd64",
	{uint16(elf.EM_AARCH64), uint16(elf.ELFCLASS64), uint16(elf.ELFDATA2LSB)}: "arm64",
	{uint16(elf.EM_386), uint16(elf.ELFCLASS32), uint16(elf.ELFDATA2LSB)}:     "386",
	{uint16(elf.EM_ARM), uint16(elf.ELFCLASS32), uint16(elf.ELFDATA2LSB)}:     "arm",
	{uint16(elf.EM_PPC64), uint16(elf.ELFCLASS64), uint16(elf.ELFDATA2LSB)}:   "ppc64le",
}

// Read reads a library. Whatever the file has in it, memory is bounded by the
// file's size, for that is how package debug/elf reads.
func Read(r io.ReaderAt) (Info, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrNotELF, err)
	}
	info := Info{Arch: architectures[[3]uint16{uint16(f.Machine), uint16(f.Class), uint16(f.Data)}]}
	names, err := f.DynString(elf.DT_SONAME)
	if err != nil {
		return info, fmt.Errorf("read the dynamic section: %w", err)
	}
	if len(names) > 0 {
		info.SONAME = names[0]
	}
	if info.Needed, err = f.DynString(elf.DT_NEEDED); err != nil {
		return info, fmt.Errorf("read the dynamic section: %w", err)
	}
	return info, nil
}
