// Package elfstub makes shared libraries that have names and nothing else. They stand
// in for a driver's, which are not free software, where only the names matter: on
// simulated hosts and on recorded ones.
package elfstub

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// SharedObject makes a shared library without code that the dynamic loader accepts:
// one segment, readable and writable since older loaders write into the dynamic
// section, a word that no executable stack is needed, which loaders since glibc 2.41
// refuse, and the section headers that debug/elf and readelf go by.
func SharedObject(arch, soname string, needed ...string) []byte {
	if arch == "386" {
		return sharedObjectX86(soname, needed...)
	}
	const (
		ehdr, phdr, shdr, sym, dyn = 64, 56, 64, 24, 16
		phnum, shnum               = 3, 5
	)
	align := uint64(0x1000)
	machine := elf.EM_X86_64
	if arch == "arm64" {
		machine, align = elf.EM_AARCH64, 0x10000
	}
	text := newStrings()
	var dynamic []elf.Dyn64
	add := func(tag elf.DynTag, value uint64) { dynamic = append(dynamic, elf.Dyn64{Tag: int64(tag), Val: value}) }
	for _, name := range needed {
		add(elf.DT_NEEDED, text.add(name))
	}
	if soname != "" {
		add(elf.DT_SONAME, text.add(soname))
	}
	count := uint64(len(dynamic) + 5) // and four tags for the tables, and the end
	dynAt := uint64(ehdr + phnum*phdr)
	symAt := dynAt + count*dyn
	strAt := symAt + sym
	add(elf.DT_SYMTAB, symAt)
	add(elf.DT_SYMENT, sym)
	add(elf.DT_STRTAB, strAt)
	add(elf.DT_STRSZ, uint64(text.Len()))
	add(elf.DT_NULL, 0)
	sections := newStrings()
	names := []uint64{0, sections.add(".dynamic"), sections.add(".dynsym"), sections.add(".dynstr"), sections.add(".shstrtab")}
	shstrAt := strAt + uint64(text.Len())
	shAt := (shstrAt + uint64(sections.Len()) + 7) &^ 7
	end := shAt + shnum*shdr

	header := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Phoff: ehdr, Shoff: shAt,
		Ehsize: ehdr, Phentsize: phdr, Phnum: phnum, Shentsize: shdr, Shnum: shnum, Shstrndx: shnum - 1,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	put(header)
	put(elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W), Filesz: end, Memsz: end, Align: align})
	put(elf.Prog64{Type: uint32(elf.PT_DYNAMIC), Flags: uint32(elf.PF_R | elf.PF_W), Off: dynAt, Vaddr: dynAt, Paddr: dynAt, Filesz: count * dyn, Memsz: count * dyn, Align: 8})
	put(elf.Prog64{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W), Align: 16})
	put(dynamic)
	put(elf.Sym64{})
	b.Write(text.Bytes())
	b.Write(sections.Bytes())
	b.Write(make([]byte, shAt-uint64(b.Len())))
	alloc := uint64(elf.SHF_ALLOC)
	put(elf.Section64{})
	put(elf.Section64{Name: uint32(names[1]), Type: uint32(elf.SHT_DYNAMIC), Flags: alloc | uint64(elf.SHF_WRITE), Addr: dynAt, Off: dynAt, Size: count * dyn, Link: 3, Addralign: 8, Entsize: dyn})
	put(elf.Section64{Name: uint32(names[2]), Type: uint32(elf.SHT_DYNSYM), Flags: alloc, Addr: symAt, Off: symAt, Size: sym, Link: 3, Info: 1, Addralign: 8, Entsize: sym})
	put(elf.Section64{Name: uint32(names[3]), Type: uint32(elf.SHT_STRTAB), Flags: alloc, Addr: strAt, Off: strAt, Size: uint64(text.Len()), Addralign: 1})
	put(elf.Section64{Name: uint32(names[4]), Type: uint32(elf.SHT_STRTAB), Off: shstrAt, Size: uint64(sections.Len()), Addralign: 1})
	return b.Bytes()
}

// sharedObjectX86 is SharedObject for 32-bit x86.
func sharedObjectX86(soname string, needed ...string) []byte {
	const (
		ehdr, phdr, shdr, sym, dyn = 52, 32, 40, 16, 8
		phnum, shnum               = 3, 5
	)
	text := newStrings()
	var dynamic []elf.Dyn32
	add := func(tag elf.DynTag, value uint64) {
		dynamic = append(dynamic, elf.Dyn32{Tag: int32(tag), Val: uint32(value)})
	}
	for _, name := range needed {
		add(elf.DT_NEEDED, text.add(name))
	}
	if soname != "" {
		add(elf.DT_SONAME, text.add(soname))
	}
	count := uint32(len(dynamic) + 5)
	dynAt := uint32(ehdr + phnum*phdr)
	symAt := dynAt + count*dyn
	strAt := symAt + sym
	add(elf.DT_SYMTAB, uint64(symAt))
	add(elf.DT_SYMENT, sym)
	add(elf.DT_STRTAB, uint64(strAt))
	add(elf.DT_STRSZ, uint64(text.Len()))
	add(elf.DT_NULL, 0)
	sections := newStrings()
	names := []uint64{0, sections.add(".dynamic"), sections.add(".dynsym"), sections.add(".dynstr"), sections.add(".shstrtab")}
	shstrAt := strAt + uint32(text.Len())
	shAt := (shstrAt + uint32(sections.Len()) + 3) &^ 3
	end := shAt + shnum*shdr

	header := elf.Header32{
		Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_386), Version: uint32(elf.EV_CURRENT), Phoff: ehdr, Shoff: shAt,
		Ehsize: ehdr, Phentsize: phdr, Phnum: phnum, Shentsize: shdr, Shnum: shnum, Shstrndx: shnum - 1,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS32), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	put(header)
	put(elf.Prog32{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W), Filesz: end, Memsz: end, Align: 0x1000})
	put(elf.Prog32{Type: uint32(elf.PT_DYNAMIC), Flags: uint32(elf.PF_R | elf.PF_W), Off: dynAt, Vaddr: dynAt, Paddr: dynAt, Filesz: count * dyn, Memsz: count * dyn, Align: 4})
	put(elf.Prog32{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W), Align: 16})
	put(dynamic)
	put(elf.Sym32{})
	b.Write(text.Bytes())
	b.Write(sections.Bytes())
	b.Write(make([]byte, int(shAt)-b.Len()))
	alloc := uint32(elf.SHF_ALLOC)
	put(elf.Section32{})
	put(elf.Section32{Name: uint32(names[1]), Type: uint32(elf.SHT_DYNAMIC), Flags: alloc | uint32(elf.SHF_WRITE), Addr: dynAt, Off: dynAt, Size: count * dyn, Link: 3, Addralign: 4, Entsize: dyn})
	put(elf.Section32{Name: uint32(names[2]), Type: uint32(elf.SHT_DYNSYM), Flags: alloc, Addr: symAt, Off: symAt, Size: sym, Link: 3, Info: 1, Addralign: 4, Entsize: sym})
	put(elf.Section32{Name: uint32(names[3]), Type: uint32(elf.SHT_STRTAB), Flags: alloc, Addr: strAt, Off: strAt, Size: uint32(text.Len()), Addralign: 1})
	put(elf.Section32{Name: uint32(names[4]), Type: uint32(elf.SHT_STRTAB), Off: shstrAt, Size: uint32(sections.Len()), Addralign: 1})
	return b.Bytes()
}

// stringTable is a table of zero-terminated strings, the first of them empty.
type stringTable struct{ bytes.Buffer }

func newStrings() *stringTable {
	t := &stringTable{}
	t.WriteByte(0)
	return t
}

func (t *stringTable) add(s string) uint64 {
	at := t.Len()
	t.WriteString(s)
	t.WriteByte(0)
	return uint64(at)
}
