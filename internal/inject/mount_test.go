package inject

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/mountinfo"
	"github.com/cdigen/cdigen/internal/specdir"
)

// inNamespace calls a function in a mount namespace that ends with it.
func inNamespace(t *testing.T, call func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = call()
		}
		done <- err
	}()
	switch err := <-done; {
	case errors.Is(err, unix.EPERM) && os.Geteuid() != 0:
		t.Skip("only root can mount")
	case err != nil:
		t.Fatal(err)
	}
}

// The links of a container's root lead nowhere but in it, and nothing is made outside.
func TestMountsStayInTheRoot(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"host/usr", "root/usr/lib", "root/dev", "root/etc", "root/host/usr"} {
		check(t, os.MkdirAll(in(d), 0o755))
	}
	for _, f := range []string{"library", "host/victim", "host/usr/victim"} {
		check(t, os.WriteFile(in(f), []byte(f), 0o644))
	}
	for link, target := range map[string]string{
		"root/usr/lib64":    "lib",
		"root/up":           strings.Repeat("../", 20) + strings.TrimPrefix(in("host/usr"), "/"),
		"root/absolute":     in("host/victim"),
		"root/usr/lib/gone": "nowhere",
		"root/magic":        "/proc/1/root",
	} {
		check(t, os.Symlink(target, in(link)))
	}
	c := &Contents{Nodes: []Node{{HostPath: "/dev/null", Path: "/dev/dri/by/card1", Type: "c"}}}
	for _, name := range []string{"/usr/lib64/lib.so", "/usr/lib64/new/lib.so", "/usr/lib/gone", "/up/victim", "/absolute", "/magic/etc/file"} {
		c.Mounts = append(c.Mounts, oci.Mount{Type: "bind", Source: in("library"), Destination: name, Options: []string{"ro", "rbind"}})
	}
	var points []string
	inNamespace(t, func() error {
		m, _, err := OpenMounts(c)
		if err != nil {
			return err
		}
		defer m.Close()
		root, err := unix.Open(in("root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(root) //nolint:errcheck // nothing was written
		_, notes, err := m.At(root)
		if len(notes) == 0 || err != nil {
			t.Errorf("notes %q, %v", notes, err)
		}
		all, err := mountinfo.Read("/proc/thread-self/mountinfo")
		for _, mount := range all {
			if strings.HasPrefix(mount.Point, dir) {
				points = append(points, strings.TrimPrefix(mount.Point, dir))
			}
		}
		return err
	})
	slices.Sort(points)
	for _, point := range points {
		if !strings.HasPrefix(point, "/root/") {
			t.Errorf("something is mounted at %s", point)
		}
	}
	if !slices.Contains(points, "/root/dev/dri/by/card1") || !slices.Contains(points, "/root/usr/lib/new/lib.so") {
		t.Errorf("mounted are %q", points)
	}
	for _, f := range []string{"host/victim", "host/usr/victim"} {
		if data, err := os.ReadFile(in(f)); err != nil || string(data) != f {
			t.Errorf("%s is %q, %v", f, data, err)
		}
	}
	if entries, err := os.ReadDir(in("host")); err != nil || len(entries) != 2 {
		t.Errorf("the host's directory has %v, %v", entries, err)
	}
}

// A job gets the devices all of whose nodes it may open, but for the modes of DRM nodes.
func TestUsableDevices(t *testing.T) {
	device := func(name string, nodes ...string) specdir.Defined {
		d := specdir.Defined{Name: "v.com/gpu=" + name, Availability: specdir.Available}
		for _, n := range nodes {
			d.Own.DeviceNodes = append(d.Own.DeviceNodes, &specs.DeviceNode{Path: n})
		}
		return d
	}
	source := Source{device("0", "/dev/a"), device("1", "/dev/b"), device("1:0", "/dev/a", "/dev/b"), device("all", "/dev/a"), device("none"),
		device("2", "/dev/a", "/dev/dri/c"), device("3", "/dev/c"), device("4", "/dev/a", "/dev/dri/b")}
	got := source.Usable("v.com/gpu", func(path string, mode uint32) error {
		switch {
		case filepath.Base(path) == "b" || mode != unix.R_OK:
			return unix.EPERM // by the device filter
		case filepath.Base(path) == "c":
			return unix.EACCES // by the node's mode
		}
		return nil
	})
	if !slices.Equal(got, []string{"v.com/gpu=0", "v.com/gpu=2"}) {
		t.Errorf("got %q", got)
	}
}
