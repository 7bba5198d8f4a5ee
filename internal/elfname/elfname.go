// Package elfname reads the names in an ELF shared library: its own, and those of the
// libraries it needs.
package elfname

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
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
	p, err := newProgramHeaders(r)
	var f *elf.File
	if err == nil {
		f, err = elf.NewFile(p)
	}
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

// programHeaders is a file without its section headers, which take longest to read and say
// nothing of names that the program headers do not.
type programHeaders struct {
	io.ReaderAt
	begin []byte
}

// newProgramHeaders reads the begin of a file, and sees whether the file has its end.
func newProgramHeaders(r io.ReaderAt) (*programHeaders, error) {
	p := &programHeaders{ReaderAt: r, begin: make([]byte, 1024)}
	n, err := r.ReadAt(p.begin, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return p, err
	}
	if p.begin = p.begin[:n]; n < headerSize || !bytes.HasPrefix(p.begin, []byte(elf.ELFMAG)) {
		return p, nil // debug/elf says what is wrong
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(p.begin[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	place, sizes := p.begin[32:36], p.begin[46:52] // e_shoff; e_shentsize, e_shnum, e_shstrndx
	end := uint64(order.Uint32(place))
	if elf.Class(p.begin[elf.EI_CLASS]) == elf.ELFCLASS64 {
		place, sizes = p.begin[40:48], p.begin[58:64]
		end = order.Uint64(place)
	}
	if end > 0 {
		// They are the last thing in a library.
		end += uint64(order.Uint16(sizes)) * uint64(max(1, order.Uint16(sizes[2:])))
		if end > math.MaxInt64 {
			return p, io.ErrUnexpectedEOF
		}
		if _, err := r.ReadAt(make([]byte, 1), int64(end-1)); err != nil {
			return p, err
		}
	}
	clear(place)
	clear(sizes)
	return p, nil
}

// ReadAt reads the begin of the file from memory.
func (p *programHeaders) ReadAt(b []byte, at int64) (int, error) {
	if at >= 0 && at+int64(len(b)) <= int64(len(p.begin)) {
		return copy(b, p.begin[at:]), nil
	}
	return p.ReaderAt.ReadAt(b, at)
}

// headerSize is that of the header of an ELF file of 64 bits. No library of 32 bits is shorter.
const headerSize = 64

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
	names, err := readStrings(f.Progs[at], text-f.Progs[at].Vaddr, size, append(needed, soname...))
	if err != nil {
		return err
	}
	if len(soname) > 0 {
		info.SONAME = names[len(needed)]
	}
	info.Needed = append(info.Needed, names[:len(needed)]...)
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

// maxPart limits the memory for a damaged library.
const maxPart = 16 << 20

// hasPart returns an error if a segment does not have a part.
func hasPart(p *elf.Prog, at, size uint64) error {
	if at > p.Filesz || size > p.Filesz-at || size > maxPart {
		return fmt.Errorf("%d bytes at %d of a segment of %d: outside or too large", size, at, p.Filesz)
	}
	return nil
}

// readPart reads part of a segment.
func readPart(p *elf.Prog, at, size uint64) ([]byte, error) {
	if err := hasPart(p, at, size); err != nil {
		return nil, err
	}
	data := make([]byte, size)
	if n, err := p.ReadAt(data, int64(at)); n < len(data) {
		return nil, err
	}
	return data, nil
}

// maxName is the length of the longest path of Linux (PATH_MAX).
const maxName = 4096

// readStrings returns the strings at some offsets of a table, each of which a zero byte ends.
// It reads what lies between them: those of functions are many more.
func readStrings(p *elf.Prog, at, size uint64, offsets []uint64) (list []string, err error) {
	if err := hasPart(p, at, size); err != nil {
		return nil, err
	}
	first, last := min(slices.Min(offsets), size), min(slices.Max(offsets), size)
	table, err := readPart(p, at+first, min(last+maxName, size)-first)
	if err != nil {
		return nil, err
	}
	for _, offset := range offsets {
		length := -1
		if offset < size {
			length = bytes.IndexByte(table[offset-first:], 0)
		}
		if length < 0 {
			return nil, fmt.Errorf("a name at %d of %d bytes of strings", offset, size)
		}
		list = append(list, string(table[offset-first:][:length]))
	}
	return list, nil
}
