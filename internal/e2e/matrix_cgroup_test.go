package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Names of cgroups that engines leave behind, at the top of a hierarchy.
var engineCgroup = regexp.MustCompile(`^(buildah-.*|buildkit|crio|cdigen-e2e-.*|default|docker|k8s\.io|kubepods|libpod_parent|lxc\..*|pod.*|c\d+|payload|supervisor)$`)

// cgroup2 is the hierarchy of version 2, which the tests do not have in /sys/fs/cgroup.
var cgroup2 = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(work, "cgroup2")
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		err = mount("cgroup2", dir, "cgroup2", 0, "")
	}
	return dir, err
})

// cgroups lists the cgroups of engines, of all hierarchies.
func cgroups(roots ...string) (list []string) {
	for _, root := range roots {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil //nolint:nilerr // gone meanwhile
			}
			name, _ := filepath.Rel(root, path)
			if slices.ContainsFunc(strings.Split(name, "/"), engineCgroup.MatchString) {
				list = append(list, path)
			}
			return nil
		})
	}
	return list
}

// hierarchies are where those of version 1 and, beside them, of version 2 are mounted.
var hierarchies = []string{"/sys/fs/cgroup"}

// tidyCgroups removes the cgroups that came since. What an engine had before, it has not
// got from these tests, nor what is in that.
func tidyCgroups(before []string, roots ...string) {
	// What was ended may take a moment.
	for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(20 * time.Millisecond) {
		left := slices.DeleteFunc(cgroups(roots...), func(path string) bool {
			return slices.ContainsFunc(before, func(old string) bool { return path == old || strings.HasPrefix(path, old+"/") })
		})
		if len(left) == 0 {
			break
		}
		// A cgroup comes after the one that it is in.
		for _, path := range slices.Backward(left) {
			_ = os.Remove(path)
		}
	}
}

// leavesCgroups removes at the end of the test the cgroups that came since, and takes
// back which controllers those of version 2 have.
func leavesCgroups(t *testing.T) {
	t.Helper()
	unified, err := cgroup2()
	check(t, err)
	roots := append([]string{unified}, hierarchies...)
	before := cgroups(roots...)
	control := filepath.Join(unified, "cgroup.subtree_control")
	controllers, _ := os.ReadFile(control)
	t.Cleanup(func() {
		tidyCgroups(before, roots...)
		if now, _ := os.ReadFile(control); len(controllers) == 0 && len(now) > 1 {
			_ = os.WriteFile(control, []byte("-"+strings.Join(strings.Fields(string(now)), " -")), 0o644)
		}
	})
}
