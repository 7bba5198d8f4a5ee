// Package ldcache reads and writes ld.so.cache, the dynamic loader's index of libraries.
//
// The formats are those of glibc's sysdeps/generic/dl-cache.h: the old one, the
// old one with the new one behind it (what ldconfig wrote until glibc 2.32), and
// the new one.
package ldcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Entry is one library as the loader knows it.
type Entry struct {
	// Name is what programs ask for, usually a SONAME.
	Name string
	// Path of the file or link, absolute.
	Path string
	// Flags tell the type and the architecture; see [Entry.Is].
	Flags uint32
	// HWCap is not zero for a library that only some processors can use.
	HWCap uint64
}

// flags by Go's names of architectures: the ELF type "libc6" (3) in the lowest
// byte and the architecture in the next (FLAG_* in dl-cache.h). Those of 0 in the
// second byte are what an architecture had before others shared its cache.
var flags = map[string]uint32{
	"386":     0x0003,
	"arm64":   0x0a03,
	"amd64":   0x0303,
	"arm":     0x0903, // hard float
	"ppc64le": 0x0503,
	"riscv64": 0x1003, // double float
}

// Is says whether the library is for an architecture, given by Go's name.
func (e Entry) Is(arch string) bool {
	want, ok := flags[arch]
	return ok && e.Flags == want
}

const (
	oldMagic  = "ld.so-1.7.0"
	oldHeader = 16 // magic, padding, uint32 number of entries
	oldEntry  = 12 // int32 flags, uint32 name, uint32 path

	newMagic  = "glibc-ld.so.cache1.1"
	newHeader = 48 // magic, uint32 number of entries, uint32 length of strings, uint8 flags, padding, uint32 extension offset, padding
	newEntry  = 24 // int32 flags, uint32 name, uint32 path, uint32 OS version, uint64 hwcap

	// The flags of the header say in which byte order it was written; a cache of
	// before glibc 2.33 does not say.
	endianMask, endianUnset, endianLittle, endianBig = 3, 0, 2, 3
)

// Parse reads a cache. The entries come in the cache's order, in which the loader
// prefers them. The strings of the entries share one copy of the data, so that
// memory is bounded by the data's length.
func Parse(data []byte) ([]Entry, error) {
	layout, start, err := layoutOf(data)
	if err != nil {
		return nil, err
	}
	if layout == Old {
		order := binary.NativeEndian
		return entries(data[start:], data[oldHeader:], order, oldEntry, order.Uint32(data[12:]))
	}
	order, err := orderOf(data[start:])
	if err != nil {
		return nil, err
	}
	return entries(data[start:], data[start+newHeader:], order, newEntry, order.Uint32(data[start+20:]))
}

// layoutOf says which formats are in a file, and where the new one starts, or in
// one without it the strings.
func layoutOf(data []byte) (layout Layout, start int, err error) {
	switch {
	case bytes.HasPrefix(data, []byte(newMagic)):
		return New, 0, nil
	case !bytes.HasPrefix(data, []byte(oldMagic)):
		return 0, 0, errors.New("not an ld.so.cache: unknown magic")
	case len(data) < oldHeader:
		return 0, 0, errCutOff
	}
	count := binary.NativeEndian.Uint32(data[12:])
	if uint64(count) > uint64(len(data)-oldHeader)/oldEntry {
		return 0, 0, tooMany(count)
	}
	end := oldHeader + int(count)*oldEntry
	// The new format stands at the next multiple of 8, where there is one.
	if at := (end + 7) &^ 7; at < len(data) && bytes.HasPrefix(data[at:], []byte(newMagic)) {
		return Compat, at, nil
	}
	return Old, end, nil
}

var errCutOff = errors.New("ld.so.cache: header cut off")

// byteOrder of a cache, to read and to write it.
type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// orderOf is the byte order of the new format, by its header.
func orderOf(header []byte) (byteOrder, error) {
	if len(header) < newHeader {
		return nil, errCutOff
	}
	switch header[28] & endianMask {
	case endianUnset:
		return binary.NativeEndian, nil
	case endianLittle:
		return binary.LittleEndian, nil
	case endianBig:
		return binary.BigEndian, nil
	}
	return nil, errors.New("ld.so.cache: marked as invalid")
}

func tooMany(count uint32) error {
	return fmt.Errorf("ld.so.cache: cut off: it is too short for its %d entries", count)
}

// entries reads a table of entries whose strings stand in base.
func entries(base, table []byte, order binary.ByteOrder, size int, count uint32) ([]Entry, error) {
	if uint64(count) > uint64(len(table)/size) {
		return nil, tooMany(count)
	}
	text := string(base)
	list := make([]Entry, 0, count)
	for i := range int(count) {
		raw := table[i*size:]
		e := Entry{Flags: order.Uint32(raw)}
		var ok1, ok2 bool
		e.Name, ok1 = stringAt(text, order.Uint32(raw[4:]))
		e.Path, ok2 = stringAt(text, order.Uint32(raw[8:]))
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("ld.so.cache: entry %d points outside the file", i)
		}
		if size == newEntry {
			e.HWCap = order.Uint64(raw[16:])
		}
		list = append(list, e)
	}
	return list, nil
}

// maxString is the longest path of Linux. The limit keeps a damaged cache from
// being searched to its end for every entry.
const maxString = 4096

// stringAt is the string that a zero byte ends.
func stringAt(text string, at uint32) (string, bool) {
	if uint64(at) >= uint64(len(text)) {
		return "", false
	}
	text = text[at:]
	end := strings.IndexByte(text[:min(len(text), maxString)], 0)
	if end < 0 {
		return "", false
	}
	return text[:end], true
}

// FlagsOf are the flags of entries for an architecture, given by Go's name; ok is
// false for one that no driver is made for.
func FlagsOf(arch string) (f uint32, ok bool) {
	f, ok = flags[arch]
	return f, ok
}
