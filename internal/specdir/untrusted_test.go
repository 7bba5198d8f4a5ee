package specdir_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/specdir"
)

// attacker is an ordinary user.
const attacker = 12345

// What an ordinary user can change of what engines read is found, for root who runs the
// program: the directory, its way, files in it, links, and directories that are missing.
func TestWhatOthersCanChangeOfSpecDirectoriesIsFound(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files to others")
	}
	type names map[string]string // the component and the start of the reason
	for name, c := range map[string]struct {
		do   func(at func(string) string) error
		want names
	}{
		"nothing": {func(func(string) string) error { return nil }, nil},
		"a directory that everyone can write to": {func(at func(string) string) error {
			return os.Chmod(at("etc/cdi"), 0o777)
		}, names{"etc/cdi": "can be written by everyone (its owner is root)"}},
		"a sticky one": {func(at func(string) string) error {
			return os.Chmod(at("etc/cdi"), os.ModeSticky|0o777)
		}, names{"etc/cdi": "can be written by everyone (its owner is root)"}},
		"a directory of a group's": {func(at func(string) string) error {
			return errors.Join(os.Chown(at("etc/cdi"), 0, attacker), os.Chmod(at("etc/cdi"), 0o775))
		}, names{"etc/cdi": "can be written by group 12345 (its owner is root)"}},
		"a directory of a user's": {func(at func(string) string) error {
			return os.Chown(at("etc/cdi"), attacker, 0)
		}, names{"etc/cdi": "belongs to uid 12345"}},
		"a directory on the way": {func(at func(string) string) error {
			return os.Chmod(at("etc"), 0o777)
		}, names{"etc": "can be written by everyone (its owner is root)"}},
		"a file that everyone can write to": {func(at func(string) string) error {
			return os.Chmod(at("etc/cdi/vendor.yaml"), 0o666)
		}, names{"etc/cdi/vendor.yaml": "can be written by everyone (its owner is root)"}},
		"a file of a user's": {func(at func(string) string) error {
			return os.Chown(at("etc/cdi/vendor.yaml"), attacker, 0)
		}, names{"etc/cdi/vendor.yaml": "belongs to uid 12345"}},
		"a file that engines do not read": {func(at func(string) string) error {
			return os.WriteFile(at("etc/cdi/README"), nil, 0o666)
		}, nil},
		"a link to a user's file": {func(at func(string) string) error {
			return errors.Join(os.WriteFile(at("tmp/spec"), nil, 0o644), os.Chown(at("tmp/spec"), attacker, 0), os.Symlink(at("tmp/spec"), at("etc/cdi/x.json")))
		}, names{"tmp/spec": "belongs to uid 12345"}},
		"a user's link in the place of the directory": {func(at func(string) string) error {
			return errors.Join(os.Rename(at("etc/cdi"), at("etc/other")), os.Symlink(at("etc/other"), at("etc/cdi")), os.Lchown(at("etc/cdi"), attacker, 0))
		}, names{"etc/cdi": "belongs to uid 12345"}},
		"no directory": {func(at func(string) string) error { return os.RemoveAll(at("etc/cdi")) }, nil},
		"no directory, and everyone can make it": {func(at func(string) string) error {
			return errors.Join(os.RemoveAll(at("etc/cdi")), os.Symlink(at("tmp/cdi"), at("etc/cdi")))
		}, names{"tmp": "can be written by everyone (its owner is root)"}},
		"two of them": {func(at func(string) string) error {
			return errors.Join(os.Chmod(at("run/cdi"), 0o777), os.Chown(at("etc/cdi/vendor.yaml"), attacker, 0))
		}, names{"run/cdi": "can be written by everyone", "etc/cdi/vendor.yaml": "belongs to uid 12345"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			at := func(name string) string { return filepath.Join(dir, name) }
			for _, d := range []string{"etc/cdi", "run/cdi", "tmp"} {
				if err := os.MkdirAll(at(d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			err := errors.Join(os.Chmod(at("tmp"), os.ModeSticky|0o777), os.WriteFile(at("etc/cdi/vendor.yaml"), []byte(oneDevice), 0o644), c.do(at))
			if err != nil {
				t.Fatal(err)
			}
			dirs := []string{at("etc/cdi"), at("run/cdi")}
			got := specdir.ReadDirectories(dirs).Exposed()
			if len(got) != len(c.want) {
				t.Errorf("found %+v, want %v", got, c.want)
			}
			for component, reason := range c.want {
				if !slices.ContainsFunc(got, func(f discover.Finding) bool {
					return f.ID == specdir.Untrusted && f.Severity.Serious() && f.Subject == at(component) && strings.HasPrefix(f.Message, reason)
				}) {
					t.Errorf("found %+v, want %s, which %s", got, at(component), reason)
				}
			}
		})
	}
}
