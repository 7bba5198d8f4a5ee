package runtimes_test

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/runtimes"
)

var update = flag.Bool("update", false, "write the golden files")

// configuration is one of testdata/configs: the files of a system below root, and in the
// file case the engine, its version and perhaps a directory other than /etc/cdi that it
// has to search. The files enable and disable have what these do: a unified diff, or the
// error, or that there is nothing to do.
type configuration struct {
	request runtimes.Request
	dir     string
}

func configurations(t *testing.T) map[string]configuration {
	t.Helper()
	found, err := filepath.Glob("testdata/configs/*/case")
	if err != nil || len(found) < 25 {
		t.Fatalf("%d configurations: %v", len(found), err)
	}
	all := map[string]configuration{}
	for _, name := range found {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		words := strings.Fields(string(data) + " /etc/cdi")
		all[filepath.Base(filepath.Dir(name))] = configuration{
			runtimes.Request{Engine: runtimes.Name(words[0]), Version: words[1], SpecDirs: words[2:3]}, filepath.Dir(name),
		}
	}
	return all
}

// system is a copy of the configuration's.
func (c configuration) system(t *testing.T) runtimes.System {
	t.Helper()
	s := installation{env: map[string]string{"HOME": "/root"}}.system(t)
	if err := copyTree(filepath.Join(c.dir, "root"), s.Root); err != nil {
		t.Fatal(err)
	}
	return s
}

// copyTree copies files and links, as they are.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(name, from))
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(name)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o644)
	})
}

// tree reads all files below a directory, and links as "-> target".
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		key := strings.TrimPrefix(name, dir+"/")
		if d.Type()&fs.ModeSymlink != 0 {
			link, err := os.Readlink(name)
			files[key] = "-> " + link
			return err
		}
		data, err := os.ReadFile(name)
		files[key] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// outcome of a plan, as in the golden files.
func outcome(s runtimes.System, p *runtimes.Plan, err error) string {
	var text string
	switch {
	case errors.Is(err, runtimes.ErrUnsupported):
		text = "unsupported: " + err.Error() + "\n"
	case err != nil:
		text = "error: " + err.Error() + "\n"
	case len(p.Changes) == 0:
		text = "nothing to do\n"
	default:
		text = string(p.Changes.Diff())
	}
	return strings.ReplaceAll(text, s.Root, "")
}

func TestConfigurations(t *testing.T) {
	for name, c := range configurations(t) {
		t.Run(name, func(t *testing.T) {
			for _, verb := range []string{"enable", "disable"} {
				s := c.system(t)
				c.change(t, s, verb)
				// Again there is nothing to do, for either.
				c.settled(t, s, verb)
				for _, other := range []string{"disable", "enable"} {
					if p, err := plan(s, other, c.request); err == nil {
						if _, err := p.Apply(t.Context(), false); err != nil {
							t.Fatal(err)
						}
						c.settled(t, s, other)
					}
				}
			}
		})
	}
}

func plan(s runtimes.System, verb string, r runtimes.Request) (*runtimes.Plan, error) {
	if verb == "enable" {
		return s.Enable(r)
	}
	return s.Disable(r)
}

// change has a plan made and carried out, and compares it with the golden file.
func (c configuration) change(t *testing.T, s runtimes.System, verb string) {
	t.Helper()
	before := tree(t, s.Root)
	p, err := plan(s, verb, c.request)
	got := outcome(s, p, err)
	golden := filepath.Join(c.dir, verb)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%swant\n%s", verb, got, want)
	}
	if !maps.Equal(before, tree(t, s.Root)) {
		t.Error("a plan changes files")
	}
	if p == nil || len(p.Changes) == 0 {
		return
	}
	done, err := p.Apply(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	// Only what was planned is different, and what was there has a backup.
	after := tree(t, s.Root)
	want2 := maps.Clone(before)
	for i, change := range p.Changes {
		file := strings.TrimPrefix(done.Files[i], s.Root+"/")
		if change.Old != nil && before[file] != string(change.Old) {
			t.Errorf("%s is not what was planned for", file)
		}
		want2[file] = string(change.New)
		if change.New == nil {
			delete(want2, file)
		}
	}
	for _, backup := range done.Backups {
		name := strings.TrimPrefix(backup, s.Root+"/")
		if filepath.Ext(name) != ".cdigen-backup" || strings.Contains(name, "crio.conf.d/") {
			t.Errorf("an engine would read the backup %s", name)
		}
		want2[name] = string(p.Changes[0].Old)
	}
	if !maps.Equal(after, want2) {
		t.Errorf("%s: there is now %v\nwant %v", verb, after, want2)
	}
}

// settled: there is nothing to do any more, and CDI is what it was told to be.
func (c configuration) settled(t *testing.T, s runtimes.System, verb string) {
	t.Helper()
	p, err := plan(s, verb, c.request)
	if err == nil && len(p.Changes) > 0 {
		t.Errorf("%s again would change\n%s", verb, string(p.Changes.Diff()))
	}
	if err != nil {
		return
	}
	e := s.Engine(c.request.Engine, c.request.Version)
	if want := map[string]runtimes.State{"enable": runtimes.On, "disable": runtimes.Off}[verb]; e.CDI != want && e.CDI != runtimes.Always && e.CDI != runtimes.Unused {
		t.Errorf("after %s CDI is %s", verb, e.CDI)
	}
	if dirs := fmt.Sprint(e.SpecDirs); verb == "enable" && !strings.Contains(dirs+" ", c.request.SpecDirs[0]) {
		t.Errorf("after %s %s searches %s", verb, e.Name, dirs)
	}
}

// The directories of an engine of any version are among those that engines may search.
func TestSpecDirsHasThoseOfEachVersion(t *testing.T) {
	elsewhere := 0
	for name, c := range configurations(t) {
		s := c.system(t)
		s.LookPath = func(program string) (string, error) { return program, nil }
		all := s.SpecDirs()
		for _, dir := range s.Engine(c.request.Engine, c.request.Version).SpecDirs {
			if !slices.Contains(all, dir) {
				t.Errorf("%s: %s is not in %s", name, dir, all)
			}
			if dir != "/etc/cdi" && dir != "/var/run/cdi" {
				elsewhere++
			}
		}
		s.LookPath = func(string) (string, error) { return "", fs.ErrNotExist }
		if dirs := s.SpecDirs(); len(dirs) > 0 {
			t.Errorf("%s: %s, and no engine is installed", name, dirs)
		}
	}
	if elsewhere == 0 {
		t.Error("no configuration has a directory of its own")
	}
}
