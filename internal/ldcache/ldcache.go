// Package ldcache reads and writes ld.so.cache, the dynamic loader's index of libraries.
//
// The formats are those of glibc's sysdeps/generic/dl-cache.h: the old one, the old one
// followed by the new one (written by ldconfig until glibc 2.32), and the new one.
package ldcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Entry is a library of the cache.
type Entry struct {
	// Name is the name that programs load, usually a SONAME.
	Name string
	// Path is the absolute path of the file or link.
	Path string
	// Flags have the type and the architecture; see [Entry.Is].
	Flags uint32
	// HWCap is not zero for a library for some processors only.
	HWCap uint64
}

// flags are by Go's names of architectures: the ELF type "libc6" (3) in the lowest byte
// and the architecture in the next (FLAG_* in dl-cache.h), which is 0 for the first
// architecture of a shared cache.
var flags = map[string]uint32{
	"386":     0x0003,
	"arm64":   0x0a03,
	"amd64":   0x0303,
	"arm":     0x0903, // hard float
	"ppc64le": 0x0503,
	"riscv64": 0x1003, // double float
}

// Is reports whether the library is for an architecture, given by its Go name.
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

	// The flags of the header have the byte order, since glibc 2.33.
	endianMask, endianUnset, endianLittle, endianBig = 3, 0, 2, 3
)

// Parse returns the entries of a cache in order of the loader's preference. Their strings
// share one copy of the data, so the memory is limited by the data's length.
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

// layoutOf returns the formats in a file and the offset of the new one, or of the strings
// if there is no new one.
func layoutOf(data []byte) (layout Layout, start int, err error) {
	switch {
	case bytes.HasPrefix(data, []byte(newMagic)):
		return New, 0, nil
	case !bytes.HasPrefix(data, []byte(oldMagic)):
		return "", 0, errors.New("not an ld.so.cache: unknown magic")
	case len(data) < oldHeader:
		return "", 0, errCutOff
	}
	count := binary.NativeEndian.Uint32(data[12:])
	if uint64(count) > uint64(len(data)-oldHeader)/oldEntry {
		return "", 0, tooMany(count)
	}
	end := oldHeader + int(count)*oldEntry
	// The new format, if present, is at the next multiple of 8.
	if at := (end + 7) &^ 7; at < len(data) && bytes.HasPrefix(data[at:], []byte(newMagic)) {
		return Compat, at, nil
	}
	return Old, end, nil
}

var errCutOff = errors.New("ld.so.cache: header cut off")

// byteOrder is the byte order of a cache.
type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// orderOf returns the byte order of the new format from its header.
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
	return fmt.Errorf("ld.so.cache: cut off: too short for %d entries", count)
}

// entries reads a table of entries with strings in base.
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

// maxString is the longest path of Linux. It limits the search in a damaged cache.
const maxString = 4096

// stringAt returns the string at an offset, which a zero byte ends.
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

// FlagsOf returns the flags of entries for an architecture, given by its Go name; ok is
// false for an unknown one.
func FlagsOf(arch string) (f uint32, ok bool) {
	f, ok = flags[arch]
	return f, ok
}
