// Package elfname reads the names in an ELF shared library: its own, and those of the
// libraries it needs.
package elfname

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Info describes a library.
type Info struct {
	// SONAME is the DT_SONAME entry; empty for a library without one.
	SONAME string
	// Needed are the DT_NEEDED entries, in the file's order.
	Needed []string
	// Arch is the architecture by its Go name, "amd64"; empty: not one of the driver's.
	Arch string
}

// ErrNotELF marks the error of a file that is not ELF or ends within its headers.
var ErrNotELF = errors.New("not an ELF file")

// architectures are by machine, class and byte order. The machine alone is ambiguous: the
// x32 ABI is EM_X86_64 with class 32.
var architectures = map[[3]uint16]string{
	{uint16(elf.EM_X86_64), uint16(elf.ELFCLASS64), uint16(elf.ELFDATA2LSB)}:  "amd64",
	{uint16(elf.EM_AARCH64), uint16(elf.ELFCLASS64), uint16(elf.ELFDATA2LSB)}: "arm64",
	{uint16(elf.EM_386), uint16(elf.ELFCLASS32), uint16(elf.ELFDATA2LSB)}:     "386",
	{uint16(elf.EM_ARM), uint16(elf.ELFCLASS32), uint16(elf.ELFDATA2LSB)}:     "arm",
	{uint16(elf.EM_PPC64), uint16(elf.ELFCLASS64), uint16(elf.ELFDATA2LSB)}:   "ppc64le",
}

// Read reads the headers, the dynamic section and its strings, and nothing else of a
// library. The error wraps [ErrNotELF] for a file that is not ELF. If only the dynamic
// section is damaged, Info has the architecture. A file without a dynamic section has no
// names.
func Read(r io.ReaderAt) (Info, error) {
	f, err := elf.NewFile(r)
	var format *elf.FormatError
	switch {
	case errors.As(err, &format) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return Info{}, fmt.Errorf("%w: %w", ErrNotELF, err)
	case err != nil:
		return Info{}, fmt.Errorf("read the ELF headers: %w", err)
	}
	info := Info{Arch: architectures[[3]uint16{uint16(f.Machine), uint16(f.Class), uint16(f.Data)}]}
	if err := info.readNames(f); err != nil {
		return Info{Arch: info.Arch}, fmt.Errorf("read the dynamic section: %w", err)
	}
	return info, nil
}

// readNames uses the program headers as the dynamic loader does. [elf.File.DynString] uses
// section headers, which a library may not have.
func (info *Info) readNames(f *elf.File) error {
	at := slices.IndexFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_DYNAMIC })
	if at < 0 {
		return nil
	}
	table, err := readPart(f.Progs[at], 0, f.Progs[at].Filesz)
	if err != nil {
		return err
	}
	var soname, needed []uint64
	var text, size uint64 // address and length of the strings
	for len(table) > 0 {
		var tag elf.DynTag
		var value uint64
		if tag, value, table = nextEntry(f, table); tag == elf.DT_NULL {
			break
		}
		switch tag {
		case elf.DT_SONAME:
			soname = []uint64{value}
		case elf.DT_NEEDED:
			needed = append(needed, value)
		case elf.DT_STRTAB:
			text = value
		case elf.DT_STRSZ:
			size = value
		}
	}
	if len(soname)+len(needed) == 0 {
		return nil
	}
	at = slices.IndexFunc(f.Progs, func(p *elf.Prog) bool {
		return p.Type == elf.PT_LOAD && p.Vaddr <= text && text-p.Vaddr < p.Filesz
	})
	if at < 0 {
		return fmt.Errorf("the strings are at address %#x, which no segment loads", text)
	}
	strings, err := readPart(f.Progs[at], text-f.Progs[at].Vaddr, size)
	if err != nil {
		return err
	}
	for _, at := range needed {
		name, err := stringAt(strings, at)
		if err != nil {
			return err
		}
		info.Needed = append(info.Needed, name)
	}
	for _, at := range soname {
		if info.SONAME, err = stringAt(strings, at); err != nil {
			return err
		}
	}
	return nil
}

// nextEntry returns the first entry of a dynamic table and the rest. An incomplete entry
// ends the table as DT_NULL does.
func nextEntry(f *elf.File, table []byte) (tag elf.DynTag, value uint64, rest []byte) {
	switch {
	case f.Class == elf.ELFCLASS64 && len(table) >= 16:
		return elf.DynTag(f.ByteOrder.Uint64(table)), f.ByteOrder.Uint64(table[8:]), table[16:]
	case f.Class == elf.ELFCLASS32 && len(table) >= 8:
		return elf.DynTag(f.ByteOrder.Uint32(table)), uint64(f.ByteOrder.Uint32(table[4:])), table[8:]
	}
	return elf.DT_NULL, 0, nil
}

// maxPart limits the memory for a damaged library. The strings of the driver's libraries
// have 57 KiB at most in driver 550.
const maxPart = 16 << 20

// readPart reads part of a segment.
func readPart(p *elf.Prog, at, size uint64) ([]byte, error) {
	if at > p.Filesz || size > p.Filesz-at || size > maxPart {
		return nil, fmt.Errorf("%d bytes at %d of a segment of %d: outside or too large", size, at, p.Filesz)
	}
	data := make([]byte, size)
	if n, err := p.ReadAt(data, int64(at)); n < len(data) {
		return nil, err
	}
	return data, nil
}

// stringAt returns the string at an offset, which a zero byte ends.
func stringAt(strings []byte, at uint64) (string, error) {
	if at < uint64(len(strings)) {
		if end := bytes.IndexByte(strings[at:], 0); end >= 0 {
			return string(strings[at:][:end]), nil
		}
	}
	return "", fmt.Errorf("a name at %d of %d bytes of strings", at, len(strings))
}
