package change_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/hosttest"
)

func TestMakingNodesWithoutRightsIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	null := devnode.Attr{Major: 1, Minor: 3, Mode: 0o640, UID: 7, GID: 44}
	hosttest.WithoutRights(t, func() {
		p := change.Plan{change.NodeChange(root, filepath.Join(dir, "dev/null"), &null, nil)}
		if files, err := p.Make(t.Context()); len(files) > 0 || !errors.Is(err, unix.EPERM) {
			t.Errorf("%q, %v; want %v", files, err, unix.EPERM)
		}
	})
	if names, err := os.ReadDir(filepath.Join(dir, "dev")); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}
