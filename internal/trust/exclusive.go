package trust

import "golang.org/x/sys/unix"

// CheckExclusive is [Tree.Check] for a directory in which nobody but the caller and root may
// create names: a sticky directory such as /tmp may be on the way to it but is refused itself.
func (t *Tree) CheckExclusive(name string) error {
	if t.fsys == nil {
		return nil
	}
	if t.above != nil {
		if err := t.above.Check(t.root); err != nil {
			return t.named(name, err)
		}
	}
	e, err := t.walk(name)
	if err == nil && e.owned && e.mode&unix.S_IFMT == unix.S_IFDIR {
		if who := t.caller.others(e.mode, e.gid); who != "" {
			err = t.untrusted(name, e, "can be written by "+who)
		}
	}
	return t.named(name, err)
}
