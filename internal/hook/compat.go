package hook

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Compat describes the host's driver, for the choice between its CUDA libraries and the
// image's own ("forward compatibility").
type Compat struct {
	// Driver is the version of the host's driver, "550.163.01".
	Driver string
	// CUDA is the newest CUDA version of the host's driver, "12.4". It is used only if
	// Driver is unknown.
	CUDA string
	// Dir is the absolute path in the container; empty: [CompatDir].
	Dir string
}

// CompatDir is the directory of the libraries in images made from nvidia/cuda.
const CompatDir = "/usr/local/cuda/compat"

// Limits of what is looked at in an image.
const (
	maxNames = 1 << 16
	maxNote  = 64 << 10
)

// findCompat returns the directory of the image's CUDA libraries if they are to be used
// with the host's driver, else an empty string.
func (c *container) findCompat(host *Compat) (string, error) {
	name := path.Clean(cmp.Or(host.Dir, CompatDir))
	if !path.IsAbs(name) {
		return "", fmt.Errorf("directory of the image's CUDA libraries %q: want an absolute path", name)
	}
	fd, names, err := c.list(name, func(s string) bool {
		version, ok := strings.CutPrefix(s, "libcuda.so.")
		return ok && strings.Contains(version, ".") // the file, not the link by its SONAME
	})
	if isMissing(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	if len(names) == 0 {
		return "", nil
	}
	if len(names) > 1 {
		return "", fmt.Errorf("%s has %d versions of libcuda.so, want one: %s", name, len(names), strings.Join(names[:2], ", "))
	}
	library := path.Join(name, names[0])
	f, err := c.openAt(fd, names[0], library)
	if err != nil {
		return "", err
	}
	defer f.Close()
	note, err := readCompatNote(headers(f))
	if err != nil {
		return "", fmt.Errorf("%s: %w", library, err)
	}
	if !host.choosesImage(strings.TrimPrefix(names[0], "libcuda.so."), note) {
		return "", nil
	}
	return name, nil
}

// openAt opens a regular file of a directory, but not a link.
func (r *Root) openAt(dir int, base, name string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(dir, base, &how)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	return r.reopen(fd, name)
}

// choosesImage reports whether the image's CUDA libraries, which have a driver's version,
// are to be used: they must be newer than the host's driver and made for it. A note in the
// library lists the drivers; without one, libraries of a later major version are used.
func (host *Compat) choosesImage(image string, note *compatNote) bool {
	imageVersion, hostVersion := parseVersion(image), parseVersion(host.Driver)
	known := imageVersion != nil && hostVersion != nil
	switch {
	case note != nil && known:
		return slices.Contains(note.Drivers, hostVersion[0]) && slices.Compare(imageVersion, hostVersion) > 0
	case note != nil:
		imageCUDA, hostCUDA := parseVersion(note.CUDA), parseVersion(host.CUDA)
		return imageCUDA != nil && hostCUDA != nil && slices.Compare(imageCUDA, hostCUDA) > 0
	}
	return known && imageVersion[0] > hostVersion[0]
}

// parseVersion parses numbers between dots; nil: invalid.
func parseVersion(s string) []int {
	var list []int
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return nil
		}
		list = append(list, int(n))
	}
	// "12.4" and "12.4.0" are the same.
	for len(list) > 1 && list[len(list)-1] == 0 {
		list = list[:len(list)-1]
	}
	return list
}

// compatNote is a note in a libcuda.so for forward compatibility.
type compatNote struct {
	CUDA string `json:"CUDA Version"`
	// Drivers are the major versions of compatible drivers.
	Drivers []int `json:"Driver"`
}

// The note is JSON in an ELF note of this owner, in a section of this name.
const (
	compatSection = ".note.cuda.fwd_compatibility"
	compatOwner   = "NVIDIA Corporation"
)

// readCompatNote returns the note; nil: there is none.
func readCompatNote(r io.ReaderAt) (note *compatNote, err error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("read the ELF headers: %w", err)
	}
	s := f.Section(compatSection)
	if s == nil || s.Type != elf.SHT_NOTE {
		return nil, nil //nolint:nilnil // not an error
	}
	if s.Flags&elf.SHF_COMPRESSED != 0 || s.FileSize > maxNote {
		return nil, fmt.Errorf("the note %s has %d bytes, more than %d", compatSection, s.FileSize, maxNote)
	}
	data := make([]byte, s.FileSize)
	if _, err := s.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the note %s: %w", compatSection, err)
	}
	align := uint64(4)
	if s.Addralign == 8 {
		align = 8
	}
	owner, text, ok := splitNote(data, f.ByteOrder.Uint32, align)
	if !ok || owner != compatOwner {
		return nil, nil //nolint:nilnil // a note of another owner
	}
	note = &compatNote{}
	if err := json.Unmarshal(text, note); err != nil {
		return nil, fmt.Errorf("read the note %s: %w", compatSection, err)
	}
	return note, nil
}

// splitNote splits the first note of a section (elf(5), "Notes").
func splitNote(data []byte, number func([]byte) uint32, align uint64) (owner string, text []byte, ok bool) {
	const header = 12 // length of the owner's name, of the text, and the type
	if len(data) < header {
		return "", nil, false
	}
	nameSize, textSize := uint64(number(data)), uint64(number(data[4:]))
	from := header + (nameSize+align-1)&^(align-1)
	if from > uint64(len(data)) || textSize > uint64(len(data))-from {
		return "", nil, false
	}
	owner = string(bytes.TrimRight(data[header:][:nameSize], "\x00"))
	return owner, bytes.Trim(data[from:][:textSize], "\x00"), true
}
