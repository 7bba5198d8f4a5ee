package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/driverfiles"
)

// The package for Alpine has the form that apk reads, its scripts do what they should in a
// system with nothing but busybox, and where there is an apk, it uses the package: Debian
// has none.
func TestAlpinePackage(t *testing.T) {
	dir := requirePackages(t)
	arch := strings.TrimSuffix(driverfiles.Triplet(runtime.GOARCH), "-linux-gnu")
	first := filepath.Join(dir, versionsOfPackages[0], "cdigen_0.9.0-r1_"+arch+".apk")
	next := filepath.Join(dir, versionsOfPackages[1], "cdigen_0.9.1-r1_"+arch+".apk")
	scripts := checkAPK(t, first)
	root := workDir(t)
	for _, dir := range []string{"bin", "dev"} {
		check(t, os.Mkdir(filepath.Join(root, dir), 0o755))
	}
	check(t, makeNode(filepath.Join(root, "dev/null"), unix.Mkdev(1, 3)))
	check(t, command(".", "cp", staticBusybox(t), filepath.Join(root, "bin/busybox")))
	check(t, command(".", "chroot", root, "/bin/busybox", "--install", "-s", "/bin"))

	t.Run("scripts without OpenRC", func(t *testing.T) {
		runScripts(t, root, scripts, "")
	})
	t.Run("scripts with OpenRC", func(t *testing.T) {
		for _, name := range []string{"rc-service", "rc-update"} {
			check(t, os.WriteFile(filepath.Join(root, "bin", name), []byte("#!/bin/sh\necho ${0##*/} $@ >>/log\nexit 1\n"), 0o755))
		}
		runScripts(t, root, scripts, "rc-service --ifstarted --quiet cdigen restart\n"+
			"rc-service --ifstarted --quiet cdigen stop\nrc-update --quiet delete cdigen\n")
	})
	if apk, err := exec.LookPath("apk"); err == nil {
		t.Run("apk", func(t *testing.T) { useAPK(t, []string{apk, "--root", root, "--arch", arch}, root, first, next) })
	}
}

// checkAPK reads a package: two compressed archives, of which the first describes and has the
// hash of the second. It returns the scripts.
func checkAPK(t *testing.T, file string) (scripts map[string][]byte) {
	t.Helper()
	data, err := os.ReadFile(file)
	check(t, err)
	scripts = map[string][]byte{}
	r := bytes.NewReader(data)
	z, err := gzip.NewReader(r)
	check(t, err)
	z.Multistream(false)
	eachFile(t, z, func(h *tar.Header, text []byte) { scripts[h.Name] = text })
	hash := fmt.Sprintf("datahash = %x\n", sha256.Sum256(data[len(data)-r.Len():]))
	if !bytes.Contains(scripts[".PKGINFO"], []byte(hash)) {
		t.Errorf("no %sin\n%s", hash, scripts[".PKGINFO"])
	}
	check(t, z.Reset(r))
	var names []string
	eachFile(t, z, func(h *tar.Header, _ []byte) {
		names = append(names, h.Name)
		if h.Mode&^0o7777 != 0 || h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s has mode %o and belongs to %d:%d: apk refuses the package", h.Name, h.Mode, h.Uid, h.Gid)
		}
	})
	for _, name := range []string{"usr/bin/cdigen", "usr/bin/cdigen-hook", "etc/init.d/cdigen", "etc/cdigen/cdigen.env", "usr/share/cdigen/prometheus/cdigen.rules.yml", "usr/share/cdigen/lxc/nvidia"} {
		if !slices.Contains(names, name) {
			t.Errorf("no %s among %v", name, names)
		}
	}
	return scripts
}

func eachFile(t *testing.T, r io.Reader, do func(h *tar.Header, text []byte)) {
	t.Helper()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, r)
			check(t, err)
			return
		}
		check(t, err)
		text, err := io.ReadAll(archive)
		check(t, err)
		do(h, text)
	}
}

// runScripts runs those of an upgrade and a removal: they never fail and print what stays,
// and nothing else. What they run is in /log.
func runScripts(t *testing.T, root string, scripts map[string][]byte, log string) {
	t.Helper()
	for _, script := range []string{".post-upgrade", ".pre-deinstall", ".post-deinstall"} {
		text, ok := scripts[script]
		if !ok {
			t.Fatalf("no %s among %d files", script, len(scripts))
		}
		check(t, os.WriteFile(filepath.Join(root, "script"), text, 0o755))
		out, err := exec.Command("chroot", root, "/script").CombinedOutput()
		if says := strings.Contains(string(out), "/etc/cdi/nvidia.yaml"); err != nil || says != (script == ".post-deinstall") || !says && len(out) != 0 {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
	if ran, _ := os.ReadFile(filepath.Join(root, "log")); string(ran) != log {
		t.Errorf("the scripts ran %q, not %q", ran, log)
	}
}

// useAPK installs, upgrades and removes. Changed settings and the spec stay.
func useAPK(t *testing.T, apk []string, root, first, next string) {
	run := func(args ...string) {
		t.Helper()
		check(t, command(".", apk[0], slices.Concat(apk[1:], []string{"--no-network", "--allow-untrusted", "--repositories-file", "/dev/null"}, args)...))
	}
	version := func(want string) {
		t.Helper()
		if out, err := exec.Command("chroot", root, "/usr/bin/cdigen", "--version").CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("cdigen --version: %v\n%s", err, out)
		}
	}
	run("add", "--initdb", first)
	version(versionsOfPackages[0])
	kept := map[string]string{"etc/cdigen/cdigen.env": "CDIGEN_GRACE=20s\n", "etc/cdi/nvidia.yaml": "published\n"}
	check(t, os.Mkdir(filepath.Join(root, "etc/cdi"), 0o755))
	for name, text := range kept {
		check(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	run("add", next)
	version(versionsOfPackages[1])
	run("del", "cdigen")
	for name, text := range kept {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != text {
			t.Errorf("%s after upgrade and removal: %v\n%s", name, err, got)
		}
	}
	for _, name := range []string{"usr/bin/cdigen", "etc/init.d/cdigen", "etc/cdigen/k8s-device-plugin.env"} {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
}
