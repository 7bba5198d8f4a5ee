package simhost

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// cacheEntry is a line of ld.so.cache.
type cacheEntry struct{ name, path string }

// ldCache writes an ld.so.cache as ldconfig does: the new format, and with
// compat the old one before it, as it was until glibc 2.32.
func ldCache(arch string, entries []cacheEntry, compat bool) []byte {
	flags := uint32(0x0303)
	if arch == "arm64" {
		flags = 0x0a03
	}
	// The loader searches by halves in falling order of names.
	slices.SortStableFunc(entries, func(a, b cacheEntry) int { return -compareNames(a.name, b.name) })
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	if compat {
		b.WriteString("ld.so-1.7.0\x00")
		put(uint32(len(entries)))
		for range entries {
			put([]uint32{flags, 0, 0}) // the strings come below
		}
		old := b.Len()
		b.Write(make([]byte, (old+7)&^7-old))
		// The strings of both stand behind the new table; the old one counts
		// from its own end, the new one from its own beginning.
		newer := newCache(flags, entries)
		shift := uint32(b.Len() - old + len(newer.table))
		raw := b.Bytes()
		at := 16
		pos := uint32(0)
		for _, e := range entries {
			binary.LittleEndian.PutUint32(raw[at+4:], shift+pos)
			pos += uint32(len(e.name)) + 1
			binary.LittleEndian.PutUint32(raw[at+8:], shift+pos)
			pos += uint32(len(e.path)) + 1
			at += 12
		}
		return append(append(raw, newer.table...), newer.text...)
	}
	c := newCache(flags, entries)
	return append(c.table, c.text...)
}

type cacheParts struct{ table, text []byte }

func newCache(flags uint32, entries []cacheEntry) cacheParts {
	const header, size = 48, 24
	var b, text bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	base := uint32(header + size*len(entries))
	at := func(s string) uint32 {
		pos := base + uint32(text.Len())
		text.WriteString(s)
		text.WriteByte(0)
		return pos
	}
	var table bytes.Buffer
	for _, e := range entries {
		_ = binary.Write(&table, binary.LittleEndian, []uint32{flags, at(e.name), at(e.path), 0, 0, 0})
	}
	b.WriteString("glibc-ld.so.cache1.1")
	put(uint32(len(entries)))
	put(uint32(text.Len()))
	b.Write([]byte{2, 0, 0, 0}) // little-endian
	put(make([]uint32, 4))
	b.Write(table.Bytes())
	return cacheParts{b.Bytes(), text.Bytes()}
}

// compareNames is the order of the cache: as strings, but digits as numbers.
func compareNames(a, b string) int {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	for a != "" && b != "" {
		if digit(a[0]) && digit(b[0]) {
			var x, y int
			for ; a != "" && digit(a[0]); a = a[1:] {
				x = x*10 + int(a[0]-'0')
			}
			for ; b != "" && digit(b[0]); b = b[1:] {
				y = y*10 + int(b[0]-'0')
			}
			if x != y {
				return cmp.Compare(x, y)
			}
			continue
		}
		// A digit comes after everything else.
		if digit(a[0]) != digit(b[0]) {
			if digit(a[0]) {
				return 1
			}
			return -1
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}
