package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/trust"
)

// Exposed is a directory that engines read, or a spec file in it, that other users than
// root and the one who runs the program can change: they choose what containers are given.
type Exposed struct {
	// Path of the directory or the file.
	Path string
	// Component is what they can change: Path, or what is on the way to it.
	Component string
	// Reason in words, with the component as its subject.
	Reason string
}

// Message says what is wrong with the component.
func (e *Exposed) Message() string {
	return fmt.Sprintf("%s: other users can choose what containers are given through %s", e.Reason, e.Path)
}

// ExposedIn looks at directories that engines read, whether they exist or not, and at the
// spec files in them. Each component is reported once.
func ExposedIn(dirs []string) (list []Exposed) {
	tree := trust.Local("/", trust.Self())
	add := func(path string, err error) {
		var e *trust.Error
		if !errors.As(err, &e) || slices.ContainsFunc(list, func(o Exposed) bool { return o.Component == e.Component }) {
			return
		}
		list = append(list, Exposed{Path: path, Component: e.Component, Reason: withOwner(e)})
	}
	for _, dir := range dirs {
		dir, err := filepath.Abs(dir)
		if err != nil {
			continue
		}
		err = tree.CheckExclusive(dir)
		missing := (*fs.PathError)(nil)
		if errors.Is(err, fs.ErrNotExist) && errors.As(err, &missing) {
			// Those who can make it there can fill it too.
			err = tree.CheckExclusive("/" + path.Dir(missing.Path))
		}
		add(dir, err)
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".json" || ext == ".yaml") {
				file := filepath.Join(dir, e.Name())
				add(file, tree.Check(file))
			}
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

// ExposedFindings are the findings about what [ExposedIn] finds.
func ExposedFindings(dirs []string) (findings []discover.Finding) {
	for _, e := range ExposedIn(dirs) {
		findings = append(findings, discover.Finding{Module: "spec", Subject: e.Component, Severity: discover.Fault, Message: e.Message()})
	}
	return findings
}
