package discover

import (
	"os"
	"os/exec"
	"path/filepath"
)

// FindProbe is the path of cdigen-nvml as it is installed: in the directory of
// the running program, in libexec/cdigen beside that directory, or in PATH. It is
// empty when there is none.
func FindProbe() string {
	const name = "cdigen-nvml"
	if self, err := os.Executable(); err == nil {
		dir := filepath.Dir(self)
		for _, path := range []string{filepath.Join(dir, name), filepath.Join(dir, "../libexec/cdigen", name)} {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path
			}
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}
