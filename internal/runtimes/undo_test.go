package runtimes_test

import (
	"errors"
	"maps"
	"path/filepath"
	"testing"

	"github.com/cdigen/cdigen/internal/runtimes"
)

// Every change of a configuration can be taken back, whatever files it made or replaced, and
// be made again by taking that back.
func TestUndoTakesTheLastChangeBack(t *testing.T) {
	for name, c := range configurations(t) {
		t.Run(name, func(t *testing.T) {
			for _, verb := range []string{"enable", "disable"} {
				s := c.system(t)
				before := withoutBackups(t, s.Root)
				p, err := plan(s, verb, c.request)
				if err != nil || len(p.Changes) == 0 {
					continue
				}
				removes := false
				for _, change := range p.Changes {
					removes = removes || change.New == nil
				}
				apply(t, p)
				p, err = s.Undo(c.request)
				if removes { // such a file has nothing in it that is worth a backup
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				apply(t, p)
				if now := withoutBackups(t, s.Root); !maps.Equal(now, before) {
					t.Errorf("%s and undone, there is %v\nwant %v", verb, now, before)
				}
			}
		})
	}
}

func TestNothingToUndo(t *testing.T) {
	s, _ := dockerWith(t, nil)
	if _, err := s.Undo(runtimes.Request{Engine: runtimes.Docker, Version: "28.3.0"}); !errors.Is(err, runtimes.ErrUnsupported) {
		t.Error(err)
	}
}

func apply(t *testing.T, p *runtimes.Plan) {
	t.Helper()
	if _, err := p.Apply(t.Context(), false); err != nil {
		t.Fatal(err)
	}
}

// withoutBackups returns the files below a directory. An empty one is for engines as if it
// were not there.
func withoutBackups(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := tree(t, dir)
	maps.DeleteFunc(files, func(name, text string) bool { return text == "" || filepath.Ext(name) == ".cdigen-backup" })
	return files
}
