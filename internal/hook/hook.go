package hook

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// Step is one change of a container.
type Step string

// The steps, by their names in `cdigen generate --hooks`.
const (
	LDCache      Step = "ldcache"
	Symlinks     Step = "symlinks"
	CUDACompat   Step = "cuda-compat"
	DeviceParams Step = "device-params"
)

// Steps has all steps in the order of their execution.
var Steps = []Step{Symlinks, CUDACompat, LDCache, DeviceParams}

// Link is a symbolic link to make.
type Link struct {
	// Target is the content of the link, Path its absolute path in the container.
	Target, Path string
	// Always makes the link even if it leads nowhere.
	Always bool
}

// Request is the task of one call of the hook.
type Request struct {
	Steps []Step
	// Libraries are absolute paths in the container of files for the loader's cache.
	Libraries []string
	// Folders are directories of the container. Libraries that are mounted in them go into
	// the loader's cache.
	Folders []string
	Links   []Link
	Compat  Compat
	// Strict makes failures errors, not warnings.
	Strict bool
}

// Run executes the steps in the container with the given root. It continues after
// failures, writes each to w as one line with the step's name, and returns false if there
// was any. What is not possible in this container, for instance because a directory is a
// volume, is written too but is not a failure.
func (q *Request) Run(r *Root, w io.Writer) (ok bool) {
	ok = true
	c := &container{Root: r, params: hostParams}
	for _, step := range Steps {
		for _, err := range c.do(step, q) {
			if !errors.Is(err, errSkipped) {
				ok = false
			}
			_, _ = fmt.Fprintf(w, "cdigen-hook: warning: %s: %v\n", step, err)
		}
	}
	return ok
}

// container is a container that is being changed.
type container struct {
	*Root
	// compat is the directory of the image's own CUDA libraries; empty: the driver's are used.
	compat string
	// params is the path of the driver's parameters, below the roots of both.
	params string
}

func (c *container) do(step Step, q *Request) []error {
	wanted := slices.Contains(q.Steps, step)
	var err error
	switch {
	case step == LDCache && (wanted || c.compat != ""):
		// The image's CUDA libraries are chosen by putting them into the cache.
		return c.updateCache(q, wanted)
	case !wanted:
	case step == Symlinks:
		return c.makeLinks(q.Links)
	case step == CUDACompat:
		c.compat, err = c.findCompat(&q.Compat)
	case step == DeviceParams:
		err = c.maskParams()
	}
	if err != nil {
		return []error{err}
	}
	return nil
}

// isMissing reports whether nothing exists at a path.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
