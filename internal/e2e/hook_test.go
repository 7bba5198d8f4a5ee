package e2e

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"
)

// image is a root file system that a test may change: an overlay on another one.
func image(t *testing.T, base string) string {
	t.Helper()
	dir := workDir(t)
	merged, layer := filepath.Join(dir, "merged"), filepath.Join(dir, "layer")
	upper, scratch := filepath.Join(layer, "upper"), filepath.Join(layer, "work")
	err := errors.Join(os.Mkdir(merged, 0o755), os.Mkdir(layer, 0o755), mountTmpfs(layer, "mode=755"), os.Mkdir(upper, 0o755), os.Mkdir(scratch, 0o755),
		mount("overlay", merged, "overlay", 0, "lowerdir="+base+",upperdir="+upper+",workdir="+scratch))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(merged, unix.MNT_DETACH); _ = unix.Unmount(layer, unix.MNT_DETACH) })
	return merged
}

// debian32 has the 32-bit libraries of Debian.
var debian32 = sync.OnceValues(func() (string, error) { return debootstrapArch(debianSuite, "386", "", "") })

// multiarch adds to an image what Debian's i386 packages of the C library and perl
// have in them.
func multiarch(t *testing.T, root string) {
	t.Helper()
	from, err := debian32()
	if err != nil {
		missing(t, "no 32-bit Debian root file system: "+err.Error())
	}
	for _, c := range [][]string{
		{"cp", "-a", from + "/usr/lib/i386-linux-gnu", root + "/usr/lib/"},
		{"cp", "-a", from + "/usr/lib/ld-linux.so.2", root + "/usr/lib/"},
		{"cp", "-a", from + "/usr/bin/perl", root + "/usr/bin/perl32"},
		{"cp", "-a", from + "/etc/ld.so.conf.d/i386-linux-gnu.conf", root + "/etc/ld.so.conf.d/"},
		{"chroot", root, "ldconfig"},
	} {
		if err := command(work, c[0], c[1:]...); err != nil {
			t.Fatal(err)
		}
	}
}

// hookLibraries are the paths that the spec's hook adds to the loader's cache, of a
// directory; and those of others.
func hookLibraries(t *testing.T, s *specs.Spec, dir string) (names []string) {
	t.Helper()
	if n := len(s.ContainerEdits.Hooks); n != 1 {
		t.Fatalf("the spec has %d hooks", n)
	}
	for _, arg := range s.ContainerEdits.Hooks[0].Args {
		if p, ok := strings.CutPrefix(arg, "--library="); ok && path.Dir(p) == dir {
			names = append(names, path.Base(p))
		}
	}
	if !slices.Contains(names, "libcuda.so.1") {
		t.Fatalf("the hook is not told of libcuda.so.1 in %s: %q", dir, names)
	}
	return names
}

// listed is a script that says which names ldconfig does not list in a directory.
func listed(names []string, dir string) string {
	return "ldconfig -p > /run/list\nfor name in " + strings.Join(names, " ") + "; do grep -q \"^[[:space:]]$name (.*) => " + dir + "/$name$\" /run/list || echo $name is not listed; done\n"
}

// loaded is a script that says which names a program, perl of some architecture,
// cannot load.
func loaded(perl string, names []string) string {
	return "for name in " + strings.Join(names, " ") + "; do " + perl + ` -MDynaLoader -e 'DynaLoader::dl_load_file($ARGV[0]) or print DynaLoader::dl_error(), "\n"' $name; done` + "\n"
}

// same is a script that says when ldconfig writes another cache than there is.
const same = "sum=$(sha256sum < /etc/ld.so.cache)\nldconfig\n[ \"$sum\" = \"$(sha256sum < /etc/ld.so.cache)\" ] || echo ldconfig writes another cache\n"

func trixie() (string, error) { return systemdRoot("trixie") }

// TestHookIsTheLoadersTruth runs containers on images of all kinds with the real 550
// driver and the hook for ld.so.cache: the image's own ldconfig, loader and programs
// must find the libraries, and ldconfig must write the very same cache again.
func TestHookIsTheLoadersTruth(t *testing.T) {
	const (
		debianDir  = "/lib/x86_64-linux-gnu" // as Debian's ldconfig calls it
		privateDir = "/usr/local/nvidia/lib64"
	)
	shell := func(script string) func(*testing.T, string) {
		return func(t *testing.T, root string) {
			t.Helper()
			if err := command(work, "chroot", root, "sh", "-ec", script); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		base   func() (string, error)
		change func(t *testing.T, root string)
		args   []string
		dir    string // where the spec mounts
		listed string // where the cache has it
		script string // more to check, before ldconfig
		// other: why ldconfig writes another cache.
		other string
	}{
		{name: "Debian 12", base: debian, dir: "/usr/lib/x86_64-linux-gnu", listed: debianDir},
		{name: "Debian 12, all links", base: debian, args: []string{"--hooks=ldcache,symlinks"}, dir: "/usr/lib/x86_64-linux-gnu", listed: debianDir,
			script: "[ \"$(readlink /usr/lib/x86_64-linux-gnu/libcuda.so.5*)\" = libcuda.so.1 ] || echo no link by the version\n"},
		{name: "Debian 12, private directory", base: debian, args: []string{"--library-layout=private"}, dir: privateDir, listed: privateDir},
		{name: "Debian 13", base: trixie, dir: "/usr/lib/x86_64-linux-gnu", listed: debianDir},
		{name: "Debian 13, private directory", base: trixie, args: []string{"--library-layout=private"}, dir: privateDir, listed: privateDir},
		{name: "Ubuntu-like", base: debian, args: []string{"--library-layout=private"}, dir: privateDir, listed: privateDir,
			// Ubuntu's ldconfig is a script that runs ldconfig.real.
			change: shell("mv /sbin/ldconfig /sbin/ldconfig.real; printf '#!/bin/sh\\nexec /sbin/ldconfig.real \"$@\"\\n' > /sbin/ldconfig; chmod +x /sbin/ldconfig\n" +
				"printf 'include /etc/ld.so.conf.d/*.conf\\n\\n' > /etc/ld.so.conf; mkdir -p /usr/lib/x86_64-linux-gnu/libfakeroot; echo /usr/lib/x86_64-linux-gnu/libfakeroot > /etc/ld.so.conf.d/fakeroot-x86_64-linux-gnu.conf; ldconfig")},
		{name: "no cache", base: debian, args: []string{"--library-layout=private"}, dir: privateDir, listed: privateDir,
			change: shell("rm /etc/ld.so.cache"), other: "the image's own libraries were in none"},
		{name: "no cache, no configuration", base: debian, args: []string{"--library-layout=private"}, dir: privateDir, listed: privateDir,
			change: shell("rm -r /etc/ld.so.cache /etc/ld.so.conf /etc/ld.so.conf.d"), other: "the image's own libraries were in none"},
		{name: "stale entry", base: debian, dir: "/usr/lib/x86_64-linux-gnu", listed: debianDir,
			change: func(t *testing.T, root string) {
				t.Helper()
				oldDriver(t, root)
				if err := os.RemoveAll(filepath.Join(root, "opt/old")); err != nil {
					t.Fatal(err)
				}
			},
			other: "it drops the stale entry"},
		{name: "libraries of an old driver in the image", base: debian, dir: "/usr/lib/x86_64-linux-gnu", listed: debianDir,
			change: oldDriver,
			script: "[ \"$(ldconfig -p | grep -c 'libcuda.so.1 ')\" = 2 ] || echo the entry of the image is gone\n" +
				"perl -MDynaLoader -e 'DynaLoader::dl_load_file(\"libcuda.so.1\"); open F, \"</proc/self/maps\"; print \"the old library is loaded\\n\" if grep m{/opt/old}, <F>'\n",
			other: "the image's configuration has the directory with the old driver first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := rootful(t, "crun")
			root, version := driverRoot(t, "550")
			requireCommands(t, "debootstrap")
			base, err := c.base()
			if err != nil {
				missing(t, "no Debian root file system: "+err.Error())
			}
			merged := image(t, base)
			if c.change != nil {
				c.change(t, merged)
			}
			args := append([]string{"--capabilities=compute,utility", "--hooks=ldcache"}, c.args...)
			names := hookLibraries(t, publishDriver(t, root, version, args...), c.dir)
			loadable := slices.DeleteFunc(slices.Clone(names), needsMore)
			script := listed(names, c.listed) + loaded("perl", loadable) + c.script
			if c.other == "" {
				script += same
			} else {
				script += "ldconfig\n"
			}
			script += listed(names, c.listed) + loaded("perl", loadable)
			if out := p.run(t, throwaway(merged), []string{"nvidia.com/gpu=0"}, script); out.stdout != "" {
				t.Errorf("of %d names, %d to be loaded:\n%s", len(names), len(loadable), out.stdout)
			}
		})
	}
}

// needsMore says whether a library needs others than the C library, which a
// minimal image lacks.
func needsMore(name string) bool { return strings.Contains(name, "pkcs11") }

// oldDriver puts a library of another driver into a directory that the image's
// loader prefers.
func oldDriver(t *testing.T, root string) {
	t.Helper()
	old, version := driverRoot(t, "535")
	dir := filepath.Join(root, "opt/old")
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(root, "etc/ld.so.conf.d/a-old.conf"), []byte("/opt/old\n"), 0o644),
		command(work, "sh", "-ec", "cp $(find "+old+"/usr/lib/x86_64-linux-gnu -name libcuda.so."+version+" -type f) "+dir),
		command(work, "chroot", root, "ldconfig"))
	if err != nil {
		t.Fatal(err)
	}
}

func TestHookKnows32BitLibraries(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("Debian has 32-bit drivers for amd64 only")
	}
	p := rootful(t, "crun")
	root, version := driverRoot(t, "550")
	for _, layout := range []string{"debian", "private"} {
		t.Run(layout, func(t *testing.T) {
			merged := image(t, requireDebian(t))
			multiarch(t, merged)
			dir, names := "/usr/lib/i386-linux-gnu", "/lib/i386-linux-gnu"
			if layout == "private" {
				dir, names = "/usr/local/nvidia/lib", "/usr/local/nvidia/lib"
			}
			libraries := hookLibraries(t, publishDriver(t, root, version, "--hooks=ldcache", "--library-layout="+layout, "--capabilities=compute,utility,compat32"), dir)
			look := listed(libraries, names)
			if err := exec.Command(filepath.Join(merged, "usr/bin/perl32"), "-e", "1").Run(); errors.Is(err, unix.ENOEXEC) { //nolint:gosec // of the image
				t.Log("this machine's kernel runs no 32-bit programs: no library is loaded")
			} else {
				look = "perl32 -e 'print \"perl32 is not 32-bit\\n\" if length(pack(\"p\", \"\")) != 4'\n" + look + loaded("perl32", libraries)
			}
			script := look + same + look
			if out := p.run(t, throwaway(merged), []string{"nvidia.com/gpu=0"}, script); out.stdout != "" {
				t.Errorf("of %q:\n%s", libraries, out.stdout)
			}
		})
	}
}

// staticBusybox is the path of a busybox that needs no libraries.
func staticBusybox(t *testing.T) string {
	t.Helper()
	requireCommands(t, "busybox")
	program, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		missing(t, program+" is not static: install busybox-static")
	}
	return program
}

// An image that has a static shell and nothing else: there is no loader that could
// be told of libraries, and the container starts all the same.
func TestHookOnAnImageWithoutALoader(t *testing.T) {
	p := rootful(t, "crun")
	busybox := staticBusybox(t)
	root, version := driverRoot(t, "550")
	empty := filepath.Join(workDir(t), "busybox")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	merged := image(t, empty)
	for _, dir := range []string{"bin", "etc", "proc", "sys", "dev", "run", "tmp"} {
		if err := os.Mkdir(filepath.Join(merged, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"busybox", "sh"} {
		if err := command(work, "cp", busybox, filepath.Join(merged, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	publishDriver(t, root, version, "--hooks=ldcache,symlinks,cuda-compat,device-params")
	out := p.run(t, throwaway(merged), []string{"nvidia.com/gpu=all"}, "busybox wc -c < /etc/ld.so.cache; busybox cat /etc/ld.so.conf /etc/ld.so.conf.d/00-cdigen.conf")
	if !regexp.MustCompile(`^\d{4,}\ninclude /etc/ld.so.conf.d/\*.conf\n/usr/lib/x86_64-linux-gnu\n/usr/lib/i386-linux-gnu\n$`).MatchString(out.stdout) {
		t.Errorf("the container printed %q", out.stdout)
	}
}

// An image whose only loader is musl's: it finds what is in the driver's directory,
// here a library that is made for it, as the driver's own are not.
func TestHookTellsMusl(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the test knows the loader's name for amd64")
	}
	p := rootful(t, "crun")
	requireCommands(t, "musl-gcc")
	busybox := staticBusybox(t)
	dir := workDir(t)
	const source = `
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
	puts(dlopen(argv[1], RTLD_NOW) ? "loaded" : dlerror());
}
`
	const edits = "containerEdits:\n  mounts:\n    - {hostPath: %s, containerPath: /usr/local/nvidia/lib64/libtest.so.1, options: [ro, bind]}\n"
	file := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(os.Mkdir(file("base"), 0o755), os.WriteFile(file("load.c"), []byte(source), 0o644), os.WriteFile(file("test.c"), []byte("int test;\n"), 0o644),
		os.WriteFile(file("own.yaml"), fmt.Appendf(nil, edits, file("libtest.so.1")), 0o644),
		command(dir, "musl-gcc", "-o", "load", "load.c"), command(dir, "musl-gcc", "-shared", "-fPIC", "-Wl,-soname,libtest.so.1", "-o", "libtest.so.1", "test.c"))
	if err != nil {
		t.Fatal(err)
	}
	root := image(t, file("base"))
	const loader = "ld-musl-x86_64.so.1"
	for _, d := range []string{"bin", "lib", "etc", "proc", "sys", "dev", "run", "tmp"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(root, d), 0o755))
	}
	err = errors.Join(err, command(dir, "cp", busybox, filepath.Join(root, "bin/sh")), command(dir, "cp", file("load"), filepath.Join(root, "bin/load")),
		command(dir, "cp", "-L", "/lib/"+loader, filepath.Join(root, "lib", loader)))
	if err != nil {
		t.Fatal(err)
	}
	for hooks, want := range map[string]string{"none": "Error loading shared library libtest.so.1: No such file or directory\n", "ldcache": "loaded\n"} {
		publish(t, "--library-layout=private", "--edits="+file("own.yaml"), "--hooks="+hooks)
		if out := p.run(t, throwaway(root), []string{"nvidia.com/gpu=0"}, "/bin/load libtest.so.1; test ! -e /etc/ld.so.cache"); out.stdout != want {
			t.Errorf("--hooks %s: the program printed %q, want %q", hooks, out.stdout, want)
		}
	}
}

// TestHookInAllKindsOfContainers has the hook do its work under each engine's
// settings, of which some restrict what it may do.
func TestHookInAllKindsOfContainers(t *testing.T) {
	look := "ldconfig -p | grep -o 'libcuda.so.* => .*'\nreadlink /dev/dri/by-path/*-card | sort | head -n 1\nstat -c '%u %g' /etc/ld.so.cache\nls -A / /etc /dev | grep cdigen || true\n"
	want := "libcuda.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libcuda.so.1\n../card1\n0 0\n"
	args := []string{"--hooks=ldcache,symlinks,cuda-compat,device-params", "--strict-hook"}
	for _, runtime := range ociRuntimes {
		for name, options := range map[string][]string{
			"plain":      nil,
			"read-only":  {"--read-only"},
			"restricted": {"--cap-drop=all", "--security-opt=no-new-privileges", "--read-only", "--tmpfs=/run", "--ipc=private", "--user=1000:1000"},
			"userns":     {"--userns=auto"},
		} {
			t.Run(runtime+", "+name, func(t *testing.T) {
				p := rootful(t, runtime)
				root := requireDebian(t)
				in, args := throwaway(root), args
				if name == "userns" {
					// The image's files are to be those of the container's root, and the
					// nodes where runc looks for them.
					in = []string{p.imported(t, root)}
					copyNodes(t, simulatedHost(t))
					args = append(args, "--dev-root", "/")
					subordinate(t)
				}
				publish(t, args...)
				out := p.run(t, append(options, in...), []string{"nvidia.com/gpu=all"}, look)
				if out.stdout != want {
					t.Errorf("the container printed\n%s\nwant\n%s%s", out.stdout, want, out.stderr)
				}
			})
		}
	}
	t.Run("rootless", func(t *testing.T) {
		p := rootless(t)
		root := requireDebian(t)
		copyNodes(t, simulatedHost(t))
		publish(t, append(args, "--dev-root", "/")...)
		for _, options := range [][]string{nil, {"--read-only"}} {
			out := p.run(t, append(options, "--cgroups=disabled", p.imported(t, root)), []string{"nvidia.com/gpu=all"}, look)
			if out.stdout != want {
				t.Errorf("%v: the container printed\n%s\nwant\n%s%s", options, out.stdout, want, out.stderr)
			}
		}
	})
}

// subordinate gives podman's --userns=auto numbers to take from.
func subordinate(t *testing.T) {
	t.Helper()
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if err := setEntry(file, "containers:1000000:1000000\n"); err != nil {
			t.Fatal(err)
		}
	}
}

// Directories that are volumes are left alone; a strict hook does not mind either.
func TestHookLeavesVolumesAlone(t *testing.T) {
	p := rootful(t, "crun")
	root := requireDebian(t)
	publish(t, "--hooks=ldcache,symlinks", "--strict-hook")
	volume := filepath.Join(workDir(t), "etc")
	if err := command(work, "cp", "-a", root+"/etc", volume); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(volume, "ld.so.cache"))
	if err != nil {
		t.Fatal(err)
	}
	p.run(t, append([]string{"-v", volume + ":/etc"}, throwaway(root)...), []string{"nvidia.com/gpu=all"}, "test -e /usr/lib/x86_64-linux-gnu/libcuda.so.1")
	after, err := os.ReadFile(filepath.Join(volume, "ld.so.cache"))
	if err != nil || string(after) != string(before) {
		t.Error("the volume was written to", err)
	}
}

// A file system of the host's that is mounted as the container's /dev gets no links,
// unlike the one that the runtime mounts there.
func TestHookLeavesTheHostsFileSystemsAlone(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(runtime, func(t *testing.T) {
			p := rootful(t, runtime)
			publish(t, "--hooks=symlinks", "--strict-hook")
			host := workDir(t)
			if err := mountTmpfs(host, "mode=755"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(host, unix.MNT_DETACH) })
			for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
				if err := command(work, "cp", "-a", "/dev/"+name, host); err != nil { // the runtime makes none there
					t.Fatal(err)
				}
			}
			root := throwaway(requireDebian(t))
			p.run(t, append([]string{"-v", host + ":/dev"}, root...), []string{"nvidia.com/gpu=all"}, "true")
			if _, err := os.Lstat(filepath.Join(host, "dri/by-path")); !errors.Is(err, fs.ErrNotExist) {
				t.Error("links were made in the host's file system", err)
			}
			if out := p.run(t, root, []string{"nvidia.com/gpu=all"}, "readlink /dev/dri/by-path/*-card | head -n 1"); out.stdout != "../card1\n" {
				t.Errorf("in the runtime's /dev the links are %q", out.stdout)
			}
		})
	}
}

// A hook that fails keeps no container from starting, unless it is to.
func TestFailingHook(t *testing.T) {
	p := rootful(t, "crun")
	merged := image(t, requireDebian(t))
	cache := filepath.Join(merged, "etc/ld.so.cache")
	if err := os.WriteFile(cache, []byte("not a cache"), 0o644); err != nil {
		t.Fatal(err)
	}
	publish(t, "--hooks=ldcache")
	p.run(t, throwaway(merged), []string{"nvidia.com/gpu=0"}, "true")
	publish(t, "--hooks=ldcache", "--strict-hook")
	if out, err := p.try(throwaway(merged), []string{"nvidia.com/gpu=0"}, "true"); err == nil {
		t.Error("the container started", fmt.Sprint(out))
	}
}

// The form of nvidia-cdi-hook does the same.
func TestHookInTheFormOfNVIDIA(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(runtime, func(t *testing.T) {
			p := rootful(t, runtime)
			root, version := driverRoot(t, "550")
			s := publishDriver(t, root, version, "--hooks=ldcache,symlinks,cuda-compat,device-params", "--hook-flavor=nvidia", "--library-layout=private", "--capabilities=compute,utility")
			var calls []string
			for _, h := range s.ContainerEdits.Hooks {
				calls = append(calls, h.Args[1])
				if h.Timeout == nil || *h.Timeout < 1 || len(h.Env) == 0 || h.HookName != "createContainer" {
					t.Errorf("hook %+v", h)
				}
			}
			if want := []string{"create-symlinks", "enable-cuda-compat", "update-ldcache", "disable-device-node-modification"}; !slices.Equal(calls, want) {
				t.Errorf("the spec calls %q, want %q", calls, want)
			}
			out := p.run(t, throwaway(requireDebian(t)), []string{"nvidia.com/gpu=0"}, loaded("perl", []string{"libcuda.so.1", "libnvidia-ml.so.1"})+"test -L /usr/local/nvidia/lib64/libcuda.so."+version+"\n"+same)
			if out.stdout != "" {
				t.Errorf("the container printed %s", out.stdout)
			}
		})
	}
}
