package runtimes

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/configedit"
)

// file is a configuration file, which need not exist.
type file struct {
	// name is the path in the system. That of the File is the path on this machine.
	name string
	// old is what is in it; nil when it does not exist.
	old []byte
	*configedit.File
	// created is what a file that did not exist begins with.
	created string
	// removed: the file is to be removed.
	removed bool
	// foreign is why it is not for users to change, as another program writes it; empty: it is.
	foreign string

	// version of containerd's file, and patterns, its imports as absolute paths.
	version  int64
	patterns []string
}

// parser of one format.
type parser func([]byte) (*configedit.File, error)

// open reads a file. One that does not exist is parsed as an empty one.
func (s System) open(name string, parse parser) (*file, error) {
	f := &file{name: name}
	data, err := s.read(name)
	if err == nil {
		f.old, f.foreign = data, foreign(data)
		f.File, err = parse(data)
	}
	if err != nil {
		return nil, fileError(s.path(name), err)
	}
	f.Name = s.path(name)
	if target, err := s.resolve(name); err == nil && strings.HasPrefix(target, s.path("/nix/store")+"/") {
		f.foreign = "it is made by NixOS: change the system's configuration"
	}
	return f, nil
}

func (f *file) exists() bool { return f.old != nil }

// set changes a setting. A file that does not exist begins with its first lines.
func (f *file) set(value any, path ...string) error {
	if !f.exists() && f.created != "" && len(f.Bytes()) == 0 {
		begun, err := configedit.ParseTOML([]byte(f.created))
		if err != nil {
			return err
		}
		begun.Name, f.File = f.Name, begun
	}
	return f.Set(value, path...)
}

// changes returns what is different now in files. The error is that a file is not for users to
// change.
func changes(files []*file) (list change.Plan, err error) {
	for _, f := range files {
		now := f.Bytes()
		switch {
		case f.foreign != "" && (f.removed || !bytes.Equal(now, f.old)):
			err = errors.Join(err, &Error{File: f.Name, Message: f.foreign})
		case f.removed:
			list = append(list, change.Change{Path: f.Name, Old: f.old})
		case !bytes.Equal(now, f.old) || !f.exists() && len(now) > 0:
			list = append(list, change.Change{Path: f.Name, Old: f.old, New: now})
		}
	}
	return list, err
}

// missingDirs returns the wanted directories that are not in a list.
func missingDirs(have, want []string) (missing []string) {
	for _, dir := range want {
		if !slices.ContainsFunc(have, func(other string) bool { return sameDir(other, dir) }) && !slices.Contains(missing, dir) {
			missing = append(missing, dir)
		}
	}
	return missing
}

// withDirs returns a list of directories with missing ones added. These get the lowest
// priority, so that specs that were found before keep theirs, except for /var/run/cdi,
// which has the highest one by default.
func withDirs(have, missing []string) []string {
	var first, last []string
	for _, dir := range missing {
		if sameDir(dir, "/var/run/cdi") {
			last = append(last, dir)
		} else {
			first = append(first, dir)
		}
	}
	return slices.Concat(first, have, last)
}

// sameDir compares directories; /var/run is /run.
func sameDir(a, b string) bool {
	clean := func(dir string) string {
		dir = filepath.Clean(dir)
		if rest, ok := strings.CutPrefix(dir, "/var/run/"); ok {
			return "/run/" + rest
		}
		return dir
	}
	return clean(a) == clean(b)
}

// ErrUnsupported is in the error if an engine does not support CDI or has no switch for it.
var ErrUnsupported = errors.New("not supported")

// unsupported is an ErrUnsupported with its reason.
type unsupported string

func (u unsupported) Error() string        { return string(u) }
func (u unsupported) Is(target error) bool { return target == ErrUnsupported }
