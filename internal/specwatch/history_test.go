package specwatch

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/internal/specfile"
)

func TestHistoryKeepsTheLastPublications(t *testing.T) {
	h := History{filepath.Join(t.TempDir(), "nvidia.history.json")}
	if list, err := h.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%v, %v; want that it does not exist", list, err)
	}
	generation := func(i int, result string) Generation {
		return Generation{Trigger: "files", Result: result, Changes: []string{fmt.Sprint("change ", i)}, At: time.Unix(int64(i), 0).UTC(), Seconds: .1}
	}
	var want []Generation
	for i := range maxHistory + 20 {
		result := string(specfile.Published)
		switch i % 10 {
		case 3:
			result = string(specfile.Removed)
		case 4:
			result = Held
		case 5:
			result = string(specfile.Unchanged)
		}
		g := generation(i, result)
		// Each by a watcher of its own, as after restarts.
		if err := (History{h.Path}).Add(g); err != nil {
			t.Fatal(err)
		}
		if result == string(specfile.Published) || result == string(specfile.Removed) {
			want = append(want, g)
		}
	}
	for i := range maxHistory {
		g := generation(1000+i, string(specfile.Published))
		if err := h.Add(g); err != nil {
			t.Fatal(err)
		}
		want = append(want, g)
		if i == 10 || i == maxHistory-1 {
			got, err := h.Read()
			if diff := cmp.Diff(want[max(0, len(want)-maxHistory):], got); err != nil || diff != "" {
				t.Fatalf("%v\n%s", err, diff)
			}
		}
	}
	info, err := os.Stat(h.Path)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v; want that every user can read it", info.Mode(), err)
	}
	if names, err := os.ReadDir(filepath.Dir(h.Path)); err != nil || len(names) != 1 {
		t.Errorf("%v, %v; want the history alone", names, err)
	}
}

// A host that changes a lot at once does not make the file large, and the state that has
// the same generation stays as it is.
func TestHistoryIsBounded(t *testing.T) {
	h := History{filepath.Join(t.TempDir(), "h")}
	changes := slices.Repeat([]string{strings.Repeat("x", 100)}, 500)
	for range maxHistory {
		if err := h.Add(Generation{Result: string(specfile.Published), Changes: changes}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := h.Read()
	if err != nil || len(list[0].Changes) != maxChanges+1 || list[0].Changes[maxChanges] != "484 more" {
		t.Fatalf("%v, %v", list[0].Changes, err)
	}
	if info, err := os.Stat(h.Path); err != nil || info.Size() > maxHistorySize/4 {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	if len(changes[maxChanges]) != 100 {
		t.Errorf("the changes became %q", changes[:maxChanges+1])
	}
}

func TestDamagedHistoryIsBegunAgain(t *testing.T) {
	h := History{filepath.Join(t.TempDir(), "h")}
	for _, damaged := range [][]byte{nil, []byte("[{"), bytes.Repeat([]byte("x"), maxHistorySize+1)} {
		if err := os.WriteFile(h.Path, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		if list, err := h.Read(); err == nil || !strings.Contains(err.Error(), h.Path) {
			t.Errorf("%d bytes are %v, %v", len(damaged), list, err)
		}
		if err := h.Add(Generation{Result: string(specfile.Removed)}); err != nil {
			t.Fatal(err)
		}
		if list, err := h.Read(); err != nil || len(list) != 1 {
			t.Errorf("%v, %v; want one publication", list, err)
		}
	}
}
