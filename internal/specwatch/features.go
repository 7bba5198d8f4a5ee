package specwatch

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/lazyregexp"
)

// featuresValid is how long what is in the file holds: a watcher that was killed leaves no label
// for longer. It is written again in half of that time.
const featuresValid = 2 * time.Hour

// Features is a file of features of the node for Node Feature Discovery, whose worker makes
// labels of them: the state of the spec, the driver's version and the number of MIG
// devices by profile.
type Features struct {
	// Path is a file of its own in a directory that exists.
	Path string

	mu      sync.Mutex // from the look at the state until it is in the file
	written []byte
	until   time.Time
}

// notInLabel is what the names and values of labels cannot have.
var notInLabel = lazyregexp.New(`[^-A-Za-z0-9_.]+`)

// label makes a name or a value of a label. A plus sign, as in the MIG profile 1g.10gb+me, becomes
// a dot, as in NVIDIA's labels.
func label(text string) string {
	text = notInLabel().ReplaceAllString(text, ".")
	return strings.Trim(text[:min(len(text), 50)], "-_.")
}

// features returns those of a state, a line each; nil before the first generation.
func features(s *State) []byte {
	var b bytes.Buffer
	switch s.Condition {
	case Starting:
		return nil
	case Current:
		b.WriteString("cdigen.spec=current\n")
	case NoDevices:
		b.WriteString("cdigen.spec=none\n")
	default:
		b.WriteString("cdigen.spec=stale\n")
	}
	if version := label(s.Driver); version != "" {
		fmt.Fprintf(&b, "cdigen.driver-version=%s\n", version)
	}
	count := map[string]int{}
	for i := range s.gpus {
		for _, d := range s.gpus[i].MIGDevices {
			count[cmp.Or(label(d.Profile), "unknown")]++
		}
	}
	for _, profile := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(&b, "cdigen.mig-%s=%d\n", profile, count[profile])
	}
	return b.Bytes()
}

// Write writes what the state of this moment has, unless that is in the file and holds for long
// enough.
func (f *Features) Write(state func() State, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := state()
	text := features(&s)
	if text == nil || bytes.Equal(text, f.written) && f.until.Sub(now) > featuresValid/2 {
		return nil
	}
	dir, err := change.OpenDir(filepath.Dir(f.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	until := now.Add(featuresValid)
	header := fmt.Sprintf("# Written by cdigen watch.\n# +expiry-time=%s\n", until.UTC().Format(time.RFC3339))
	file, err := dir.Replace(filepath.Base(f.Path), append([]byte(header), text...), change.Options{Mode: 0o644, Fresh: true})
	if err == nil {
		err = file.Commit("")
	}
	if err == nil {
		f.written, f.until = text, until
	}
	return err
}

// FeaturesEvery is how often Write has to be called at least.
const FeaturesEvery = featuresValid / 4

// Remove removes the file if Write has written it.
func (f *Features) Remove() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.written == nil {
		return nil
	}
	f.written = nil
	dir, err := change.OpenDir(filepath.Dir(f.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	file, err := dir.Remove(filepath.Base(f.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return file.Commit("")
}
