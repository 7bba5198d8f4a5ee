package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A user that exists only in the mount namespace, with ids for his containers.
const (
	userName  = "cdigen-e2e"
	userID    = 61111
	subIDs    = 2_000_000_000
	subIDsLen = 65536
)

// rootless is podman as an ordinary user. runc wants a cgroup of its own, which
// that user cannot make, so crun it is.
func rootless(t *testing.T) podman {
	t.Helper()
	requireNamespace(t)
	requireCommands(t, "podman", "conmon", "crun", "newuidmap")
	p := podman{dir: workDir(t), runtime: "crun", user: &syscall.Credential{Uid: userID, Gid: userID}}
	addUser(t, p.dir)
	if out, err := p.command("unshare", "true").CombinedOutput(); err != nil {
		missing(t, fmt.Sprintf("no user namespaces for ordinary users: %v: %s", err, lastBytes(out, 500)))
	}
	// Ends the process that holds the user's namespaces, and with them this one.
	t.Cleanup(func() {
		if out, err := p.command("system", "migrate").CombinedOutput(); err != nil {
			t.Errorf("podman system migrate: %v: %s", err, out)
		}
	})
	return p
}

func addUser(t *testing.T, home string) {
	t.Helper()
	addUserBelow(t, "/", home)
}

// addUserBelow adds the user to a system whose root directory is root.
func addUserBelow(t *testing.T, root, home string) {
	t.Helper()
	for file, line := range map[string]string{
		"/etc/passwd": fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", userName, userID, userID, home),
		"/etc/group":  fmt.Sprintf("%s:x:%d:\n", userName, userID),
		"/etc/subuid": fmt.Sprintf("%s:%d:%d\n", userName, subIDs, subIDsLen),
		"/etc/subgid": fmt.Sprintf("%s:%d:%d\n", userName, subIDs, subIDsLen),
	} {
		if err := setEntry(filepath.Join(root, file), line); err != nil {
			t.Fatal(err)
		}
	}
	runtimeDir := filepath.Join(home, "xdg")
	if err := os.Mkdir(runtimeDir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{home, runtimeDir} {
		if err := os.Chown(dir, userID, userID); err != nil {
			t.Fatal(err)
		}
	}
}

// setEntry puts a line into a table like /etc/passwd, in the place of those with the
// same first field.
func setEntry(file, line string) error {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	name, _, _ := strings.Cut(line, ":")
	var table strings.Builder
	for old := range strings.Lines(string(data)) {
		if !strings.HasPrefix(old, name+":") {
			table.WriteString(strings.TrimSuffix(old, "\n") + "\n")
		}
	}
	return os.WriteFile(file, []byte(table.String()+line), 0o644)
}

// copyNodes puts the simulated device nodes into the /dev of the mount namespace.
func copyNodes(t *testing.T, host string) {
	t.Helper()
	dev := filepath.Join(host, "dev")
	err := filepath.WalkDir(dev, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join("/dev", strings.TrimPrefix(path, dev))
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case d.Type()&fs.ModeSymlink != 0: // below /dev/dri/by-path
			link, err := os.Readlink(path)
			if err == nil {
				err = os.Symlink(link, target)
			}
			if errors.Is(err, fs.ErrExist) {
				return nil // by another test
			}
			return err
		case d.Type()&fs.ModeCharDevice == 0:
			return nil
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return err
		}
		err = makeNode(target, st.Rdev)
		if errors.Is(err, fs.ErrExist) {
			return nil // the usual ones, null and so on
		}
		return errors.Join(err, os.Chmod(target, fs.FileMode(st.Mode)&fs.ModePerm))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// imported is an image with the files of a root. Root's files are not the user's to
// put an overlay on; an image becomes his.
func (p podman) imported(t *testing.T, root string) string {
	t.Helper()
	const image = "localhost/debian:1"
	load := exec.Command("tar", "-C", root, "--one-file-system", "-cf", "-", ".")
	pipe, err := load.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	podmanImport := p.command("import", "-", image)
	podmanImport.Stdin = pipe
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	if out, err := podmanImport.CombinedOutput(); err != nil {
		t.Fatalf("podman import: %v: %s", err, out)
	}
	if err := load.Wait(); err != nil {
		t.Fatalf("tar: %v", err)
	}
	return image
}

func TestRootlessContainerIsGivenTheDevicesNamed(t *testing.T) {
	p := rootless(t)
	root := requireDebian(t)
	host := simulatedHost(t)
	copyNodes(t, host)
	publish(t, "--dev-root", "/")
	image := p.imported(t, root)
	cache, err := os.ReadFile(filepath.Join(root, "etc/ld.so.cache"))
	if err != nil {
		t.Fatal(err)
	}

	// Without a cgroup there is no device filter: that a rootless container gets
	// no other node is up to the mknod that it may not do.
	container := []string{"--cgroups=disabled", image}
	for _, c := range given {
		t.Run(c.name, func(t *testing.T) {
			out := p.run(t, container, c.devices, look)
			checkInside(t, host, parseLook(t, out.stdout), c.nodes)
		})
	}
	t.Run("loader", func(t *testing.T) {
		checkLoaded(t, p.run(t, container, []string{"nvidia.com/gpu=0"}, loadLibraries).stdout, cache)
	})
}
