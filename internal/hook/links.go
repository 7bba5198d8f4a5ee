package hook

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// makeLinks makes links, and their directories if they are missing.
func (c *container) makeLinks(links []Link) (errs []error) {
	for _, l := range links {
		if err := c.makeLink(l); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (c *container) makeLink(l Link) error {
	name := path.Base(path.Clean(l.Path))
	if !path.IsAbs(l.Path) || name == "/" || name == ".." || l.Target == "" {
		return fmt.Errorf("link %q to %q: want a target and an absolute path", l.Path, l.Target)
	}
	parent := path.Dir(path.Clean(l.Path))
	target := l.Target
	if !path.IsAbs(target) {
		target = path.Join(parent, target)
	}
	if !l.Always && !c.exists(target) {
		return nil
	}
	d, err := c.dir(parent)
	if err == nil {
		err = d.symlink(l.Target, name)
		d.close()
	}
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w: %w", errSkipped, err)
	}
	return err
}
