package specdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/trust"
)

// Exposed finds directories, whether they exist or not, and spec files in them, that other
// users than root and the one who runs the program can change: they choose what containers
// are given. Each component that they can change is reported once.
func (d *Directories) Exposed() (list []discover.Finding) {
	tree := trust.Local("/", trust.Self())
	add := func(path string, err error) {
		var e *trust.Error
		if !errors.As(err, &e) || slices.ContainsFunc(list, func(f discover.Finding) bool { return f.Subject == e.Component }) {
			return
		}
		list = append(list, discover.Finding{
			ID: Untrusted, Severity: discover.Broken, Subject: e.Component,
			Message: fmt.Sprintf("%s: other users can choose what containers are given through %s", withOwner(e), path),
		})
	}
	for _, dir := range d.List {
		name, err := filepath.Abs(dir.Path)
		if err != nil {
			continue
		}
		err = tree.CheckExclusive(name)
		missing := (*fs.PathError)(nil)
		if errors.Is(err, fs.ErrNotExist) && errors.As(err, &missing) {
			// Those who can make it there can fill it too.
			err = tree.CheckExclusive("/" + path.Dir(missing.Path))
		}
		add(name, err)
		for _, f := range dir.Files {
			file := filepath.Join(name, filepath.Base(f.Path))
			add(file, tree.Check(file))
		}
	}
	return list
}

// withOwner is a reason that has the owner in it.
func withOwner(e *trust.Error) string {
	if strings.HasPrefix(e.Reason, "belongs to ") {
		return e.Reason
	}
	owner := fmt.Sprintf("uid %d", e.UID)
	if u, err := user.LookupId(strconv.FormatUint(uint64(e.UID), 10)); err == nil {
		owner = u.Username
	}
	return fmt.Sprintf("%s (its owner is %s)", e.Reason, owner)
}
