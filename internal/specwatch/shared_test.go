package specwatch

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/specfile"
)

// attackVariable makes the test program attack a directory instead of testing.
const attackVariable = "CDIGEN_TEST_ATTACK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(attackVariable); dir != "" {
		if err := attack(dir); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// attackFlips is how often attack flips the name that the watcher looks for.
const attackFlips = 12

// attack makes and removes the name "wanted", slowly enough that each flip could lead to
// a generation, and meanwhile as many other files as the machine can.
func attack(dir string) error {
	done := make(chan struct{})
	flood := make(chan error, 1)
	go func() {
		var err error
		for i := 0; err == nil; i++ {
			select {
			case <-done:
				flood <- nil
				return
			default:
			}
			name := filepath.Join(dir, "f"+strconv.Itoa(i%1000))
			if err = os.WriteFile(name, nil, 0o600); err == nil && i%2 == 1 {
				err = os.Remove(name)
			}
		}
		flood <- err
	}()
	wanted := filepath.Join(dir, "wanted")
	for range attackFlips {
		if err := os.WriteFile(wanted, nil, 0o600); err != nil {
			return err
		}
		time.Sleep(120 * time.Millisecond)
		if err := os.Remove(wanted); err != nil {
			return err
		}
		time.Sleep(120 * time.Millisecond)
	}
	close(done)
	return errors.Join(<-flood, os.WriteFile(wanted, nil, 0o600))
}

// sharedDirectory makes a directory in which every user can create files, which can be
// reached by every user.
func sharedDirectory(t *testing.T) (root, dir string) {
	t.Helper()
	root = t.TempDir()
	dir = filepath.Join(root, "tmp")
	err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chmod(root, 0o755), os.Mkdir(dir, 0o755), os.Chmod(dir, fs.ModeSticky|0o777)) //nolint:gosec // others have to get there
	if err != nil {
		t.Fatal(err)
	}
	return root, dir
}

// existence is a host whose spec depends on which of some files exist.
type existence struct {
	files []string

	mu        sync.Mutex
	published []string // nil: nothing yet
}

func (e *existence) generate(context.Context, bool) (*Result, error) {
	r := &Result{Inventory: complete(0), Spec: &specs.Spec{}, Lookups: hosttree.NewLookups()}
	for _, file := range e.files {
		r.Lookups.AddFile(file)
		if _, err := os.Lstat(file); err == nil {
			r.Inventory.Files = append(r.Inventory.Files, discover.File{HostPath: file})
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r.Exists = e.published != nil
	r.Replaces = r.Exists && !slices.Equal(e.published, filePaths(r.Inventory))
	return r, nil
}

func (e *existence) apply(_ context.Context, r *Result) (specfile.Outcome, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.Exists && !r.Replaces {
		return specfile.Unchanged, nil
	}
	e.published = append([]string{}, filePaths(r.Inventory)...)
	return specfile.Published, nil
}

// has reports whether these files are published, and no others.
func (e *existence) has(files ...string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.published != nil && slices.Equal(e.published, files)
}

// A user who floods a directory that everybody can write to, and flips a name in it that
// the spec depends on, causes a generation for a poll at most. The last state is published
// all the same, and so are changes elsewhere, at once.
func TestAnotherUserCausesFewGenerations(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run a program as another user")
	}
	root, dir := sharedDirectory(t)
	e := &existence{files: []string{filepath.Join(dir, "wanted"), filepath.Join(root, "lib")}}
	files := &Files{}
	l := &Loop{
		Options: DefaultOptions(), Generate: e.generate, Apply: e.apply, Update: files.Update, Sources: []Source{files},
		Log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	until := func(what string, holds func() bool) {
		t.Helper()
		hosttest.Until(t, what, maxSharedPoll+patience, time.Millisecond, holds)
	}
	// One more may follow, where a generation was still running.
	rest := hosttest.Constantly(func() (int, time.Duration) { return l.State().Generations, 5 * l.Debounce })
	until("the generation after the start of the source", func() bool { return rest() && l.State().Generations >= 2 && e.has() })

	before, began := l.State(), time.Now()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{attackVariable + "=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("attack: %v\n%s", err, out)
	}
	after, polls := l.State(), int(time.Since(began)/minSharedPoll)+1
	if n := after.Generations - before.Generations; n > polls {
		t.Errorf("%d generations for %d flips and %d polls", n, 2*attackFlips, polls)
	}
	until("the last state of the name", func() bool { return e.has(e.files[0]) })
	write(t, e.files[1], "")
	until("a change elsewhere", func() bool { return e.has(e.files...) })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// While there is a change at each poll there are fewer and fewer of them; once there is
// none, they come as often as before.
func TestSharedPollsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := polled{lost: true, seen: map[string]identity{"/nonexistent": {}}}
		var lock sync.Mutex
		flips, polls := true, 0
		done := make(chan struct{})
		lock.Lock()
		p.schedule(&lock, done, func(string) {
			polls++
			p.lost = flips
		})
		lock.Unlock()
		const flipping = time.Hour
		pass(flipping)
		lock.Lock()
		if most := int(flipping/maxSharedPoll) + 5; polls < most-10 || polls > most {
			t.Errorf("%d polls in an hour of changes, want %d or fewer", polls, most)
		}
		flips = false
		lock.Unlock()
		pass(time.Hour)
		lock.Lock()
		expect(t, "time between polls after an hour of rest", p.interval, minSharedPoll)
		close(done)
		lock.Unlock()
		pass(time.Hour)
		lock.Lock()
		defer lock.Unlock()
		expect(t, "a poll is due after the end", p.timer != nil, false)
	})
}

// What is polled of a directory are the names that were looked up, like inotify does it.
func TestSharedNoticesChanges(t *testing.T) {
	_, dir := sharedDirectory(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	l := hosttree.NewLookups()
	for _, name := range []string{"file", "link", "directory", "socket", "late"} {
		l.AddFile(path(name))
	}
	l.Add(path("searched"))
	write(t, path("file"), "a")
	write(t, path("other"), "a")
	do := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	// Times of change are too coarse to tell apart changes that follow each other at once.
	long := time.Now().Add(-time.Hour)
	do(os.Symlink("a", path("link")), os.Mkdir(path("directory"), 0o755), os.Mkdir(path("searched"), 0o755), os.Chtimes(path("searched"), long, long))
	var p polled
	expect(t, "fresh", p.set(l, []string{dir, path("searched")}), true)
	expect(t, "fresh again", p.set(l, []string{dir, path("searched")}), false)
	for _, c := range []struct {
		name   string
		change func()
		want   string
	}{
		{"nothing", func() {}, ""},
		{"another name", func() { write(t, path("unrelated"), ""); write(t, path("other"), "bb") }, ""},
		{"a file is written", func() { write(t, path("file"), "bb") }, "file"},
		{"a file's mode", func() { do(os.Chmod(path("file"), 0o640)) }, "file"},
		{"a file is removed", func() { do(os.Remove(path("file"))) }, "file"},
		{"a file comes", func() { write(t, path("late"), "") }, "late"},
		{"a link leads elsewhere", func() { do(os.Remove(path("link")), os.Symlink("elsewhere", path("link"))) }, "link"},
		{"a file in a directory whose names do not matter", func() { write(t, path("directory/x"), "") }, ""},
		{"a file in a directory that was searched", func() { write(t, path("searched/x"), "") }, "searched"},
		{"a directory is replaced", func() { do(os.RemoveAll(path("directory")), os.Symlink("/", path("directory"))) }, "directory"},
		{"the directory's mode", func() { do(os.Chmod(dir, 0o755)) }, "."},
	} {
		c.change()
		// A generation in between makes no difference.
		if p.set(l, []string{dir, path("searched")}) {
			t.Errorf("%s: something is fresh", c.name)
		}
		var got []string
		for _, name := range p.changed() {
			rel, err := filepath.Rel(dir, name)
			do(err)
			got = append(got, rel)
		}
		expect(t, c.name, strings.Join(got, " "), c.want)
	}
	// Of too many names the directory's own time stands for all.
	for i := range maxSharedNames + 1 {
		l.AddFile(path("many" + strconv.Itoa(i)))
	}
	do(os.Chtimes(dir, long, long))
	p.set(l, []string{dir})
	expect(t, "paths that are polled", len(p.seen), 1)
	write(t, path("many7"), "")
	expect(t, "changed", len(p.changed()), 1)
}

// Directories that others can write to have no inotify watch, nor have those that others
// can replace.
func TestFilesWatchesPrivateDirectoriesOnly(t *testing.T) {
	root, dir := sharedDirectory(t)
	open := filepath.Join(root, "open/below")
	err := errors.Join(os.MkdirAll(open, 0o755), os.Chmod(filepath.Dir(open), 0o777), os.Mkdir(filepath.Join(dir, "own"), 0o755)) //nolint:gosec // that is the test
	if err != nil {
		t.Fatal(err)
	}
	l := hosttree.NewLookups()
	for _, name := range []string{"lib/libcuda.so.1", "x", "tmp/nvidia-mps", "tmp/own/x", "tmp/missing/x", "open/below/x"} {
		l.AddFile(filepath.Join(root, name))
	}
	private, others := partition(existing(l.Directories()))
	for _, want := range []string{root, filepath.Join(dir, "own")} {
		if !slices.Contains(private, want) {
			t.Errorf("%s is not watched", want)
		}
	}
	for _, want := range []string{dir, filepath.Dir(open), open} {
		if !slices.Contains(others, want) || slices.Contains(private, want) {
			t.Errorf("%s is watched", want)
		}
	}
}

// A change in a directory that others can write to is noticed in the end.
func TestFilesPollsSharedDirectories(t *testing.T) {
	_, dir := sharedDirectory(t)
	l := hosttree.NewLookups()
	l.AddFile(filepath.Join(dir, "wanted"))
	s := &Files{}
	s.Update(l)
	events := listen(t, s)
	await(t, events, "watching")
	write(t, filepath.Join(dir, "wanted"), "")
	await(t, events, filepath.Join(dir, "wanted"))
}
