package edits

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/elfstub"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// driverPackages are the files that a distribution's packages of a driver have.
type driverPackages struct {
	version, distribution string
	files                 []string
}

func readDriverPackages(t *testing.T) (list []driverPackages) {
	t.Helper()
	data, err := os.ReadFile(hosttest.Path("driver-files.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "= "):
			version, distribution, _ := strings.Cut(line[2:], " ")
			distribution, _, _ = strings.Cut(distribution, ",")
			list = append(list, driverPackages{version: version, distribution: distribution})
		case line != "" && !strings.HasPrefix(line, "#"):
			p := &list[len(list)-1]
			p.files = append(p.files, line)
		}
	}
	for _, series := range []string{"570", "575", "580", "590"} {
		if !slices.ContainsFunc(list, func(p driverPackages) bool { return strings.HasPrefix(p.version, series+".") && len(p.files) > 80 }) {
			t.Fatalf("the list of the driver's files has none of %s", series)
		}
	}
	return list
}

// end is the file that a name is a link to; empty: it is a file itself.
func (p *driverPackages) end(name string) string {
	dir, base := path.Split(name)
	if strings.HasPrefix(dir, "/usr/libexec/") {
		return "/usr/bin/" + base
	}
	if base == "nvidia-drm_gbm.so" {
		return path.Join(dir, "..", "libnvidia-allocator.so."+p.version)
	}
	stem, _, ok := strings.Cut(base, ".so")
	if !ok || !strings.HasPrefix(base, "lib") {
		return ""
	}
	// Of the names of one library the longest is the file's.
	end := name
	for _, other := range p.files {
		if strings.HasPrefix(other, dir+stem+".so") && len(other) > len(end) && (strings.HasSuffix(other, "."+p.version) || strings.HasPrefix(other, name+".")) {
			end = other
		}
	}
	if end == name || strings.HasSuffix(name, "."+p.version) {
		return ""
	}
	return end
}

// install makes the files and links, libraries with the SONAME that one of their links has.
func (p *driverPackages) install(t *testing.T, root string) {
	t.Helper()
	// As in all of these distributions.
	for _, dir := range []string{"lib", "sbin"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	sonames := map[string]string{}
	numbered := regexp.MustCompile(`\.so\.\d+$`)
	for _, name := range p.files {
		if end := p.end(name); end != "" && numbered.MatchString(name) {
			sonames[end] = path.Base(name)
		}
	}
	for _, name := range p.files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		end := p.end(name)
		if end != "" {
			if err := os.Symlink(end, file); err != nil {
				t.Fatal(err)
			}
			continue
		}
		content := "{}\n"
		switch base := path.Base(name); {
		case strings.HasPrefix(base, "lib") && strings.Contains(base, ".so"):
			arch := "amd64"
			if strings.Contains(name, "/i386-linux-gnu/") {
				arch = "386"
			}
			soname := sonames[name]
			if soname == "" {
				soname = base
			}
			content = string(elfstub.SharedObject(arch, soname))
		case strings.HasSuffix(base, ".icd"):
			content = "libnvidia-opencl.so.1\n"
		case strings.HasSuffix(base, ".json"):
			content = `{"ICD": {"library_path": "libGLX_nvidia.so.0"}}`
		}
		if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// discover finds the driver on a host that has the packages.
func (p *driverPackages) discover(t *testing.T) *discover.Inventory {
	t.Helper()
	d := hosttest.Load(t, "two-gpus")
	d.Driver.Version = p.version
	host := hosttest.Open(t, d, t.TempDir())
	root := t.TempDir()
	p.install(t, root)
	host.Driver = hosttree.NewTree("/", os.DirFS(root))
	return hosttest.Discover(t, host, nil)
}

// notForContainers are names of the driver's packages that no container gets and no
// finding tells of, with the reason.
var notForContainers = []struct{ name, reason string }{
	{"/etc/modprobe.d/", "for loading the host's kernel modules"},
	{"/lib/modprobe.d/", "for loading the host's kernel modules"},
	{"/lib/systemd/", "services of the host"},
	{"/lib/udev/", "for the host's device nodes"},
	{"/sbin/ub-device-create", "for the host's device nodes"},
	{"/usr/lib/systemd/", "services of the host"},
	{"/usr/lib/sysusers.d/", "services of the host"},
	{"/usr/lib/tmpfiles.d/", "services of the host"},
	{"/usr/lib/nvidia/alternate-install-present", "for NVIDIA's installer on the host"},
	{"/usr/share/dbus-1/", "services of the host"},
	{"/usr/share/factory/", "configuration of the host"},
	{"/usr/share/initramfs-tools/", "for the host's boot"},
	{"/usr/share/man/", "documentation"},
	{"/usr/share/metainfo/", "for installing the driver on the host"},
	{"/usr/share/nvidia/tesla/module-objects.d/", "for building the host's kernel modules"},
	{"/usr/share/nvidia/tesla/nvswitch/", "for the fabric manager of the host"},
	{"/usr/share/pixmaps/", "for installing the driver on the host"},
}

func TestEveryFileOfNewDriversGoesInOrIsLeftOutWithAReason(t *testing.T) {
	linking := regexp.MustCompile(`/lib[^/]+\.so$`)
	for _, p := range readDriverPackages(t) {
		t.Run(p.distribution+" "+p.version, func(t *testing.T) {
			inv := p.discover(t)
			e := Common(inv, Options{Layout: "auto"})
			for _, name := range p.files {
				file := name
				if end := p.end(name); end != "" {
					file = end
				}
				mounted := targets(e, strings.TrimPrefix(file, "/"))
				named := slices.ContainsFunc(mounted, func(target string) bool { return path.Base(target) == path.Base(name) })
				switch {
				case named, file == name && len(mounted) > 0:
				case len(mounted) > 0 && linking.MatchString(name):
					// A name for building programs: they run with the SONAME.
				case slices.ContainsFunc(inv.Findings, func(f discover.Finding) bool { return f.Subject == name || f.Subject == file }):
				case slices.ContainsFunc(notForContainers, func(n struct{ name, reason string }) bool { return strings.HasPrefix(name, n.name) }):
				default:
					t.Errorf("%s is not in containers, and nothing says why (its file is there as %q)", name, mounted)
				}
			}
			for _, f := range inv.Findings {
				if f.Severity != discover.Note {
					t.Errorf("%s %s: %s", f.ID, f.Subject, f.Message)
				}
			}
		})
	}
}
