package inject

import (
	"crypto/rand"
	"os"
	"path/filepath"

	"github.com/cdigen/cdigen/internal/newfile"
)

// Replace writes a file anew, in one step: a reader sees the old one or the new one,
// whole. Mode, owner and extended attributes stay; a symbolic link is followed.
func Replace(path string, data []byte) (err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()[:8])
	defer func() {
		if err != nil {
			_ = os.Remove(fresh)
		}
	}()
	if err := newfile.Write(fresh, data, path); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return newfile.SyncDir(filepath.Dir(path))
}
