package spec_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/spec"
)

// status is what the kernel says of a file itself.
func status(t *testing.T, path string) (s syscall.Stat_t) {
	t.Helper()
	if err := syscall.Lstat(path, &s); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return s
}

// changeable is the oracle, which knows nothing of package trust: it returns a component
// of a path that somebody besides root and the user of the test can exchange or change,
// as the kernel shows each of them; empty: there is none.
func changeable(t *testing.T, path string) string {
	t.Helper()
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		real = filepath.Dir(path) // a node that the table has and this machine has not
	} else if err != nil {
		t.Fatal(err)
	}
	foreign := func(s syscall.Stat_t) bool { return s.Uid != 0 && int(s.Uid) != os.Geteuid() }
	// A user who is not root has a group of their own.
	written := func(s syscall.Stat_t) bool {
		own := os.Geteuid() != 0 && int(s.Gid) == os.Getegid()
		return s.Mode&0o002 != 0 || s.Mode&0o020 != 0 && !own
	}
	for _, p := range []string{filepath.Dir(path), path, real} {
		for at := p; at != "/"; at = filepath.Dir(at) {
			s, above := status(t, at), status(t, filepath.Dir(at))
			device, file := s.Mode&unix.S_IFMT == unix.S_IFCHR, s.Mode&unix.S_IFMT == unix.S_IFREG
			crowded, sticky := above.Mode&unix.S_IFMT == unix.S_IFDIR && written(above), above.Mode&unix.S_ISVTX != 0
			switch {
			case foreign(s) && (!device || crowded), crowded && !sticky, file && written(s):
				return at
			}
		}
	}
	return ""
}

// published are the paths of the host in the spec that it gets now, each once.
func published(t *testing.T, d *simhost.Description, dir string) ([]string, []discover.Finding) {
	t.Helper()
	host := hosttree.Local(d.Arch, d.DriverRoot(dir), dir, filepath.Join(dir, "proc"), filepath.Join(dir, "sys"))
	table, err := os.ReadFile(filepath.Join(dir, simhost.NodeTable))
	if err != nil {
		t.Fatal(err)
	}
	if host.Dev, err = host.Dev.WithNodes(table); err != nil {
		t.Fatal(err)
	}
	inv, err := discover.Run(t.Context(), host, discover.Options{MPSDirectory: "/srv/mps"})
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := spec.New(inv, spec.Options{})
	if errors.Is(err, spec.ErrNoDevices) {
		s, err = &specs.Spec{}, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range specdir.Parts(s) {
		for _, m := range e.Mounts {
			list = append(list, m.HostPath)
		}
		for _, n := range e.DeviceNodes {
			list = append(list, n.HostPath)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), inv.Findings
}

// meddler changes files of a host as a careless administrator and a malicious user may.
type meddler struct {
	*rand.Rand
	t    *testing.T
	dir  string
	root bool // files can be given away
}

func (m *meddler) must(errs ...error) {
	m.t.Helper()
	if err := errors.Join(errs...); err != nil {
		m.t.Fatal(err)
	}
}

// any is some file of the host of those that keep accepts.
func (m *meddler) any(keep func(e fs.DirEntry) bool) string {
	var list []string
	m.must(filepath.WalkDir(m.dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == m.dir:
		case e.IsDir() && slices.Contains([]string{"proc", "sys"}, e.Name()):
			return fs.SkipDir // the kernel's
		case keep(e) && e.Name() != simhost.NodeTable:
			list = append(list, path)
		}
		return nil
	}))
	return list[m.IntN(len(list))]
}

// permissions changes the owner or the mode of a file that is not a link.
func (m *meddler) permissions() {
	path := m.any(func(e fs.DirEntry) bool { return e.Type()&fs.ModeSymlink == 0 })
	if m.root && m.IntN(2) == 0 {
		m.must(os.Lchown(path, 12345, 12345))
		return
	}
	mode := []fs.FileMode{0o777, 0o775, os.ModeSticky | 0o777, os.ModeSticky | 0o775}[m.IntN(4)]
	m.must(os.Chmod(path, mode))
}

// links puts a link in the place of a file or directory, or gives one away.
func (m *meddler) links() {
	if m.root && m.IntN(3) == 0 {
		m.must(os.Lchown(m.any(func(e fs.DirEntry) bool { return e.Type()&fs.ModeSymlink != 0 }), 12345, 12345))
		return
	}
	path := m.any(func(e fs.DirEntry) bool { return e.Type()&fs.ModeDevice == 0 })
	moved := path + ".moved"
	if _, err := os.Lstat(moved); err == nil {
		return
	}
	target := filepath.Base(moved)
	if m.IntN(2) == 0 {
		middle := path + ".link"
		m.must(os.Symlink(target, middle))
		target = filepath.Base(middle)
	}
	m.must(os.Rename(path, moved), os.Symlink(target, path))
	if m.root && m.IntN(2) == 0 {
		m.must(os.Lchown([]string{path, moved}[m.IntN(2)], 12345, 12345))
	}
}

// Whatever others may do to the files of a host, what they can change is not published;
// and what they cannot change is, unless they can change how it is found.
func TestNoPathOfASpecCanBeChangedByOthers(t *testing.T) {
	left := 0
	for seed := range uint64(60) {
		d := hosttest.Load(t, []string{"fedora", "debian-alternatives", "driver-container"}[seed%3])
		dir := filepath.Join(t.TempDir(), "host")
		if err := errors.Join(d.Build(dir, simhost.Options{}), os.MkdirAll(filepath.Join(d.DriverRoot(dir), "srv/mps"), 0o755)); err != nil {
			t.Fatal(err)
		}
		before, findings := published(t, d, dir)
		if slices.ContainsFunc(findings, func(f discover.Finding) bool { return f.ID == discover.Untrusted }) || len(before) < 10 {
			t.Fatalf("%d paths and %+v", len(before), findings)
		}
		m := &meddler{Rand: rand.New(rand.NewPCG(seed, 17)), t: t, dir: dir, root: os.Geteuid() == 0} //nolint:gosec // the same hosts each time
		linked := seed%2 == 1
		for range 1 + m.IntN(4) {
			if linked && m.IntN(2) == 0 {
				m.links()
			} else {
				m.permissions()
			}
		}
		after, findings := published(t, d, dir)
		for _, path := range after {
			if at := changeable(t, path); at != "" {
				t.Errorf("seed %d: %s is published, and others can change %s", seed, path, at)
			}
		}
		// Elsewhere the files are found by links, and a link may be what is changed.
		if d.Name == "fedora" && !linked && len(after) > 0 {
			for _, path := range before {
				if !slices.Contains(after, path) && changeable(t, path) == "" {
					t.Errorf("seed %d: nobody can change %s, and it is not published: %+v", seed, path, findings)
				}
			}
		}
		if len(after) < len(before) {
			left++
			// A library that is a link to a file with another name is none, trusted or not.
			if !linked && !slices.ContainsFunc(findings, func(f discover.Finding) bool { return f.Severity.Serious() }) {
				t.Errorf("seed %d: %d paths are left out without a finding", seed, len(before)-len(after))
			}
		}
	}
	if left < 15 {
		t.Errorf("of 60 hosts only %d have less to publish: the changes test little", left)
	}
}
