package e2e

import (
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/semver"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// packagesVariable asks for the tests of make e2e-packages, which take long.
const packagesVariable = "CDIGEN_E2E_PACKAGES"

// versionsOfPackages are the one that is installed and the one that follows it.
var versionsOfPackages = [2]string{"v0.9.0", "v0.9.1"}

// packages makes all packages of both versions for this architecture, once.
var packages = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(work, "packages")
	for _, version := range versionsOfPackages {
		if err := makePackages(repository(), filepath.Join(dir, version), version); err != nil {
			return "", err
		}
	}
	return dir, nil
})

func makePackages(tree, dir, version string) error {
	return command(tree, "make", "packages", "VERSION="+version, "SOURCE_DATE_EPOCH=1767225600", "ARCHS="+runtime.GOARCH, "PACKAGES="+dir)
}

func requirePackages(t *testing.T) string {
	t.Helper()
	requireNamespace(t)
	dir, err := packages()
	if err != nil {
		missing(t, "no packages: "+err.Error())
	}
	return dir
}

// signedRepository makes the repository of the second version, signed with a key of its own.
var signedRepository = sync.OnceValues(func() (string, error) {
	dir, err := packages()
	if err != nil {
		return "", err
	}
	keys, repo := filepath.Join(work, "gnupg"), filepath.Join(work, "repository")
	if err := os.Mkdir(keys, 0o700); err != nil {
		return "", err
	}
	const key = "cdigen test"
	if err := command(".", "gpg", "--homedir", keys, "--batch", "--passphrase", "", "--quick-generate-key", key, "rsa3072", "sign", "never"); err != nil {
		return "", err
	}
	defer func() { _ = command(".", "gpgconf", "--homedir", keys, "--kill", "gpg-agent") }()
	return repo, command(repository(), "env", "GNUPGHOME="+keys, "make", "repository",
		"PACKAGES="+filepath.Join(dir, versionsOfPackages[1]), "REPOSITORY="+repo, "SIGN_KEY="+key)
})

// packageRoot is a Debian that can boot, with an engine, manual pages and completions.
func packageRoot(suite string) (string, error) {
	packages := "systemd,systemd-sysv,dbus,udev,procps,podman,crun,netavark,man-db,bash-completion"
	if suite == "noble" {
		packages += ",libglib2.0-0t64" // debootstrap does not find it by its old name
	}
	return debootstrap(suite, "-installed", packages)
}

// The packages as users get them, installed, upgraded and removed. All but the first take
// make e2e-packages.
func TestPackages(t *testing.T) {
	for i, system := range []struct {
		name string
		test func(t *testing.T)
	}{
		{"Debian 12", func(t *testing.T) { testDebianPackages(t, "bookworm") }},
		{"Debian 13", func(t *testing.T) { testDebianPackages(t, "trixie") }},
		{"Ubuntu 24.04", func(t *testing.T) { testDebianPackages(t, "noble") }},
		{"tools of other distributions", testOtherPackages},
		{"arm64", testPackagesOfArm64},
	} {
		if i == 0 || os.Getenv(packagesVariable) != "" {
			t.Run(system.name, system.test)
		}
	}
}

// withPackages puts a simulated host, packages and the repository into a machine that has
// no network: /srv/packages has the first version, /srv/next and /srv/repository the second.
func (m *machine) withPackages() {
	t := m.t
	t.Helper()
	dir := requirePackages(t)
	requireCommands(t, "apt-ftparchive", "createrepo_c", "rpmsign", "gpg")
	repo, err := signedRepository()
	check(t, err)
	m.has(hosttest.Load(t, "h100x8"))
	check(t, makeNode(m.path("/srv/kmsg"), unix.Mkdev(1, 11)))
	for _, unit := range []string{"cdigen.service", "cdigen@k8s-device-plugin.service"} {
		m.write("/etc/systemd/system/"+unit+".d/simulated.conf", "[Service]\nEnvironment="+strings.Join(strings.Fields(settings), " ")+"\n")
	}
	check(t, os.Symlink("/dev/null", m.path("/etc/systemd/system/systemd-udev-trigger.service")))
	for to, from := range map[string]string{
		"/srv/packages": filepath.Join(dir, versionsOfPackages[0]), "/srv/next": filepath.Join(dir, versionsOfPackages[1]), "/srv/repository": repo,
	} {
		check(t, os.Mkdir(m.path(to), 0o755))
		check(t, mount(from, m.path(to), "", unix.MS_BIND, ""))
		t.Cleanup(func() { check(t, unix.Unmount(m.path(to), 0)) })
	}
}

func testDebianPackages(t *testing.T, suite string) {
	m := newMachineOn(t, suite, packageRoot)
	m.withPackages()
	check(t, os.WriteFile(m.path("/etc/apt/sources.list"), nil, 0o644))
	m.boot()
	before := m.files()
	t.Run("install", m.testInstall)
	t.Run("upgrade without network", func(t *testing.T) {
		defer m.in(t)()
		if out := m.run("ls", "/sys/class/net"); out != "lo" {
			t.Fatalf("the machine has a network: %s", out)
		}
		m.write("/etc/apt/sources.list", "deb [signed-by=/srv/repository/cdigen.asc] file:/srv/repository/deb ./\n")
		m.apt("update")
		m.changesNothing(func() { m.apt("upgrade") })
	})
	t.Run("disabled", m.testDisabledStaysDisabled)
	t.Run("remove and purge", func(t *testing.T) { m.testPurge(t, before) })
}

// apt runs apt-get, and fails where it would ask.
func (m *machine) apt(args ...string) string {
	m.t.Helper()
	out, err := m.try(append([]string{"sh", "-c", `exec env DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes "$@" 2>&1 </dev/null`, "apt-get"}, args...)...)
	if err != nil {
		m.t.Fatalf("apt-get %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (m *machine) testInstall(t *testing.T) {
	defer m.in(t)()
	m.apt("install", "/srv/packages/cdigen_0.9.0-1_"+runtime.GOARCH+".deb", "/srv/packages/cdigen-nvml_0.9.0-1_"+runtime.GOARCH+".deb")
	for unit, want := range map[string]string{"cdigen.service": "enabled", "cdigen-refresh.service": "disabled", "cdigen-refresh.path": "disabled"} {
		if got, _ := m.try("systemctl", "is-enabled", unit); got != want {
			t.Errorf("%s is %s, not %s", unit, got, want)
		}
	}
	m.until("the service", func() bool { return m.show("cdigen.service", "ActiveState") == "active" })
	if s := m.status(); len(s.Devices) != 17 || s.Probes == 0 {
		t.Errorf("the watcher has %+v", s)
	}

	check(t, os.MkdirAll(m.path("/srv/image/bin"), 0o755))
	check(t, command(".", "cp", "/bin/busybox", m.path("/srv/image/bin/sh")))
	m.write("/etc/containers/containers.conf", "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\npids_limit = 0\n")
	check(t, os.MkdirAll(m.path("/srv/out"), 0o755))
	m.run("podman", "--root=/srv/podman", "--runroot=/run/podman", "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "run", "--rm", "--network=none", "--cgroups=disabled", "--device=nvidia.com/gpu=0",
		"--volume=/srv/out:/out", "--rootfs", "/srv/image", "sh", "-c", "echo /dev/nvidia* >/out/nodes")
	out := m.run("cat", "/srv/out/nodes") // a container that ends at once may have its output lost
	if gpus := regexp.MustCompile(`/dev/nvidia\d`).FindAllString(out, -1); len(gpus) != 1 || !strings.Contains(out, "/dev/nvidiactl") {
		t.Errorf("the container has %s", out)
	}
	if got := m.run("sh", "-c", "MANWIDTH=80 man cdigen-generate"); !strings.Contains(got, "cdigen generate [flags]") {
		t.Errorf("man cdigen-generate:\n%s", got)
	}
	if got := m.run("bash", "-c", `. /usr/share/bash-completion/bash_completion
		_completion_loader cdigen
		COMP_LINE='cdigen gen' COMP_POINT=10 COMP_WORDS=(cdigen gen) COMP_CWORD=1
		"$(complete -p cdigen | sed 's/.* -F \([^ ]*\) .*/\1/')" cdigen gen cdigen
		echo "${COMPREPLY[@]}"`); !strings.Contains(got, "generate") {
		t.Errorf("bash completes cdigen gen to %q", got)
	}
}

// changesNothing has the packages upgraded: neither what engines read nor what the
// administrator has set changes, and watchers that run are replaced by the new program.
func (m *machine) changesNothing(upgrade func()) {
	t := m.t
	t.Helper()
	const changed = "CDIGEN_GRACE=20s\n"
	m.write("/etc/cdigen/cdigen.env", changed)
	units := []string{"cdigen.service", "cdigen@k8s-device-plugin.service"}
	m.run(append([]string{"systemctl", "enable", "--now"}, units...)...)
	spec, err := os.Stat(m.path("/etc/cdi/nvidia.yaml"))
	check(t, err)
	old := map[string]int{}
	for _, unit := range units {
		old[unit] = m.number(unit, "MainPID")
	}
	upgrade()
	for _, unit := range units {
		m.until(unit+" after the upgrade", func() bool { return m.show(unit, "ActiveState") == "active" && m.number(unit, "MainPID") != old[unit] })
	}
	for _, program := range []string{"cdigen", "cdigen-nvml", "cdigen-hook"} {
		if got := m.run(program, "--version"); !strings.Contains(got, versionsOfPackages[1]) {
			t.Errorf("after the upgrade: %s", got)
		}
	}
	if text, err := os.ReadFile(m.path("/etc/cdigen/cdigen.env")); err != nil || string(text) != changed {
		t.Errorf("settings after the upgrade: %v\n%s", err, text)
	}
	if now, err := os.Stat(m.path("/etc/cdi/nvidia.yaml")); err != nil || !os.SameFile(spec, now) {
		t.Errorf("the upgrade replaced the spec: %v", err)
	}
}

func (m *machine) testDisabledStaysDisabled(t *testing.T) {
	defer m.in(t)()
	m.run("systemctl", "disable", "--now", "cdigen.service")
	m.apt("install", "--reinstall", "cdigen")
	if enabled, _ := m.try("systemctl", "is-enabled", "cdigen.service"); enabled != "disabled" {
		t.Errorf("after the second installation it is %s", enabled)
	}
	if state := m.show("cdigen.service", "ActiveState"); state != "inactive" {
		t.Errorf("the disabled service is %s", state)
	}
	m.run("systemctl", "enable", "--now", "cdigen.service")
}

// removes has the packages removed: what engines use stays and is named, and so do changed
// settings. Of all files only some are left.
func (m *machine) removes(before []string, settings string, remove func() string, left ...string) {
	t := m.t
	t.Helper()
	published := m.published()
	if out := remove(); !strings.Contains(out, "/etc/cdi/nvidia.yaml") {
		t.Errorf("the removal does not say that the spec stays:\n%s", out)
	}
	if now := m.published(); now == nil || string(now) != string(published) {
		t.Error("the removal touched the spec")
	}
	if out, err := m.try("pgrep", "cdigen"); err == nil {
		t.Errorf("processes after the removal: %s", out)
	}
	if _, err := os.Stat(m.path(settings)); err != nil {
		t.Errorf("the settings after the removal: %v", err)
	}
	if left != nil {
		m.hasOnly(before, left)
	}
}

// hasOnly compares the machine's files of cdigen that were not there before.
func (m *machine) hasOnly(before, want []string) {
	m.t.Helper()
	var left []string
	for _, file := range m.files() {
		if strings.Contains(file, "cdi") && !slices.Contains(before, file) && !strings.HasPrefix(file, "/srv/") && !strings.HasPrefix(file, "/var/cache/") {
			left = append(left, file)
		}
	}
	if !slices.Equal(left, want) {
		m.t.Errorf("the packages left %v, not %v", left, want)
	}
}

func (m *machine) testPurge(t *testing.T, before []string) {
	defer m.in(t)()
	m.removes(before, "/etc/cdigen/cdigen.env", func() string { return m.apt("remove", "cdigen", "cdigen-nvml") })
	m.apt("purge", "cdigen", "cdigen-nvml")
	m.hasOnly(before, []string{"/etc/cdi/nvidia.yaml"})
}

// sudo make install, where root has no Go.
func TestInstallNeedsNoGo(t *testing.T) {
	requireNamespace(t)
	built, root := workDir(t), workDir(t)
	where := []string{"BIN=" + filepath.Join(built, "bin"), "MANUAL=" + filepath.Join(built, "manual"), "DESTDIR=" + root}
	without := append([]string{"install", "GO=/nonexistent/go"}, where...)
	if err := command(repository(), "make", without...); err == nil || !strings.Contains(err.Error(), "nothing is built") {
		t.Errorf("with nothing built: %v", err)
	}
	check(t, command(repository(), "make", append([]string{"build"}, where...)...))
	check(t, command(repository(), "make", without...))
	for _, file := range []string{"bin/cdigen", "bin/cdigen-nvml", "bin/cdigen-hook", "share/man/man1/cdigen.1", "lib/systemd/system/cdigen.service"} {
		if _, err := os.Stat(filepath.Join(root, "usr/local", file)); err != nil {
			t.Error(err)
		}
	}
}

// Two builds in two places are equal.
func TestPackagesAreReproducible(t *testing.T) {
	first := filepath.Join(requirePackages(t), versionsOfPackages[0])
	tree := elsewhere(t)
	second := filepath.Join(tree, "packages")
	if os.Getenv(packagesVariable) != "" {
		t.Setenv("GOCACHE", filepath.Join(work, "go-cache")) // nothing of the first build
	}
	check(t, makePackages(tree, second, versionsOfPackages[0]))
	for _, dir := range []string{first, second} {
		check(t, command(dir, "sha256sum", "--check", "--strict", "SHA256SUMS"))
	}
	want, err := os.ReadFile(filepath.Join(first, "SHA256SUMS"))
	check(t, err)
	if got, err := os.ReadFile(filepath.Join(second, "SHA256SUMS")); err != nil || string(got) != string(want) {
		t.Errorf("the second build differs: %v\n%s%s", err, want, got)
	}
}

// elsewhere copies the repository to another place.
func elsewhere(t *testing.T) (tree string) {
	t.Helper()
	tree = filepath.Join(workDir(t), "elsewhere")
	check(t, os.Mkdir(tree, 0o755))
	check(t, command(repository(), "sh", "-c", `tar --exclude=./bin --exclude=./build --exclude=./.git -cf - . | tar -C "$0" -xf - && mkdir "$0/build" && cp -rL build/tools "$0/build"`, tree))
	return tree
}

// So are two builds of the image, which is for both architectures, and of the chart.
func TestImagePackagesAreReproducible(t *testing.T) {
	if os.Getenv(packagesVariable) == "" {
		t.Logf("not asked for: %s=all", packagesVariable)
		return
	}
	requireNamespace(t)
	var sums [2]string
	for i, tree := range []string{repository(), elsewhere(t)} {
		dir := filepath.Join(workDir(t), "image")
		check(t, command(tree, "make", "packages", "FORMATS=oci chart", "ARCHS=amd64 arm64", "VERSION=v0.9.0", "SOURCE_DATE_EPOCH=1767225600", "PACKAGES="+dir))
		data, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
		check(t, err)
		sums[i] = string(data)
		index, err := exec.Command("sh", "-c", `cd "$0" && tar -xOf cdigen-0.9.0-oci.tar --wildcards '*/blobs/sha256/*' | grep -ao '"architecture":"[a-z0-9]*"' | sort -u`, dir).Output()
		check(t, err)
		if got := strings.Fields(string(index)); !slices.Equal(got, []string{`"architecture":"amd64"`, `"architecture":"arm64"`}) {
			t.Errorf("the image is for %v", got)
		}
	}
	if sums[0] != sums[1] || !strings.Contains(sums[0], "-oci.tar") {
		t.Errorf("the second build differs:\n%s%s", sums[0], sums[1])
	}
}

// The probe is for systems that are as old as drivers may be: glibc 2.17 is RHEL 7's.
func TestProbeNeedsNoNewGlibc(t *testing.T) {
	dir := requirePackages(t)
	unpacked := workDir(t)
	check(t, command(".", "dpkg-deb", "-x", filepath.Join(dir, versionsOfPackages[0], "cdigen-nvml_0.9.0-1_"+runtime.GOARCH+".deb"), unpacked))
	probe := filepath.Join(unpacked, "usr/bin/cdigen-nvml")
	requireOldGlibc(t, probe)

	suites := []string{"bullseye"} // glibc 2.31, the last but one Debian before 2.34
	if os.Getenv(packagesVariable) != "" {
		suites = append(suites, "xenial") // 2.23
	}
	real, _ := driverRoot(t, "550")
	library := filepath.Join(real, "usr/lib", driverfiles.Triplet(runtime.GOARCH), "nvidia/current/libnvidia-ml.so.1")
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			requireCommands(t, "debootstrap")
			root, err := debootstrap(suite, "", "")
			if err != nil {
				missing(t, "no root file system: "+err.Error())
			}
			layer := image(t, root)
			check(t, command(".", "cp", "-L", probe, library, layer))
			// NVIDIA's library is loaded, and misses the driver.
			out, err := exec.Command("chroot", layer, "/cdigen-nvml", "--library", "/libnvidia-ml.so.1").CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != nvmlprobe.ExitNoDriver {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// requireOldGlibc looks at the versions of the symbols that a program imports.
func requireOldGlibc(t *testing.T, program string) {
	t.Helper()
	f, err := elf.Open(program)
	check(t, err)
	defer f.Close()
	symbols, err := f.ImportedSymbols()
	check(t, err)
	versioned := 0
	for _, s := range symbols {
		version, ok := strings.CutPrefix(s.Version, "GLIBC_")
		if !ok {
			continue
		}
		versioned++
		if semver.Compare("v"+version, "v2.17") > 0 {
			t.Errorf("%s needs %s@%s: cmd/cdigen-nvml/glibc_linux.c must name it", filepath.Base(program), s.Name, s.Version)
		}
	}
	if versioned < 20 {
		t.Errorf("only %d symbols of glibc", versioned)
	}
}

// toolsRoot is a Debian that can boot and has the package tools of other distributions.
func toolsRoot(suite string) (string, error) {
	return debootstrap(suite, "-package-tools", "systemd,systemd-sysv,dbus,udev,procps,lintian,rpm,dnf,rpmlint,pacman-package-manager,selinux-policy-default,policycoreutils,setools,nix-bin,"+
		// What debootstrap does not find by itself: packages that others name by what they provide.
		"perl-openssl-defaults,libdbi-perl,python3-cffi-backend")
}

// A Debian with the tools of other distributions: these know nothing of its own packages,
// so what cdigen-nvml needs comes from a package that is made up.
func testOtherPackages(t *testing.T) {
	m := newMachineOn(t, "trixie", toolsRoot)
	m.withPackages()
	m.boot()
	t.Run("lintian", func(t *testing.T) {
		defer m.in(t)()
		// That the first upload closes a bug is a rule of Debian's own archive.
		if out := m.run("sh", "-c", "lintian --allow-root --fail-on error,warning --suppress-tags hardening-no-pie,initial-upload-closes-no-bugs /srv/packages/*.deb 2>&1 || true"); out != "" {
			t.Error(out)
		}
	})
	t.Run("rpm", m.testRPM)
	t.Run("pacman", m.testPacman)
	t.Run("system extension", m.testSystemExtension)
	t.Run("SELinux", m.testSELinux)
	t.Run("Nix", func(t *testing.T) {
		defer m.in(t)()
		for _, file := range []string{"flake.nix", "packaging/nix/package.nix", "packaging/nix/module.nix"} {
			text, err := os.ReadFile(filepath.Join(repository(), file))
			check(t, err)
			m.write("/srv/nix/"+file, string(text))
			m.run("nix-instantiate", "--parse", "/srv/nix/"+file)
		}
		// Without nixpkgs, of which these are the functions that the flake and the package call.
		m.write("/srv/nix/eval.nix", `let
			lib = {
				genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
				cleanSource = source: source;
				licenses.asl20 = "Apache-2.0";
			};
			nixpkgs = {
				inherit lib;
				legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system: {
					callPackage = file: args: import file ({ inherit lib; buildGoModule = package: package; } // args);
				});
			};
			self = (import ./flake.nix).outputs { inherit self nixpkgs; };
			package = self.packages.aarch64-linux.default;
		in "${package.meta.mainProgram} ${package.version} ${package.buildPhase} ${package.installPhase} ${package.vendorHash}"
		`)
		if out := m.run("nix-instantiate", "--eval", "--strict", "/srv/nix/eval.nix"); !strings.Contains(out, "cdigen devel") || !strings.Contains(out, "VERSION=devel") {
			t.Errorf("the flake's package is %s", out)
		}
	})
}

func (m *machine) testRPM(t *testing.T) {
	defer m.in(t)()
	m.write("/etc/yum.repos.d/cdigen.repo", "[cdigen]\nname=cdigen\nbaseurl=file:///srv/repository/rpm\ngpgkey=file:///srv/repository/cdigen.asc\ngpgcheck=1\nrepo_gpgcheck=1\n")
	m.write("/srv/glibc.spec", "Name: glibc\nVersion: 2.17\nRelease: 1\nSummary: Stands in\nLicense: none\nProvides: libc.so.6(GLIBC_2.17)(64bit)\n%description\nStands in.\n%files\n")
	m.run("sh", "-c", "rpmbuild --quiet -bb --define '_rpmdir /srv' --define '_rpmfilename glibc.rpm' /srv/glibc.spec && rpm --install /srv/glibc.rpm")
	m.run("rpm", "--import", "/srv/repository/cdigen.asc")
	// Those of the repository are signed. The programs are static on purpose, and nfpm cannot
	// mark as documentation what it finds by a pattern.
	expected := regexp.MustCompile("statically-linked-binary|spelling-error|not-listed-as-documentation")
	for _, line := range strings.Split(m.run("sh", "-c", "rpmlint /srv/repository/rpm/*.rpm 2>&1 || true"), "\n") {
		if strings.Contains(line, ": E: ") && !expected.MatchString(line) {
			t.Error(line)
		}
	}
	before := m.files()
	m.run("sh", "-c", "rpm --install /srv/packages/cdigen-0*.rpm /srv/packages/cdigen-nvml-0*.rpm")
	// What the presets say is enabled; nothing is started.
	if got, _ := m.try("systemctl", "is-enabled", "cdigen.service"); got != "enabled" {
		t.Errorf("cdigen.service is %s", got)
	}
	if got := m.show("cdigen.service", "ActiveState"); got != "inactive" {
		t.Errorf("cdigen.service is %s", got)
	}
	m.run("systemctl", "start", "cdigen.service")
	m.changesNothing(func() { m.run("dnf", "--assumeyes", "--quiet", "upgrade", "cdigen", "cdigen-nvml") })
	m.removes(before, "/etc/cdigen/cdigen.env.rpmsave", func() string { return m.run("sh", "-c", "dnf --assumeyes remove cdigen cdigen-nvml 2>&1") },
		"/etc/cdi/nvidia.yaml", "/etc/cdigen/cdigen.env.rpmsave")
}

func (m *machine) testPacman(t *testing.T) {
	defer m.in(t)()
	m.run("rm", "-f", "/etc/cdi/nvidia.yaml")
	before := m.files()
	m.write("/etc/pacman.conf", "[options]\nArchitecture = auto\nSigLevel = Never\nLocalFileSigLevel = Never\n")
	m.run("ln", "-sf", "bash", "/bin/sh") // as on Arch; its scripts are bash's
	pacman := "pacman --noconfirm --assume-installed glibc=2.40 "
	m.run("sh", "-c", pacman+"-U /srv/packages/*.pkg.tar.zst")
	// Arch enables nothing.
	m.run("systemctl", "enable", "--now", "cdigen.service")
	m.changesNothing(func() { m.run("sh", "-c", pacman+"-U /srv/next/*.pkg.tar.zst") })
	m.removes(before, "/etc/cdigen/cdigen.env.pacsave", func() string { return m.run("sh", "-c", pacman+"-R cdigen cdigen-nvml 2>&1") },
		"/etc/cdi/nvidia.yaml", "/etc/cdigen/cdigen.env.pacsave")
}

// The commands of docs/install.md, but for the squashfs: a directory will do.
func (m *machine) testSystemExtension(t *testing.T) {
	defer m.in(t)()
	page, err := os.ReadFile(filepath.Join(repository(), "docs/install.md"))
	check(t, err)
	commands := regexp.MustCompile("(?s)```sh\n(mkdir -p cdigen/usr/lib/extension-release.d.*?)mksquashfs").FindSubmatch(page)
	if commands == nil {
		t.Fatal("docs/install.md has no system extension")
	}
	m.run("sh", "-ec", "mkdir -p /var/lib/extensions && cd /var/lib/extensions && cp /srv/packages/*.deb . && "+string(commands[1])+" rm *.deb")
	m.run("systemctl", "start", "systemd-sysext")
	m.until("the service", func() bool { return m.show("cdigen.service", "ActiveState") == "active" })
	if n := len(m.status().Devices); n != 17 {
		t.Errorf("the watcher has %d devices", n)
	}
	m.run("systemctl", "stop", "cdigen")
	m.run("rm", "-r", "/var/lib/extensions/cdigen")
	m.run("systemctl", "restart", "systemd-sysext")
}

// The module compiles against a real policy and allows what that does not.
func (m *machine) testSELinux(t *testing.T) {
	defer m.in(t)()
	check(t, command(repository(), "cp", "packaging/selinux/cdigen.cil", m.path("/srv")))
	allowed := func(kind, class, permissions string) bool {
		return m.run("sh", "-c", "sesearch --allow --source container_t --target "+kind+" --class "+class+" --perm "+permissions+" /etc/selinux/default/policy/policy.*") != ""
	}
	for _, kind := range []string{"lib_t", "textrel_shlib_t"} {
		if !allowed(kind, "file", "read,map,execute") {
			t.Errorf("container_t may not load libraries (%s): the module lacks a rule", kind)
		}
	}
	if allowed("xserver_misc_device_t", "chr_file", "ioctl,open,read,write") {
		t.Error("container_t may use the driver's nodes without the module")
	}
	m.run("semodule", "--noreload", "--store", "default", "--install", "/srv/cdigen.cil")
	if !allowed("xserver_misc_device_t", "chr_file", "ioctl,open,read,write") {
		t.Error("container_t may not use the driver's nodes with the module")
	}
	if out := m.run("matchpathcon", "-n", "-f", "/etc/selinux/default/contexts/files/file_contexts", "/usr/share/cdigen/lxc/nvidia"); !strings.Contains(out, ":bin_t:") {
		t.Errorf("LXC's hook is labelled %s", out)
	}
}

// The other architecture: linked by a cross compiler, run once by qemu.
func testPackagesOfArm64(t *testing.T) {
	requireNamespace(t)
	requireCommands(t, "aarch64-linux-gnu-gcc")
	dir := filepath.Join(workDir(t), "packages")
	check(t, command(repository(), "make", "packages", "VERSION=v0.9.0", "ARCHS=arm64", "FORMATS=deb rpm archlinux apk", "PACKAGES="+dir))
	unpacked := workDir(t)
	for _, name := range []string{"cdigen", "cdigen-nvml"} {
		check(t, command(".", "dpkg-deb", "-x", filepath.Join(dir, name+"_0.9.0-1_arm64.deb"), unpacked))
	}
	requireOldGlibc(t, filepath.Join(unpacked, "usr/bin/cdigen-nvml"))
	qemu := workDir(t)
	check(t, command(".", "sh", "-c", "dpkg-deb -x "+downloaded(t, "qemu", []string{"qemu-user-static"})+"/qemu-user-static_*.deb "+qemu))
	for _, program := range []string{"cdigen", "cdigen-nvml", "cdigen-hook"} {
		out, err := exec.Command(filepath.Join(qemu, "usr/bin/qemu-aarch64-static"), "-L", "/usr/aarch64-linux-gnu", filepath.Join(unpacked, "usr/bin", program), "--version").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "v0.9.0") {
			t.Errorf("%s --version: %v\n%s", program, err, out)
		}
	}
}
