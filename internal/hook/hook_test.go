package hook

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/ldcache"
)

// insideVariable is set for the process that runs in a mount namespace of its own.
const insideVariable = "CDIGEN_HOOK_TEST"

// The tests mount a file system for each container's root, so they run in a mount
// namespace of their own, and in a user namespace as well when not run by root.
func TestMain(m *testing.M) {
	if os.Getenv(insideVariable) != "" {
		os.Exit(m.Run())
	}
	exe, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags, cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS, 0
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		os.Exit(max(exit.ExitCode(), 1))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "no namespaces here, tests that mount are skipped:", err)
		os.Exit(m.Run())
	}
}

// newRoot mounts an empty file system as a container's root, with some files in
// it. A name that ends with a slash is a directory, a content that begins with
// "-> " a link.
func newRoot(t testing.TB, files map[string]string) (path string) {
	t.Helper()
	path = newTmpfs(t)
	for name, content := range files {
		writeFile(t, filepath.Join(path, name)+strings.Repeat("/", strings.Count(name[len(name)-1:], "/")), content)
	}
	return path
}

func newTmpfs(t testing.TB) string {
	t.Helper()
	if os.Getenv(insideVariable) == "" {
		hosttest.SkipWithout(t, "mount namespace", errors.ErrUnsupported)
	}
	path := t.TempDir()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	target, isLink := strings.CutPrefix(content, "-> ")
	switch {
	case strings.HasSuffix(path, "/"):
	case isLink:
		err = os.Symlink(target, path)
	default:
		err = os.WriteFile(path, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// run does what the request says in a root, and returns what it told.
func run(t testing.TB, path string, q *Request) (ok bool, told string) {
	t.Helper()
	r, err := OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	ok = q.Run(r, &b)
	return ok, b.String()
}

// runQuietly expects everything to be done.
func runQuietly(t testing.TB, path string, q *Request) {
	t.Helper()
	if ok, told := run(t, path, q); !ok || told != "" {
		t.Fatalf("told: %s", told)
	}
}

// entries are the cache's, as "name path".
func entries(t testing.TB, root string) (list []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, cacheFile))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ldcache.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range parsed {
		list = append(list, e.Name+" "+e.Path)
	}
	return list
}

// cacheOf encodes a cache with entries of "name path".
func cacheOf(list ...string) string {
	c := ldcache.Empty("test")
	flags, _ := ldcache.FlagsOf("amd64")
	for _, s := range list {
		name, path, _ := strings.Cut(s, " ")
		c.Add(ldcache.Entry{Name: name, Path: path, Flags: flags}, nil)
	}
	return string(c.Encode())
}

func contents(t testing.TB, elem ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

const libDir = "/usr/lib/x86_64-linux-gnu"

func driverLibraries() *Request {
	return &Request{Steps: []Step{LDCache}, Libraries: []string{libDir + "/libcuda.so.1", "/usr/lib64/libcuda.so.1", libDir + "/libnvidia-ml.so.1", libDir + "/libnot-mounted.so.1"}}
}

func driverFiles(more map[string]string) map[string]string {
	files := map[string]string{
		libDir + "/libcuda.so.1":      testLibrary("libcuda.so.1", nil),
		"/usr/lib64/libcuda.so.1":     testLibrary("libcuda.so.1", nil),
		libDir + "/libnvidia-ml.so.1": testLibrary("libnvidia-ml.so.1", nil),
		libDir + "/libc.so.6":         testLibrary("libc.so.6", nil),
		"/lib":                        "-> usr/lib",
	}
	for name, content := range more {
		files[name] = content
	}
	return files
}

func TestLibrariesAreAddedByTheImagesNameOfTheDirectory(t *testing.T) {
	root := newRoot(t, driverFiles(map[string]string{cacheFile: cacheOf("libc.so.6 /lib/x86_64-linux-gnu/libc.so.6")}))
	runQuietly(t, root, driverLibraries())
	want := []string{"libnvidia-ml.so.1 /lib/x86_64-linux-gnu/libnvidia-ml.so.1", "libcuda.so.1 /lib/x86_64-linux-gnu/libcuda.so.1", "libc.so.6 /lib/x86_64-linux-gnu/libc.so.6"}
	if got := entries(t, root); !slices.Equal(got, want) {
		t.Errorf("the cache has\n%q, want\n%q", got, want)
	}
	// A directory that ldconfig searches anyway needs no configuration.
	if _, err := os.Lstat(filepath.Join(root, confFile)); err == nil {
		t.Error("ld.so.conf was made")
	}
	before, err := os.Stat(filepath.Join(root, cacheFile))
	if err != nil {
		t.Fatal(err)
	}
	runQuietly(t, root, driverLibraries())
	if after, err := os.Stat(filepath.Join(root, cacheFile)); err != nil || !os.SameFile(before, after) {
		t.Error("a second run wrote the same again", err)
	}
}

func TestImageWithoutACacheGetsOneAndItsConfiguration(t *testing.T) {
	root := newRoot(t, driverFiles(nil))
	runQuietly(t, root, driverLibraries())
	want := []string{"libnvidia-ml.so.1 " + libDir + "/libnvidia-ml.so.1", "libcuda.so.1 " + libDir + "/libcuda.so.1"}
	if got := entries(t, root); !slices.Equal(got, want) {
		t.Errorf("the cache has\n%q, want\n%q", got, want)
	}
	if got := contents(t, root, confFile); got != include {
		t.Errorf("ld.so.conf is %q", got)
	}
	if got := contents(t, root, confDir, driverConf); got != libDir+"\n" {
		t.Errorf("%s is %q", driverConf, got)
	}
}

func TestConfigurationKeepsWhatTheImageHas(t *testing.T) {
	for conf, want := range map[string]string{
		"/opt/lib\n":                                      include + "/opt/lib\n",
		"include /etc/ld.so.conf.d/*.conf\n":              "include /etc/ld.so.conf.d/*.conf\n",
		"include ld.so.conf.d/*.conf # all":               "include ld.so.conf.d/*.conf # all",
		"# include /etc/ld.so.conf.d/*.conf\nhwcap 1 x\n": include + "# include /etc/ld.so.conf.d/*.conf\nhwcap 1 x\n",
	} {
		root := newRoot(t, driverFiles(map[string]string{confFile: conf}))
		runQuietly(t, root, driverLibraries())
		if got := contents(t, root, confFile); got != want {
			t.Errorf("of %q came %q, want %q", conf, got, want)
		}
	}
}

func TestInjectedLibraryGoesBeforeAStaleOne(t *testing.T) {
	root := newRoot(t, driverFiles(map[string]string{
		cacheFile:               cacheOf("libcuda.so.1 /opt/old/libcuda.so.1", "libc.so.6 /lib/x86_64-linux-gnu/libc.so.6"),
		"/opt/old/libcuda.so.1": testLibrary("libcuda.so.1", nil),
	}))
	runQuietly(t, root, driverLibraries())
	want := []string{"libcuda.so.1 /lib/x86_64-linux-gnu/libcuda.so.1", "libcuda.so.1 /opt/old/libcuda.so.1"}
	if got := entries(t, root)[1:3]; !slices.Equal(got, want) {
		t.Errorf("the cache has\n%q, want\n%q", got, want)
	}
}

func TestMuslImageGetsThePathFile(t *testing.T) {
	root := newRoot(t, driverFiles(map[string]string{"/usr/lib/ld-musl-x86_64.so.1": "", "/etc/": ""}))
	runQuietly(t, root, driverLibraries())
	const file = "/etc/ld-musl-x86_64.path"
	if got, want := contents(t, root, file), "/lib:/usr/local/lib:/usr/lib\n"+libDir+"\n/usr/lib64\n"; got != want {
		t.Errorf("the path file is %q, want %q", got, want)
	}
	if _, err := os.Lstat(filepath.Join(root, cacheFile)); err == nil {
		t.Error("a cache was made that no loader reads")
	}
	// One that is there is added to.
	writeFile(t, filepath.Join(root, file), "/lib:/usr/lib64")
	runQuietly(t, root, driverLibraries())
	if got, want := contents(t, root, file), "/lib:/usr/lib64\n"+libDir+"\n"; got != want {
		t.Errorf("the path file is %q, want %q", got, want)
	}
}

func TestMountedLibrariesOfAFolder(t *testing.T) {
	root := newRoot(t, driverFiles(map[string]string{
		cacheFile:                        cacheOf("libc.so.6 /lib/x86_64-linux-gnu/libc.so.6"),
		libDir + "/libcuda.so.550.54.15": "",
		libDir + "/libcuda.so":           "-> libcuda.so.1",
		"/host/libcuda.so.550.54.15":     testLibrary("libcuda.so.1", nil),
		libDir + "/libimages-own.so.1":   testLibrary("libimages-own.so.1", nil),
	}))
	if err := os.Remove(filepath.Join(root, libDir, "libcuda.so.1")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(filepath.Join(root, "host/libcuda.so.550.54.15"), filepath.Join(root, libDir, "libcuda.so.550.54.15"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	q, warnings := Parse([]string{"update-ldcache", "--ldconfig-path", "@/sbin/ldconfig", "--folder", libDir})
	if warnings != nil {
		t.Fatal(warnings)
	}
	runQuietly(t, root, q)
	want := []string{"libcuda.so.1 /lib/x86_64-linux-gnu/libcuda.so.1", "libcuda.so /lib/x86_64-linux-gnu/libcuda.so", "libc.so.6 /lib/x86_64-linux-gnu/libc.so.6"}
	if got := entries(t, root); !slices.Equal(got, want) {
		t.Errorf("the cache has\n%q, want\n%q", got, want)
	}
	if target, err := os.Readlink(filepath.Join(root, libDir, "libcuda.so.1")); target != "libcuda.so.550.54.15" {
		t.Error(target, err)
	}
}

func TestLinks(t *testing.T) {
	root := newRoot(t, map[string]string{"/lib/libcuda.so.1": "", "/lib/libold.so": "a stub of the image", "/lib/libright.so": "-> libcuda.so.1", "/lib/libdir.so/": ""})
	q, warnings := Parse([]string{"apply", "--steps", "symlinks", "--link=libcuda.so.1::/lib/libcuda.so", "--link", "libcuda.so.1::/lib/libold.so",
		"--link=libcuda.so.1::/lib/libright.so", "--link=../../lib/libcuda.so.1::/new/dir/libcuda.so", "--link=nowhere::/lib/dangling.so"})
	if warnings != nil {
		t.Fatal(warnings)
	}
	runQuietly(t, root, q)
	for name, want := range map[string]string{"lib/libcuda.so": "libcuda.so.1", "lib/libold.so": "libcuda.so.1", "lib/libright.so": "libcuda.so.1", "new/dir/libcuda.so": "../../lib/libcuda.so.1", "lib/dangling.so": ""} {
		if got, _ := os.Readlink(filepath.Join(root, name)); got != want {
			t.Errorf("%s leads to %q, want %q", name, got, want)
		}
	}
	// As nvidia-cdi-hook does, whether or not the target is there.
	q, _ = Parse([]string{"create-symlinks", "--link", "nowhere::/lib/dangling.so"})
	runQuietly(t, root, q)
	if got, _ := os.Readlink(filepath.Join(root, "lib/dangling.so")); got != "nowhere" {
		t.Errorf("the link leads to %q", got)
	}
	// One that fails does not stop the others.
	q, _ = Parse([]string{"create-symlinks", "--link", "x::/lib/libdir.so", "--link", "x::/lib/after.so"})
	if ok, told := run(t, root, q); ok || !strings.Contains(told, "/lib/libdir.so") {
		t.Error(ok, told)
	}
	if got, _ := os.Readlink(filepath.Join(root, "lib/after.so")); got != "x" {
		t.Errorf("the link leads to %q", got)
	}
}

func TestWhatIsMountedIsNotWrittenTo(t *testing.T) {
	host := newTmpfs(t)
	writeFile(t, filepath.Join(host, "ld.so.cache"), "the host's")
	root := newRoot(t, driverFiles(map[string]string{"/etc/": "", "/dev/": ""}))
	if err := unix.Mount(host, filepath.Join(root, "etc"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(host, "ld.so.cache")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/dev", filepath.Join(root, "dev"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	q := driverLibraries()
	q.Steps = append(q.Steps, Symlinks)
	q.Links = []Link{{Target: "null", Path: "/dev/cdigen-test", Always: true}}
	ok, told := run(t, root, q)
	// That it cannot be done is no failure.
	if !ok || !strings.Contains(told, "/etc is on a separate mount") || !strings.Contains(told, "/dev is not the container's own") {
		t.Errorf("told %v: %s", ok, told)
	}
	if names, err := os.ReadDir(host); err != nil || len(names) != 0 {
		t.Error(names, err)
	}
	if _, err := os.Lstat("/dev/cdigen-test"); err == nil {
		t.Error("a link was made on the host")
	}
	// The container's own /dev is another matter.
	if err := unix.Mount("tmpfs", filepath.Join(root, "dev"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	_, _ = run(t, root, q)
	if _, err := os.Lstat(filepath.Join(root, "dev/cdigen-test")); err != nil {
		t.Error(err)
	}
}

func TestDeviceParametersAreMasked(t *testing.T) {
	root := newRoot(t, map[string]string{"/proc/": ""})
	if err := unix.Mount("/proc", filepath.Join(root, "proc"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := &container{Root: r, params: "/proc/version"}
	target, err := r.handle(c.params, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.mountOver(c.params, target, []byte("ModifyDeviceFiles: 0\n")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, c.params)
	if got := contents(t, file); got != "ModifyDeviceFiles: 0\n" {
		t.Errorf("the container reads %q", got)
	}
	if f, err := os.OpenFile(file, os.O_WRONLY, 0); !errors.Is(err, unix.EROFS) {
		t.Error("it can be written to", f, err)
	}
	if contents(t, "/proc/version") == "ModifyDeviceFiles: 0\n" {
		t.Error("the host's own is covered")
	}
	if names, err := os.ReadDir(root); err != nil || len(names) != 1 {
		t.Error("a file was left in the container", names, err)
	}
	// No driver: nothing to do. No procfs: told, and no failure.
	q := &Request{Steps: []Step{DeviceParams}}
	c.params = filepath.Join(t.TempDir(), "params")
	if errs := c.do(DeviceParams, q); errs != nil {
		t.Error(errs)
	}
	writeFile(t, c.params, "ModifyDeviceFiles: 1\n")
	writeFile(t, filepath.Join(root, c.params), "ModifyDeviceFiles: 1\n")
	if errs := c.do(DeviceParams, q); len(errs) != 1 || !errors.Is(errs[0], errSkipped) {
		t.Error(errs)
	}
}

func TestMaskParameters(t *testing.T) {
	for in, want := range map[string]string{
		"ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\nDeviceFileMode: 438\n": "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 0\nDeviceFileMode: 438\n",
		"ModifyDeviceFiles: 0\n": "",
		"DeviceFileMode: 438\n":  "",
		"":                       "",
	} {
		got, changed := maskParameters([]byte(in))
		if changed != (want != "") || changed && string(got) != want {
			t.Errorf("of %q came %q", in, got)
		}
	}
}
