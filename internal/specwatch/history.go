package specwatch

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/specfile"
)

const (
	// maxHistory is how many publications are kept.
	maxHistory = 100
	// maxChanges of a publication are kept; a number stands for the others.
	maxChanges = 16
	// maxHistorySize bounds the file, in bytes.
	maxHistorySize = 4 << 20
)

// History is a file with the last publications and withdrawals of a spec, for users to
// read. It outlives the watcher.
type History struct {
	// Path is in a directory that only the user of the watcher can write to.
	Path string
}

// Add adds a generation if it changed the published spec.
func (h History) Add(g Generation) error {
	if g.Result != string(specfile.Published) && g.Result != string(specfile.Removed) {
		return nil
	}
	if more := len(g.Changes) - maxChanges; more > 0 {
		g.Changes = append(g.Changes[:maxChanges:maxChanges], strconv.Itoa(more)+" more")
	}
	list, _ := h.Read() // a file that cannot be read is begun again
	list = append(list, g)
	data, err := json.Marshal(list[max(0, len(list)-maxHistory):])
	if err != nil {
		return err
	}
	dir, err := change.OpenDir(filepath.Dir(h.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	file, err := dir.Replace(filepath.Base(h.Path), append(data, '\n'), change.Options{Mode: 0o644, Fresh: true})
	if err != nil {
		return err
	}
	return file.Commit("")
}

// Read returns the publications, the last one at the end.
func (h History) Read() (list []Generation, err error) {
	data, err := regular.ReadFile(h.Path, maxHistorySize)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("read %s: %w", h.Path, err)
	}
	return list, nil
}
