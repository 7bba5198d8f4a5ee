package driverfiles

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/printable"
)

// CSVDir has the files in which the makers of a Tegra system list what containers get, in the
// directory and with the names of NVIDIA's container toolkit.
const CSVDir = "etc/nvidia-container-runtime/host-files-for-container.d"

// CSVFiles are the paths of the files below the driver root.
var CSVFiles = []string{CSVDir + "/devices.csv", CSVDir + "/drivers.csv", CSVDir + "/l4t.csv"}

// MaxCSV bounds the size of the files, maxCSVEntries their lines. Those of JetPack have some hundred lines, all together.
const (
	MaxCSV        = 1 << 20
	MaxCSVEntries = 10_000
)

// Entry is a line of such a file: "lib, /usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1.1".
type Entry struct {
	Line int // the first is 1
	// Type is "dev" for a device node, "lib" for a file, "sym" for a symbolic link and
	// "dir" for a directory.
	Type string
	// Path is absolute and clean; its components may be patterns.
	Path string
}

// LineError is a line that is of no use.
type LineError struct {
	Line int
	Err  error
}

// ParseCSV reads the lines of a file. Those that are not understood are returned too; the
// others are good. Empty lines and those that begin with # mean nothing.
func ParseCSV(data []byte) (entries []Entry, bad []LineError) {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		entry, err := parseCSVLine(text)
		if err == nil && len(entries) == MaxCSVEntries {
			err = fmt.Errorf("the file has more than %d entries", MaxCSVEntries)
		}
		if err != nil {
			bad = append(bad, LineError{number, err})
			continue
		}
		entry.Line = number
		entries = append(entries, entry)
	}
	return entries, bad
}

// errCSVLine does not repeat the line, which the file has.
var errCSVLine = errors.New("it is not dev, lib, sym or dir, a comma and an absolute path")

func parseCSVLine(text string) (Entry, error) {
	kind, name, _ := strings.Cut(text, ",")
	kind, name = strings.TrimSpace(kind), strings.TrimSpace(name)
	_, syntax := path.Match(name, "")
	if !slices.Contains([]string{"dev", "lib", "sym", "dir"}, kind) || !path.IsAbs(name) || len(name) > 4096 || syntax != nil ||
		slices.Contains(strings.Split(name, "/"), "..") || printable.Line(name) != name {
		return Entry{}, errCSVLine
	}
	return Entry{Type: kind, Path: path.Clean(name)}, nil
}
