package hook

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// testLibrary is a shared library for x86-64 that consists of its SONAME, and a note
// if there is one.
func testLibrary(soname string, note []byte) string {
	const (
		headers = 64 + 2*56 // ELF header and two program headers
		dynamic = headers
	)
	names := "\x00" + soname + "\x00"
	namesAt := uint64(dynamic + 4*16)
	noteAt := (namesAt + uint64(len(names)) + 7) &^ 7
	sections := "\x00" + compatSection + "\x00.shstrtab\x00"
	sectionsAt := noteAt + uint64(len(note))
	tableAt := (sectionsAt + uint64(len(sections)) + 7) &^ 7
	var b bytes.Buffer
	put := func(at uint64, v any) {
		b.Write(make([]byte, at-uint64(b.Len())))
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2,
	}
	if note != nil {
		h.Shoff, h.Shentsize, h.Shnum, h.Shstrndx = tableAt, 64, 3, 2
	}
	put(0, h)
	put(64, []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Flags: 5, Filesz: tableAt, Memsz: tableAt, Align: 4096},
		{Type: uint32(elf.PT_DYNAMIC), Off: dynamic, Vaddr: dynamic, Filesz: 4 * 16, Memsz: 4 * 16, Align: 8},
	})
	put(dynamic, []elf.Dyn64{
		{Tag: int64(elf.DT_STRTAB), Val: namesAt}, {Tag: int64(elf.DT_STRSZ), Val: uint64(len(names))},
		{Tag: int64(elf.DT_SONAME), Val: 1}, {Tag: int64(elf.DT_NULL)},
	})
	put(namesAt, []byte(names))
	put(noteAt, note)
	put(sectionsAt, []byte(sections))
	if note != nil {
		put(tableAt, []elf.Section64{
			{},
			{Name: 1, Type: uint32(elf.SHT_NOTE), Off: noteAt, Size: uint64(len(note)), Addralign: 4},
			{Name: uint32(2 + len(compatSection)), Type: uint32(elf.SHT_STRTAB), Off: sectionsAt, Size: uint64(len(sections)), Addralign: 1},
		})
	}
	return b.String()
}

// testNote is a note as readCompatNote expects it.
func testNote(owner, text string) []byte {
	pad := func(s string) []byte { return append([]byte(s), make([]byte, (4-len(s)%4)%4)...) }
	owner += "\x00"
	var b []byte
	for _, n := range []int{len(owner), len(text), 1} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	return append(append(b, pad(owner)...), pad(text)...)
}
