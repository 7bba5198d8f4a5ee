// Package mountinfo reads the mounts of a mount namespace (proc_pid_mountinfo(5)).
package mountinfo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Mount is a line of /proc/PID/mountinfo.
type Mount struct {
	ID, Parent int
	Device     string // "0:25"
	Root       string // path in the file system; that of a file which is gone ends in "//deleted"
	Point      string
	Shared     bool // it propagates to its peers
	FSType     string
	// Super are the options of the file system, for cgroups of version 1 the controllers.
	Super string
}

// MaxSize is a size limit in bytes: some 100,000 mounts.
const MaxSize = 16 << 20

// Read reads a file such as /proc/self/mountinfo.
func Read(path string) ([]Mount, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize))
	if err != nil {
		return nil, err
	}
	return Parse(data)
}

// Parse reads all lines. Spaces in paths stay as the kernel writes them ("\040").
func Parse(data []byte) (list []Mount, err error) {
	for line := range bytes.Lines(data) {
		m, err := parse(string(line))
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// Lines returns the lines of such a file whose mount points matter. On hosts whose mounts change
// often that takes a fraction of what [Read] does.
func Lines(path string, matters func(point string) bool) (lines []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<20) // options of an overlay can be long
	for scanner.Scan() {
		if matters(Point(scanner.Text())) {
			lines = append(lines, scanner.Text())
		}
	}
	return lines, scanner.Err()
}

// Point returns the mount point of a line, with spaces as they are in its path.
func Point(line string) string {
	for range 4 {
		_, line, _ = strings.Cut(line, " ")
	}
	point, _, _ := strings.Cut(line, " ")
	if strings.Contains(point, `\`) {
		point = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(point)
	}
	return point
}

func parse(line string) (m Mount, err error) {
	fields := strings.Fields(line)
	end := slices.Index(fields, "-")
	if end < 6 || len(fields) < end+2 {
		return m, fmt.Errorf("invalid line in mountinfo: %q", line)
	}
	id, err1 := strconv.Atoi(fields[0])
	parent, err2 := strconv.Atoi(fields[1])
	if err := errors.Join(err1, err2); err != nil {
		return m, fmt.Errorf("invalid line in mountinfo: %q", line)
	}
	m = Mount{ID: id, Parent: parent, Device: fields[2], Root: fields[3], Point: fields[4], FSType: fields[end+1]}
	m.Shared = slices.ContainsFunc(fields[6:end], func(option string) bool { return strings.HasPrefix(option, "shared:") })
	if len(fields) > end+3 {
		m.Super = fields[end+3]
	}
	return m, nil
}
