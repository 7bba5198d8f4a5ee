package specfile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/rundir"
	"github.com/cdigen/cdigen/internal/specfile"
	"github.com/cdigen/cdigen/internal/spectext"
)

var noOptions specfile.Options

func publish(t *testing.T, path, data string) specfile.Outcome {
	t.Helper()
	outcome, err := specfile.PublishData(context.Background(), path, []byte(data), noOptions)
	if err != nil {
		t.Fatal(err)
	}
	return outcome
}

// wantFile checks the content and mode of a file and that nothing lies beside it.
func wantFile(t *testing.T, path, data string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != data {
		t.Errorf("%s has %.50q, %v; want %.50q", path, got, err, data)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode() != 0o644 {
		t.Errorf("%s has mode %v; want 0644", path, info.Mode())
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%s is not alone in its directory: %v, %v", path, entries, err)
	}
}

func TestPublishReplacesAndLeavesAloneWhatIsTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a/b/nvidia.yaml")
	if got := publish(t, path, "one"); got != specfile.Published {
		t.Errorf("first: %s", got)
	}
	wantFile(t, path, "one")
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := publish(t, path, "one"); got != specfile.Unchanged {
		t.Errorf("same again: %s", got)
	}
	if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Errorf("an unchanged file was written: %v", err)
	}
	if got := publish(t, path, "two"); got != specfile.Published {
		t.Errorf("other data: %s", got)
	}
	wantFile(t, path, "two")
	// A mode that shuts rootless engines out is put right.
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := publish(t, path, "two"); got != specfile.Published {
		t.Errorf("wrong mode: %s", got)
	}
	wantFile(t, path, "two")
}

func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cdi/nvidia.yaml")
	remove := func() specfile.Outcome {
		outcome, err := specfile.Remove(context.Background(), path, noOptions)
		if err != nil {
			t.Fatal(err)
		}
		return outcome
	}
	if got := remove(); got != specfile.Absent {
		t.Errorf("no directory: %s", got)
	}
	publish(t, path, "one")
	if got := remove(); got != specfile.Removed {
		t.Errorf("published: %s", got)
	}
	if got := remove(); got != specfile.Absent {
		t.Errorf("removed: %s", got)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := specfile.Remove(context.Background(), path, noOptions); err == nil {
		t.Error("a directory in place of the file: no error")
	}
}

func TestPublishTellsWhatIsInItsWay(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(file, nil, 0o644), os.MkdirAll(filepath.Join(dir, "dir.yaml"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "nvidia.yml"):                            "engines read files named *.yaml and *.json only",
		filepath.Join(dir, ".nvidia.yaml"):                          "engines read files named *.yaml and *.json only",
		filepath.Join(dir, "dir.yaml"):                              "it is a directory",
		filepath.Join(file, "nvidia.yaml"):                          "part of the path is a file",
		filepath.Join(file, "below/nvidia.yaml"):                    "part of the path is a file",
		filepath.Join(dir, strings.Repeat("n", 300)+"/nvidia.json"): "file name too long",
	} {
		_, err := specfile.PublishData(context.Background(), path, []byte("new"), noOptions)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v; want an error with %q and the path", path, err, want)
		}
	}
}

func TestLinkIsReplacedAndNotFollowed(t *testing.T) {
	dir := t.TempDir()
	elsewhere := filepath.Join(t.TempDir(), "elsewhere.yaml")
	path := filepath.Join(dir, "nvidia.yaml")
	if err := errors.Join(os.WriteFile(elsewhere, []byte("mine"), 0o644), os.Symlink(elsewhere, path)); err != nil {
		t.Fatal(err)
	}
	publish(t, path, "mine")
	wantFile(t, path, "mine")
	publish(t, path, "new")
	wantFile(t, path, "new")
	wantFile(t, elsewhere, "mine")
}

func TestLeftoversOfKilledWritersAreRemoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nvidia.yaml")
	file := func(name string) error { return os.WriteFile(name, []byte("torn"), 0o600) }
	directory := func(name string) error {
		return errors.Join(os.MkdirAll(filepath.Join(name, "a/b"), 0o755), file(filepath.Join(name, "a/b/c")))
	}
	for _, make := range []func(string) error{file, directory} {
		for _, data := range []string{"new", "new", "newer"} { // the second time nothing has to be written
			for _, name := range []string{".nvidia.yaml.cdigen-new", ".nvidia.yaml.cdigen-old"} {
				if err := make(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			publish(t, path, data)
			wantFile(t, path, data)
		}
	}
	if err := file(filepath.Join(dir, ".nvidia.yaml.cdigen-new")); err != nil {
		t.Fatal(err)
	}
	if outcome, err := specfile.Remove(context.Background(), path, noOptions); outcome != specfile.Removed || err != nil {
		t.Errorf("%s, %v", outcome, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestSecondWriterWaitsForTheFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nvidia.yaml")
	publish(t, path, "old")
	unlock, err := change.Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = specfile.PublishData(context.Background(), path, []byte("new"), specfile.Options{LockTimeout: 50 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "lock "+path+": locked by another process of cdigen") {
		t.Errorf("%v; want an error that names the file", err)
	}
	done := make(chan error)
	go func() {
		_, err := specfile.PublishData(context.Background(), path, []byte("second"), noOptions)
		done <- err
	}()
	unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, "second")
}

func TestSpecOfAnotherUserBecomesTheWriters(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := filepath.Join(t.TempDir(), "nvidia.yaml")
	publish(t, path, "one")
	if err := os.Chown(path, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	publish(t, path, "one")
	wantFile(t, path, "one")
	if info, err := os.Stat(path); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 || info.Sys().(*syscall.Stat_t).Gid != 0 {
		t.Errorf("%+v, %v; want root's", info.Sys(), err)
	}
}

// A link in a directory of somebody else's must not lead what root writes elsewhere.
func TestLinkOfAnotherUserOnTheWayIsAnError(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	victim, dir := t.TempDir(), t.TempDir()
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.Symlink(victim, link), os.Lchown(link, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(link, "nvidia.yaml"), filepath.Join(link, "sub/nvidia.yaml")} {
		_, err := specfile.PublishData(context.Background(), path, []byte("new"), noOptions)
		if err == nil || !strings.Contains(err.Error(), link+" belongs to uid 12345") {
			t.Errorf("%v; want an error with the link and its owner", err)
		}
	}
	if entries, err := os.ReadDir(victim); err != nil || len(entries) > 0 {
		t.Errorf("written through the link: %v, %v", entries, err)
	}
}

// holdLocks locks what it can open below directories, says how much that is and keeps it
// until its standard input ends.
func holdLocks(places []string) {
	n := 0
	for _, place := range places {
		_ = filepath.WalkDir(place, func(name string, _ fs.DirEntry, _ error) error {
			if fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0); err == nil && unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
				n++
			}
			return nil
		})
	}
	fmt.Println(n)
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// lockedByAnUnprivilegedUser has an ordinary user lock all that he can open in places.
func lockedByAnUnprivilegedUser(t *testing.T, places ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run a program as somebody else")
	}
	cmd := copied(t, helper(t, "", ""))
	cmd.Env = append(os.Environ(), "HOLD_LOCKS="+strings.Join(places, string(filepath.ListSeparator)))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(stdin.Close(), cmd.Wait()) })
	var n int
	if _, err := fmt.Fscan(stdout, &n); err != nil || n < 2 {
		t.Fatalf("locked %d, %v; want the directory and the spec at least", n, err)
	}
}

func TestAnUnprivilegedUserCannotHoldUpAWriter(t *testing.T) {
	dir, err := os.MkdirTemp("", "publish") //nolint:usetesting // below it an ordinary user cannot reach
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "nvidia.yaml")
	publish(t, path, "old")
	lockedByAnUnprivilegedUser(t, dir, rundir.Default())
	o := specfile.Options{LockTimeout: 5 * time.Second}
	if outcome, err := specfile.PublishData(context.Background(), path, []byte("new"), o); outcome != specfile.Published || err != nil {
		t.Errorf("publish: %s, %v", outcome, err)
	}
	wantFile(t, path, "new")
	if outcome, err := specfile.Remove(context.Background(), path, o); outcome != specfile.Removed || err != nil {
		t.Errorf("remove: %s, %v", outcome, err)
	}
}

func TestManyWritersLeaveOneWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nvidia.yaml")
	content := func(n int) string { return strings.Repeat(fmt.Sprintf("writer %d\n", n), 2000) }
	var writers sync.WaitGroup
	for n := range 8 {
		writers.Go(func() {
			for range 5 {
				if _, err := specfile.PublishData(context.Background(), path, []byte(content(n)), noOptions); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var last int
	if _, err := fmt.Sscanf(string(data), "writer %d\n", &last); err != nil || string(data) != content(last) {
		t.Errorf("not one writer's file: %.40q…, %v", data, err)
	}
	wantFile(t, path, content(last))
}

func TestReaderNeverSeesAnythingButWholeFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nvidia.yaml")
	contents := []string{strings.Repeat("a", 40000), strings.Repeat("b", 60000)}
	publish(t, path, contents[0])
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reads := 0
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			f, err := os.Open(path)
			if err != nil {
				t.Errorf("missing: %v", err)
				return
			}
			info, err1 := f.Stat()
			var b bytes.Buffer
			_, err2 := b.ReadFrom(f)
			_ = f.Close()
			if err := errors.Join(err1, err2); err != nil || info.Mode() != 0o644 || b.String() != contents[0] && b.String() != contents[1] {
				t.Errorf("torn: %v, mode %v, %d bytes", err, info.Mode(), b.Len())
				return
			}
			reads++
		}
	})
	for n := range 300 {
		publish(t, path, contents[(n+1)%2])
	}
	close(stop)
	reader.Wait()
	if reads == 0 {
		t.Error("nothing was read")
	}
}

// helper runs the test binary as another process that publishes; see TestMain.
func helper(t *testing.T, path, data string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PUBLISH_PATH="+path, "PUBLISH_DATA="+data)
	return cmd
}

func TestModesDoNotDependOnTheUmask(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "made/for/it/nvidia.yaml")
	cmd := helper(t, path, "new")
	cmd.Env = append(cmd.Env, "PUBLISH_UMASK=077")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantFile(t, path, "new")
	for d := filepath.Dir(path); d != dir; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err != nil || info.Mode() != fs.ModeDir|0o755 {
			t.Errorf("%s: %v, %v; want 0755", d, info.Mode(), err)
		}
	}
}

func TestDirectoryThatCannotBeWrittenKeepsTheOldSpec(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cdi/nvidia.yaml")
	publish(t, path, "old")
	for _, d := range []string{filepath.Dir(dir), dir} { // an ordinary user has to get there
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(path), 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Dir(path), 0o755) })
	cmd := helper(t, path, "new")
	if os.Geteuid() == 0 {
		cmd = copied(t, cmd) // root may write everywhere
		run := filepath.Join(filepath.Dir(cmd.Path), "run")
		if err := errors.Join(os.Mkdir(run, 0o700), os.Chown(run, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+run)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "run as root or choose another output file") {
		t.Errorf("%v: %s", err, out)
	}
	wantFile(t, path, "old")
}

// copied runs a copy of the test binary that everybody can reach.
func copied(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp("", "publish") //nolint:usetesting // below it an ordinary user cannot reach
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, err := os.ReadFile(cmd.Path)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = filepath.Join(dir, "helper")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(cmd.Path, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd.Dir = "/"
	return cmd
}

func TestFullDiskKeepsTheOldSpec(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=755"); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	path := filepath.Join(dir, "nvidia.yaml")
	publish(t, path, "old")
	_, err := specfile.PublishData(context.Background(), path, bytes.Repeat([]byte("new"), 100_000), noOptions)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "make room on the file system") {
		t.Errorf("%v; want %v with advice", err, unix.ENOSPC)
	}
	wantFile(t, path, "old")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatalf("make it read-only: %v", err)
	}
	_, err = specfile.PublishData(context.Background(), path, []byte("new"), noOptions)
	if !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), "the file system is read-only") {
		t.Errorf("%v; want %v with advice", err, unix.EROFS)
	}
	wantFile(t, path, "old")
	if _, err := specfile.Remove(context.Background(), path, noOptions); !errors.Is(err, unix.EROFS) {
		t.Errorf("removed from a read-only file system: %v", err)
	}
	// What is not there need not be removed.
	if outcome, err := specfile.Remove(context.Background(), filepath.Join(dir, "other.yaml"), noOptions); outcome != specfile.Absent || err != nil {
		t.Errorf("%s, %v; want %s", outcome, err, specfile.Absent)
	}
}

func specText(t *testing.T, kind, value string) spectext.Text {
	t.Helper()
	text, err := spectext.Validate([]byte("cdiVersion: 0.5.0\nkind: " + kind + "\ndevices: [{name: a, containerEdits: {env: [A=" + value + "]}}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestPreviewIsWhatWouldChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	first, second := specText(t, "v.com/a", "1"), specText(t, "v.com/a", "2")
	count := func(text spectext.Text) int {
		t.Helper()
		plan, err := specfile.Preview(path, text)
		if err != nil {
			t.Fatal(err)
		}
		return len(plan)
	}
	if n := count(spectext.Text{}); n != 0 {
		t.Errorf("removing nothing is %d changes", n)
	}
	if n := count(first); n != 1 {
		t.Errorf("a new file is %d changes", n)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if n := count(spectext.Text{}); n != 1 {
		t.Errorf("removing an empty file is %d changes", n)
	}
	if outcome, err := specfile.Publish(t.Context(), path, first, specfile.Options{}); outcome != specfile.Published || err != nil {
		t.Fatal(outcome, err)
	}
	if same, other, none := count(first), count(second), count(spectext.Text{}); same != 0 || other != 1 || none != 1 {
		t.Errorf("the same, another and no text are %d, %d and %d changes", same, other, none)
	}
	if _, err := specfile.Preview(path+".txt", first); err == nil {
		t.Error("a name that engines do not read is previewed")
	}
	if _, err := specfile.Publish(t.Context(), path, spectext.Text{}, specfile.Options{}); err == nil {
		t.Error("nothing was published without an error")
	}
	if outcome, err := specfile.Remove(t.Context(), path, specfile.Options{Kind: "v.com/b"}); outcome != specfile.Absent || err != nil {
		t.Errorf("a file of another kind: %s, %v", outcome, err)
	}
	if outcome, err := specfile.Remove(t.Context(), path, specfile.Options{Kind: "v.com/a"}); outcome != specfile.Removed || err != nil {
		t.Errorf("a file of the kind: %s, %v", outcome, err)
	}
	if !specfile.IsTemporary(filepath.Join(filepath.Dir(path), ".a.yaml.cdigen-new")) || specfile.IsTemporary(path) {
		t.Error("temporary names are not told from others")
	}
}
