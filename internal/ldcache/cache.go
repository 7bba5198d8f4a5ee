package ldcache

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// Cache is an ld.so.cache, from [Read] or [Empty], that can be added to and written as
// ldconfig does.
type Cache struct {
	Layout Layout
	// Entries are in order of the loader's preference.
	Entries []Entry
	// HWCaps are the names of glibc-hwcaps subdirectories, by the number in the lower
	// half of [Entry.HWCap].
	HWCaps []string
	// Generator is ldconfig's name of itself, since glibc 2.33.
	Generator string

	// unused are strings without an entry that ldconfig writes too: names of
	// subdirectories without libraries.
	unused []string
	order  byteOrder
	// merged is set for a cache since glibc 2.33: a string that is the end of another one
	// shares its place, and hwcaps subdirectories are known by name.
	merged bool
}

// Empty returns a cache without libraries, as ldconfig writes it since glibc 2.33.
func Empty(generator string) *Cache {
	return &Cache{Layout: New, Generator: generator, order: binary.NativeEndian, merged: true}
}

// Layout of the formats in a file.
type Layout string

// The layouts. A cache that does not exist yet is [New].
const (
	// New is the new format alone, what ldconfig writes since glibc 2.32.
	New Layout = "new"
	// Compat is the old format with the new one behind it.
	Compat Layout = "compat"
	// Old is the old format alone.
	Old Layout = "old"
)

const (
	hwcapExtension = 1 << 62 // of Entry.HWCap: the lower half is an index of HWCaps

	extensionMagic   = 0xeaa42174
	extensionHeader  = 8  // uint32 magic, uint32 number of sections
	extensionSection = 16 // uint32 tag, uint32 flags, uint32 offset, uint32 size
	tagGenerator     = 0
	tagHWCaps        = 1

	// Limits far above real files. The names of entries can share bytes, so that a short
	// file could have huge ones.
	maxStrings  = 16 << 20
	maxSections = 16
	maxHWCaps   = 4096
)

// Read parses a cache to add to it. An error means that it is damaged.
func Read(data []byte) (*Cache, error) {
	list, err := Parse(data)
	if err != nil {
		return nil, err
	}
	total := 0
	for _, e := range list {
		total += len(e.Name) + len(e.Path)
	}
	if total > maxStrings {
		return nil, fmt.Errorf("ld.so.cache: the names of %d entries have %d bytes, more than %d", len(list), total, maxStrings)
	}
	layout, start, err := layoutOf(data)
	if err != nil {
		return nil, err
	}
	c := &Cache{Entries: list, Layout: layout}
	if layout == Old {
		// It has no mark for the way its strings are written.
		c.order, c.merged = binary.NativeEndian, true
		c.findUnused(data[start:])
		if !bytes.Equal(c.Encode(), data) {
			c.merged, c.unused = false, nil
		}
		return c, nil
	}
	header := data[start:]
	if c.order, err = orderOf(header); err != nil {
		return nil, err
	}
	offset := c.order.Uint32(header[32:])
	if c.merged = offset != 0; !c.merged {
		return c, nil
	}
	if err := c.readExtension(data, header, offset); err != nil {
		return nil, err
	}
	if from, length := newHeader+newEntry*len(c.Entries), c.order.Uint32(header[24:]); uint64(from)+uint64(length) <= uint64(len(header)) {
		c.findUnused(header[from:][:length])
	}
	return c, nil
}

// section returns a part of a cache.
func section(data []byte, offset, size uint32) ([]byte, error) {
	if uint64(offset)+uint64(size) > uint64(len(data)) {
		return nil, errors.New("ld.so.cache: an extension points outside the file")
	}
	return data[offset:][:size], nil
}

// readExtension reads the sections after the strings. Offsets of sections are from the
// start of the file, those of strings from the header of the new format.
func (c *Cache) readExtension(file, header []byte, offset uint32) error {
	head, err := section(file, offset, extensionHeader)
	if err != nil {
		return err
	}
	count := c.order.Uint32(head[4:])
	if c.order.Uint32(head) != extensionMagic || count > maxSections {
		return errors.New("ld.so.cache: unknown extension")
	}
	table, err := section(file, offset+extensionHeader, count*extensionSection)
	if err != nil {
		return err
	}
	text := string(header)
	for ; len(table) > 0; table = table[extensionSection:] {
		content, err := section(file, c.order.Uint32(table[8:]), c.order.Uint32(table[12:]))
		if err != nil {
			return err
		}
		switch c.order.Uint32(table) {
		case tagGenerator:
			c.Generator = string(content[:min(len(content), maxString)])
		case tagHWCaps:
			if len(content)/4 > maxHWCaps {
				return fmt.Errorf("ld.so.cache: %d kinds of processors", len(content)/4)
			}
			for ; len(content) >= 4; content = content[4:] {
				name, ok := stringAt(text, c.order.Uint32(content))
				if !ok {
					return errors.New("ld.so.cache: a name of a processor is outside the file")
				}
				c.HWCaps = append(c.HWCaps, name)
			}
		}
	}
	return nil
}

// findUnused finds strings in a table that nothing points to: names of subdirectories,
// which differ from names of libraries.
func (c *Cache) findUnused(table []byte) {
	for s := range strings.SplitSeq(strings.TrimSuffix(string(table), "\x00"), "\x00") {
		if strings.Contains(s, ".so") || s == "" || len(s) >= maxString || len(c.unused) == maxHWCaps || slices.Contains(c.HWCaps, s) ||
			slices.ContainsFunc(c.Entries, func(e Entry) bool { return e.Name == s || e.Path == s }) {
			continue
		}
		c.unused = append(c.unused, s)
	}
}

// strings returns the strings of the table: two for each entry, then others.
func (c *Cache) strings() []string {
	list := make([]string, 0, 2*len(c.Entries)+len(c.HWCaps)+len(c.unused))
	for _, e := range c.Entries {
		list = append(list, e.Name, e.Path)
	}
	return append(append(list, c.HWCaps...), c.unused...)
}

// Add inserts an entry where ldconfig does: after other entries with its name and flags,
// or before the first of them for which before returns true. If the entry exists already,
// Add returns false.
func (c *Cache) Add(e Entry, before func(Entry) bool) bool {
	i, _ := slices.BinarySearchFunc(c.Entries, e, c.compare)
	at := -1
	for ; i < len(c.Entries) && c.compare(c.Entries[i], e) == 0; i++ {
		if c.Entries[i] == e {
			return false
		}
		if at < 0 && before != nil && before(c.Entries[i]) {
			at = i
		}
	}
	if at < 0 {
		at = i
	}
	c.Entries = slices.Insert(c.Entries, at, e)
	return true
}

// compare orders entries as the loader's search expects them.
func (c *Cache) compare(a, b Entry) int {
	if order := compareNames(b.Name, a.Name); order != 0 {
		return order
	}
	if order := cmp.Compare(int32(b.Flags), int32(a.Flags)); order != 0 { //nolint:gosec // signed in the file
		return order
	}
	if !c.merged { // the most specific processor first
		return cmp.Or(cmp.Compare(bits.OnesCount64(b.HWCap), bits.OnesCount64(a.HWCap)), cmp.Compare(b.HWCap, a.HWCap))
	}
	special := func(e Entry) (string, bool) {
		n := uint32(e.HWCap) //nolint:gosec // the lower half
		if e.HWCap&hwcapExtension == 0 || uint64(n) >= uint64(len(c.HWCaps)) {
			return "", false
		}
		return c.HWCaps[n], true
	}
	x, xSpecial := special(a)
	y, ySpecial := special(b)
	switch {
	case xSpecial && !ySpecial:
		return -1
	case ySpecial && !xSpecial:
		return 1
	}
	return strings.Compare(x, y)
}

// compareNames compares names of libraries as glibc does: runs of digits by value, and a
// digit is greater than any other byte.
func compareNames(a, b string) int {
	digit := func(s string) bool { return s != "" && '0' <= s[0] && s[0] <= '9' }
	for a != "" {
		switch {
		case digit(a) && digit(b):
			var x, y int32 // overflow as in glibc
			for ; digit(a); a = a[1:] {
				x = x*10 + int32(a[0]-'0')
			}
			for ; digit(b); b = b[1:] {
				y = y*10 + int32(b[0]-'0')
			}
			if x != y {
				return cmp.Compare(x, y)
			}
		case digit(a):
			return 1
		case digit(b):
			return -1
		case b == "":
			return 1
		case a[0] != b[0]:
			return cmp.Compare(int8(a[0]), int8(b[0])) //nolint:gosec // char is signed in glibc
		default:
			a, b = a[1:], b[1:]
		}
	}
	if b != "" {
		return -1
	}
	return 0
}

// Encode returns the cache as ldconfig of the same version writes it.
func (c *Cache) Encode() []byte {
	order := c.order
	var table []byte
	var offsets []uint32
	if c.merged {
		table, offsets = mergeEnds(c.strings())
	}
	// If not merged, each entry has its own two strings.
	at := func(s string, number int) uint32 {
		if c.merged {
			return offsets[number]
		}
		n := uint32(len(table)) //nolint:gosec // bounded by what was read
		table = append(append(table, s...), 0)
		return n
	}
	var old []byte
	entries := make([]byte, 0, newEntry*len(c.Entries))
	base := uint32(0)
	if c.Layout != Old {
		base = uint32(newHeader + newEntry*len(c.Entries)) //nolint:gosec // as above
	}
	oldCount := 0
	for i, e := range c.Entries {
		name, path := base+at(e.Name, 2*i), base+at(e.Path, 2*i+1)
		if c.merged || e.HWCap == 0 {
			oldCount++
			old = append32(order, old, e.Flags, name, path)
		}
		entries = order.AppendUint64(append32(order, entries, e.Flags, name, path, 0), e.HWCap)
	}
	var file []byte
	if c.Layout != New {
		if c.Layout == Compat && oldCount%2 == 1 {
			oldCount++
			old = append(old, old[len(old)-oldEntry:]...)
		}
		file = append(append(file, oldMagic...), 0)
		file = append(append32(order, file, uint32(oldCount)), old...) //nolint:gosec // as above
	}
	if c.Layout == Old {
		return append(file, table...)
	}
	start := len(file)
	file = append(file, newMagic...)
	file = append32(order, file, uint32(len(c.Entries)), uint32(len(table))) //nolint:gosec // as above
	file = append(file, make([]byte, newHeader-28)...)
	file = append(append(file, entries...), table...)
	if !c.merged {
		return file
	}
	file[start+28] = endianLittle
	if order.Uint16([]byte{0, 1}) == 1 {
		file[start+28] = endianBig
	}
	for len(file)%4 != 0 {
		file = append(file, 0)
	}
	order.PutUint32(file[start+32:], uint32(len(file))) //nolint:gosec // as above
	for i := range offsets {
		offsets[i] += base
	}
	return c.appendExtension(file, offsets[2*len(c.Entries):])
}

// appendExtension appends the sections. The section of hwcaps, with names at offsets, is
// left out if it is empty.
func (c *Cache) appendExtension(file []byte, offsets []uint32) []byte {
	order := c.order
	sections := uint32(1)
	if len(c.HWCaps) > 0 {
		sections++
	}
	names := uint32(len(file)) + extensionHeader + sections*extensionSection //nolint:gosec // bounded by what was read
	size := uint32(4 * len(c.HWCaps))                                        //nolint:gosec // as above
	file = append32(order, file, extensionMagic, sections)
	file = append32(order, file, tagGenerator, 0, names+size, uint32(len(c.Generator))) //nolint:gosec // as above
	if size > 0 {
		file = append32(order, file, tagHWCaps, 0, names, size)
	}
	file = append32(order, file, offsets[:len(c.HWCaps)]...)
	return append(file, c.Generator...)
}

func append32(order byteOrder, b []byte, list ...uint32) []byte {
	for _, v := range list {
		b = order.AppendUint32(b, v)
	}
	return b
}

// mergeEnds returns a table of strings, each ended by a zero byte, and their offsets. A
// string that is the end of another one shares its place.
func mergeEnds(list []string) (table []byte, offsets []uint32) {
	sorted := make([]int, len(list))
	size := 0
	for i, s := range list {
		sorted[i] = i
		size += len(s) + 1
	}
	slices.SortFunc(sorted, func(a, b int) int { return compareEnds(list[a], list[b]) })
	table = make([]byte, 0, size)
	offsets = make([]uint32, len(list))
	last := 0
	for k, i := range sorted {
		if s := list[i]; k > 0 && strings.HasSuffix(list[last], s) {
			offsets[i] = offsets[last] + uint32(len(list[last])-len(s)) //nolint:gosec // bounded by what was read
		} else {
			offsets[i] = uint32(len(table)) //nolint:gosec // as above
			table = append(append(table, s...), 0)
		}
		last = i
	}
	return table, offsets
}

// compareEnds compares strings from their last byte: the greater byte first, and a string
// before its own end.
func compareEnds(a, b string) int {
	for i := 1; i <= min(len(a), len(b)); i++ {
		if x, y := a[len(a)-i], b[len(b)-i]; x != y {
			return cmp.Compare(y, x)
		}
	}
	return cmp.Compare(len(b), len(a))
}
