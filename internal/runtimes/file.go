package runtimes

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/configedit"
)

// document is a parsed file.
type document interface {
	Bytes() []byte
	Values() map[string]any
	Value(path ...string) (value any, set bool, err error)
	Bool(path ...string) (value, set bool, err error)
	Strings(path ...string) (value []string, set bool, err error)
	Set(value any, path ...string) error
	Prepend(values []string, path ...string) error
	Errorf(path []string, format string, args ...any) error
}

// file is a configuration file, which need not exist.
type file struct {
	// name is the path in the system, shown where it is for us.
	name, shown string
	// old is what is in it; nil when it does not exist.
	old []byte
	doc document
	// created is what a file that did not exist begins with.
	created string
}

// parser of one format.
type parser func([]byte) (document, error)

func parseJSON(data []byte) (document, error) { return configedit.ParseJSON(data) }
func parseTOML(data []byte) (document, error) { return configedit.ParseTOML(data) }

// open reads a file. One that does not exist is parsed as an empty one.
func (s System) open(name string, parse parser) (*file, error) {
	f := &file{name: name, shown: s.path(name)}
	data, err := s.read(name)
	if err == nil {
		f.old = data
		f.doc, err = parse(data)
	}
	if err != nil {
		return nil, fileError(f.shown, err)
	}
	return f, nil
}

func (f *file) exists() bool { return f.old != nil }

// errorf is an error about a setting of the file.
func (f *file) errorf(path []string, format string, args ...any) error {
	return fileError(f.shown, f.doc.Errorf(path, format, args...))
}

// bool and strings give a setting; an error has the file's name.
func (f *file) bool(path ...string) (value, set bool, err error) {
	value, set, err = f.doc.Bool(path...)
	if err != nil {
		err = fileError(f.shown, err)
	}
	return value, set, err
}

func (f *file) strings(path ...string) (value []string, set bool, err error) {
	value, set, err = f.doc.Strings(path...)
	if err != nil {
		err = fileError(f.shown, err)
	}
	return value, set, err
}

// set changes a setting. A file that does not exist begins with its first lines.
func (f *file) set(value any, path ...string) error {
	if !f.exists() && f.created != "" && len(f.doc.Bytes()) == 0 {
		d, err := parseTOML([]byte(f.created))
		if err != nil {
			return err
		}
		f.doc = d
	}
	if err := f.doc.Set(value, path...); err != nil {
		return fmt.Errorf("%s: set %s: %w", f.shown, strings.Join(path, "."), err)
	}
	return nil
}

// addDirs puts directories before those of a setting that has a list.
func (f *file) addDirs(dirs []string, path ...string) error {
	if err := f.doc.Prepend(dirs, path...); err != nil {
		return fmt.Errorf("%s: change %s: %w", f.shown, strings.Join(path, "."), err)
	}
	return nil
}

// changes of the files that are different now.
func changes(files ...*file) (list change.Plan) {
	for _, f := range files {
		if now := f.doc.Bytes(); string(now) != string(f.old) || !f.exists() && len(now) > 0 {
			list = append(list, change.Change{Path: f.shown, Old: f.old, New: now})
		}
	}
	return list
}

// missingDirs are the directories wanted that are not in a list.
func missingDirs(have, want []string) (missing []string) {
	for _, dir := range want {
		if !slices.ContainsFunc(have, func(other string) bool { return sameDir(other, dir) }) && !slices.Contains(missing, dir) {
			missing = append(missing, dir)
		}
	}
	return missing
}

// withDirs is a list of directories with others that it lacks. They get the lowest
// priority, so that specs that were found before still go before theirs, but /var/run/cdi
// the highest, as it has by default.
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

// ErrUnsupported is what an engine has no way to do: it has no CDI, or no switch for it.
var ErrUnsupported = errors.New("not supported")

// unsupported is an ErrUnsupported with its reason.
type unsupported string

func (u unsupported) Error() string        { return string(u) }
func (u unsupported) Is(target error) bool { return target == ErrUnsupported }
