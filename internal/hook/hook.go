package hook

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Step is one thing that is done to a container.
type Step string

// The steps, by the names that `cdigen generate --hooks` has for them.
const (
	LDCache      Step = "ldcache"
	Symlinks     Step = "symlinks"
	CUDACompat   Step = "cuda-compat"
	DeviceParams Step = "device-params"
)

// Steps are all steps, in the order in which they are done.
var Steps = []Step{Symlinks, CUDACompat, LDCache, DeviceParams}

// Link is a symbolic link to be made.
type Link struct {
	// Target is what the link says, Path its absolute path in the container.
	Target, Path string
	// Always: make it even when it leads nowhere.
	Always bool
}

// Request is what one call of the hook has to do.
type Request struct {
	Steps []Step
	// Libraries are absolute paths in the container of files for the loader's cache.
	Libraries []string
	// Folders are directories of the container; what is mounted in them goes into
	// the loader's cache.
	Folders []string
	Links   []Link
	Compat  Compat
	// Strict: what fails is an error, not a warning.
	Strict bool
}

// Run does what is asked for, in the container with that root, and goes on when a
// step fails. What fails is told on w in one line each, with the step's name; the
// result says whether anything did. What is not possible in this container, for
// instance because a directory is a volume, is told too and is no failure.
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

// container is one that is being changed.
type container struct {
	*Root
	// compat is the directory with the image's own CUDA libraries, if they are to be
	// used.
	compat string
	// params is the path of the driver's parameters, below the roots of both.
	params string
}

func (c *container) do(step Step, q *Request) []error {
	wanted := false
	for _, s := range q.Steps {
		wanted = wanted || s == step
	}
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

// isMissing says whether there is nothing at a path.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
