package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/findings"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/specdir"
)

// The tests of the command break machines and fix them; here is what they do not cover.

// bed has a snapshot of a simulated host, whose programs are those named.
type bed struct {
	*Snapshot
	Sources
	dir      string
	programs []string
}

func newBed(t *testing.T, name string, change func(dir string)) *bed {
	t.Helper()
	d := hosttest.Load(t, name)
	dir := t.TempDir()
	if err := d.Build(dir, simhost.Options{}); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(dir)
	}
	host := hosttest.Reopen(t, d, dir)
	b := &bed{dir: dir}
	directories := specdir.ReadDirectories([]string{filepath.Join(dir, "etc/cdi")})
	inv, err := discover.Run(t.Context(), host, discover.Options{Probe: d.Probe()})
	if err != nil {
		t.Fatal(err)
	}
	b.Sources = Sources{
		Root: hosttree.NewTree("/", os.DirFS(dir)),
		Run:  func(context.Context, string, ...string) ([]byte, error) { return nil, errors.New("nothing runs here") },
		Find: func(program string) (string, error) {
			if slices.Contains(b.programs, program) {
				return "/usr/bin/" + program, nil
			}
			return "", os.ErrNotExist
		},
		Hook: func(string) error { return nil },
	}
	published := filepath.Join(dir, "etc/cdi/nvidia.yaml")
	b.Snapshot = &Snapshot{
		Target: Target{
			Unit: Unit(""), SpecDirs: []string{filepath.Join(dir, "etc/cdi")},
			Older: func(string) (int, error) { return 0, errors.New("it cannot be older") },
			Command: func(args ...string) string {
				return "cdigen " + strings.Join(args, " ")
			},
		},
		Wanted: Wanted{Spec: published, Kind: "nvidia.com/gpu", Published: directories.File(published)},
		Host:   host, Inventory: inv, Directories: directories,
	}
	return b
}

// look looks at the host as it is now, and judges it.
func (b *bed) look(t *testing.T, judge func(*Snapshot) []discover.Finding) []Report {
	t.Helper()
	b.Directories = specdir.ReadDirectories(b.SpecDirs)
	b.Published = b.Directories.File(b.Spec)
	b.Look(b.Sources, b.Published)
	b.LookAtSystem(t.Context(), b.Sources)
	return Reports(b.Snapshot, judge(b.Snapshot))
}

// find is the first report of an ID.
func find(list []Report, id discover.ID) *Report {
	if i := slices.IndexFunc(list, func(r Report) bool { return r.ID == id }); i >= 0 {
		return &list[i]
	}
	return nil
}

func (b *bed) examine(t *testing.T) []Report {
	t.Helper()
	list := b.look(t, All)
	if why := b.Inventory.NoGPU(); why != "" {
		t.Fatal(why)
	}
	return list
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// bind gives a PCI device of a simulated host to a kernel driver; "" takes it away.
func bind(t *testing.T, dir, pci, driver string) {
	t.Helper()
	link := filepath.Join(dir, "sys/devices/pci0000:00", pci, "driver")
	if err := os.RemoveAll(link); err != nil {
		t.Fatal(err)
	}
	if driver == "" {
		return
	}
	if err := os.MkdirAll(filepath.Join(dir, "sys/bus/pci/drivers", driver), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../bus/pci/drivers/"+driver, link); err != nil {
		t.Fatal(err)
	}
}

func TestDriverIsInstalledAsTheDistributionDoes(t *testing.T) {
	for release, want := range map[string]string{
		"ID=ubuntu\nID_LIKE=debian\n":                       "apt-get install ubuntu-drivers-common; ubuntu-drivers install",
		"ID=debian\n":                                       "apt-get install linux-headers-amd64 nvidia-driver",
		"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n":         "apt-get install ubuntu-drivers-common; ubuntu-drivers install",
		"ID=fedora\n":                                       "dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda; akmods --force",
		"ID=arch\n":                                         "pacman -S nvidia-open nvidia-utils",
		"ID=manjaro\nID_LIKE=arch\n":                        "",
		"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n":    "",
		"ID=\"amzn\"\nID_LIKE=\"fedora\"\n":                 "",
		"ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n": "",
		"ID=nixos\n":                                        "",
		"NAME=nothing of use\n":                             "",
	} {
		b := newBed(t, "no-driver", func(dir string) { write(t, filepath.Join(dir, "etc/os-release"), release) })
		c := find(b.examine(t), "driver-not-loaded")
		if c == nil {
			t.Fatalf("%q: no finding", release)
		}
		if got := strings.Join(c.Fix.Commands, "; "); got != want && got != want+"; systemctl reboot" || want == "" && c.Fix.Note == "" {
			t.Errorf("%q: %q, want %q (advice %q)", release, got, want, c.Fix.Note)
		}
	}
}

func TestPackagesFitTheKernelAndItsModule(t *testing.T) {
	for _, c := range []struct{ release, kernel, module, driver, libraries string }{
		{"ID=debian\n", "6.1.0-13-cloud-amd64", "updates/dkms/nvidia-current.ko:\n", "apt-get install linux-headers-cloud-amd64 nvidia-driver", "apt-get install nvidia-driver"},
		{"ID=debian\n", "6.12.57+deb13-amd64", "updates/dkms/nvidia.ko:\n", "apt-get install linux-headers-amd64 nvidia-driver", ""},
		{"ID=debian\n", "6.10.11+bpo-arm64", "", "apt-get install linux-headers-arm64 nvidia-driver", ""},
		{"ID=debian\n", "6.8.12-4-pve", "", "apt-get install nvidia-driver", ""},
		{"ID=ubuntu\n", "6.8.0-45-generic", "", "ubuntu-drivers install", "ubuntu-drivers install nvidia:550"},
		{"ID=fedora\n", "6.17.1-300.fc43.x86_64", "", "dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda; akmods --force", "dnf install xorg-x11-drv-nvidia-cuda"},
		{"ID=arch\n", "6.17.1-arch1-1", "", "pacman -S nvidia-open nvidia-utils", "pacman -S nvidia-utils"},
		{"ID=nixos\n", "6.12.1", "", "", ""},
	} {
		prepare := func(module string) func(dir string) {
			return func(dir string) {
				write(t, filepath.Join(dir, "etc/os-release"), c.release)
				write(t, filepath.Join(dir, "proc/sys/kernel/osrelease"), c.kernel+"\n")
				write(t, filepath.Join(dir, "lib/modules", c.kernel, "modules.dep"), module)
			}
		}
		b := newBed(t, "no-driver", prepare(""))
		b.programs = []string{"ubuntu-drivers"}
		want := c.driver
		if want != "" {
			want += "; systemctl reboot"
		}
		if r := find(b.examine(t), "driver-not-loaded"); r == nil || strings.Join(r.Fix.Commands, "; ") != want || r.Fix.Note == "" && c.release != "ID=ubuntu\n" {
			t.Errorf("%s%s, driver: %+v, want %q", c.release, c.kernel, r, want)
		}
		b = newBed(t, "two-gpus", prepare(c.module))
		b.programs = []string{"ubuntu-drivers"}
		b.Inventory.Libraries = nil
		if r := find(b.examine(t), "driver-libraries-missing"); r == nil || strings.Join(r.Fix.Commands, "; ") != c.libraries || !strings.Contains(r.Fix.Note, "--driver-root") {
			t.Errorf("%s%s, libraries: %+v, want %q", c.release, c.kernel, r, c.libraries)
		}
	}
}

func TestImagesAreNotChangedByPackageManagers(t *testing.T) {
	for _, installed := range []bool{false, true} {
		b := newBed(t, "nouveau", func(dir string) {
			write(t, filepath.Join(dir, "etc/os-release"), "ID=fedora\nVARIANT_ID=silverblue\n")
			write(t, filepath.Join(dir, "run/ostree-booted"), "")
			if installed {
				write(t, filepath.Join(dir, "proc/sys/kernel/osrelease"), "6.1\n")
				write(t, filepath.Join(dir, "lib/modules/6.1/modules.dep"), "extra/nvidia/nvidia.ko.xz:\n")
			}
		})
		b.programs = []string{"dracut", "dnf"}
		c := find(b.examine(t), "driver-not-loaded")
		want := ""
		if installed {
			want = "rpm-ostree kargs --append=rd.driver.blacklist=nouveau --append=modprobe.blacklist=nouveau; systemctl reboot"
		}
		if got := strings.Join(c.Fix.Commands, "; "); got != want || !installed && !strings.Contains(c.Fix.Note, "rpm-ostree") {
			t.Errorf("installed %v: %q (advice %q)", installed, got, c.Fix.Note)
		}
	}
}

func TestDriverContainers(t *testing.T) {
	// The libraries are there, but nobody said so.
	b := newBed(t, "driver-container", nil)
	b.Inventory.Libraries = nil
	b.Host.Driver, b.Settings = b.Root, "/etc/cdigen/cdigen.env"
	c := find(b.examine(t), "driver-root")
	if c == nil || len(c.Fix.Commands) != 2 || !strings.Contains(c.Fix.Commands[0], "CDIGEN_DRIVER_ROOT=/run/nvidia/driver") || c.Fix.Commands[1] != "cdigen generate --driver-root=/run/nvidia/driver" {
		t.Errorf("%+v", c)
	}
	// They are expected there, and not there yet.
	b = newBed(t, "two-gpus", nil)
	b.Inventory.Libraries = nil
	b.Host.Driver = hosttree.DirTree(filepath.Join(b.dir, "run/nvidia/driver"))
	if c := find(b.examine(t), "driver-root-missing"); c == nil || len(c.Fix.Commands) > 0 {
		t.Errorf("%+v", c)
	}
	b = newBed(t, "no-driver", nil)
	b.Host.Driver = hosttree.DirTree(filepath.Join(b.dir, "run/nvidia/driver"))
	if c := find(b.examine(t), "driver-not-loaded"); c == nil || len(c.Fix.Commands) > 0 || !strings.Contains(c.Fix.Note, "driver container") {
		t.Errorf("%+v", c)
	}
}

func TestMachinesWithoutAGPUForContainers(t *testing.T) {
	for host, want := range map[string]string{"wsl": "", "tegra-orin": "", "tegra-no-lists": "Tegra", "no-gpu": "none of its 4 PCI devices is one", "tegra-discrete": ""} {
		b := newBed(t, host, nil)
		if why := b.Inventory.NoGPU(); (want == "") != (why == "") || !strings.Contains(why, want) {
			t.Errorf("%s: %q, want %q", host, why, want)
		}
	}
}

func TestHiddenDriverModulesAreFound(t *testing.T) {
	for line, want := range map[string]bool{
		"kernel/drivers/video/nvidia.ko.xz: kernel/a.ko\n":                              true,
		"updates/dkms/nvidia-current.ko:\n":                                             true,
		"extra/nvidia-current-open.ko.zst:\n":                                           true,
		"updates/nvidia_current.ko:\n":                                                  true,
		"kernel/drivers/usb/typec/altmodes/typec_nvidia.ko: kernel/drivers/nvidia.ko\n": false,
		"updates/dkms/nvidia-drm.ko:\n":                                                 false,
	} {
		b := newBed(t, "no-driver", func(dir string) {
			write(t, filepath.Join(dir, "proc/sys/kernel/osrelease"), "6.1\n")
			write(t, filepath.Join(dir, "lib/modules/6.1/modules.dep"), line)
		})
		if got := b.moduleFile(b.Host, "6.1") != ""; got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}

func TestGPUsOfVirtualMachinesAreNoComplaint(t *testing.T) {
	b := newBed(t, "no-driver", func(dir string) {
		bind(t, dir, "0000:1b:00.0", "vfio-pci")
		bind(t, dir, "0000:43:00.0", "vfio-pci")
	})
	if why := b.Inventory.NoGPU(); !strings.Contains(why, "all 2 are set aside for virtual machines (vfio-pci)") {
		t.Errorf("all of them: %q", why)
	}
	for driver, want := range map[string]string{"vfio-pci": "note gpu-passthrough", "nouveau": "note gpu-other-driver", "": "warning gpu-unbound", "(override)": "note gpu-passthrough"} {
		b := newBed(t, "two-gpus", func(dir string) {
			if driver == "(override)" {
				driver = ""
				write(t, filepath.Join(dir, "sys/devices/pci0000:00/0000:43:00.0/driver_override"), "vfio-pci\n")
			}
			bind(t, dir, "0000:43:00.0", driver)
			if err := os.RemoveAll(filepath.Join(dir, "proc/driver/nvidia/gpus/0000:43:00.0")); err != nil {
				t.Fatal(err)
			}
		})
		if list := b.look(t, gpus); len(list) != 1 || string(list[0].Severity)+" "+string(list[0].ID) != want {
			t.Errorf("one of them bound to %q: %+v, want %s", driver, list, want)
		}
	}
}

func TestLoadedDriverWithoutGPU(t *testing.T) {
	b := newBed(t, "two-gpus", func(dir string) {
		for _, name := range []string{"proc/driver/nvidia/gpus", "sys/bus/pci/devices"} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	})
	if why := b.Inventory.NoGPU(); !strings.Contains(why, "though the driver 550.54.15 is loaded") {
		t.Errorf("%q", why)
	}
}

func TestNodesThatCannotBeKnown(t *testing.T) {
	b := newBed(t, "two-gpus", func(dir string) { write(t, filepath.Join(dir, "proc/devices"), "nothing of use\n") })
	if r := find(b.look(t, All), discover.NodesUnknown); r == nil || r.Severity != discover.Warning || r.Subject != "/proc/devices" {
		t.Errorf("without the driver's numbers: %+v", r)
	}
}

func TestFindingsThatNoCheckKnowsAreReported(t *testing.T) {
	b := newBed(t, "two-gpus", nil)
	b.Inventory.Findings = []discover.Finding{
		{ID: discover.NVMLTimeout, Subject: "NVML", Severity: discover.Warning, Message: "it hangs"},
		{ID: discover.LibraryUnreadable, Subject: "libcuda.so.1", Severity: discover.Broken, Message: "gone"},
		{ID: discover.NodeMissing, Subject: "/dev/nvidia0", Severity: discover.Broken, Message: "reported once"},
		{ID: discover.NodeMissing, Subject: "/dev/nvidia0", Severity: discover.Note, Message: "reported once"},
		{ID: discover.FileMissing, Subject: "nvidia-imex", Severity: discover.Note, Message: "not found"},
	}
	list := findings.Sorted(serious(b.Snapshot))
	if len(list) != 3 || list[0].ID != discover.LibraryUnreadable || list[1].ID != discover.NodeMissing || list[2].ID != discover.NVMLTimeout {
		t.Errorf("%+v", list)
	}
}

func TestHybridControlGroupsAndHowToEndThem(t *testing.T) {
	const argument = "systemd.unified_cgroup_hierarchy=1"
	for program, want := range map[string]string{"grubby": "grubby --update-kernel=ALL --args=" + argument, "update-grub": "sh -c", "": ""} {
		b := newBed(t, "two-gpus", func(dir string) {
			write(t, filepath.Join(dir, "proc/7/mountinfo"), "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n31 23 0:27 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n")
			write(t, filepath.Join(dir, "sys/fs/cgroup/unified/cgroup.controllers"), "hugetlb\n")
			if err := os.Symlink("7", filepath.Join(dir, "proc/self")); err != nil {
				t.Fatal(err)
			}
		})
		b.Host.Proc.Path = filepath.Join(b.dir, "proc")
		b.programs = []string{"crun", program}
		c := find(b.look(t, cgroups), "cgroup-hybrid")
		if c == nil || c.Fix.Note == "" {
			t.Fatalf("%+v", c)
		}
		if got := strings.Join(c.Fix.Commands, "; "); want == "" && got != "" || !strings.HasPrefix(got, want) {
			t.Errorf("with %q: %q", program, got)
		}
		b.programs = nil
		if list := b.look(t, cgroups); len(list) > 0 {
			t.Errorf("without crun: %+v", list)
		}
	}
}

// A hierarchy of version 1 beside version 2 does no harm: VPN programs mount net_cls so.
func TestControlGroupsOfVersion2WithAnotherHierarchy(t *testing.T) {
	b := newBed(t, "two-gpus", func(dir string) {
		write(t, filepath.Join(dir, "proc/7/mountinfo"), "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n31 23 0:27 / /run/net_cls rw - cgroup cgroup rw,net_cls\n")
		write(t, filepath.Join(dir, "sys/fs/cgroup/cgroup.controllers"), "cpu memory\n")
		if err := os.Symlink("7", filepath.Join(dir, "proc/self")); err != nil {
			t.Fatal(err)
		}
	})
	b.Host.Proc.Path = filepath.Join(b.dir, "proc")
	b.programs = []string{"crun", "update-grub"}
	if list := b.look(t, cgroups); len(list) > 0 {
		t.Errorf("%+v", list)
	}
}

func TestSELinuxKnowsSeveralBooleans(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // boolean to set; empty: no finding
	}{
		{"permissive", map[string]string{"enforce": "0", "booleans/container_use_devices": "0 0"}, ""},
		{"one is on", map[string]string{"enforce": "1", "booleans/container_use_devices": "1 1", "booleans/container_use_xserver_devices": "0 0"}, ""},
		{"none is on", map[string]string{"enforce": "1", "booleans/container_use_devices": "0 0", "booleans/container_use_xserver_devices": "0 0"}, "container_use_xserver_devices"},
		{"an older policy", map[string]string{"enforce": "1", "booleans/container_use_devices": "0 0"}, "container_use_devices"},
		{"no policy for containers", map[string]string{"enforce": "1"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, "two-gpus", func(dir string) {
				for name, text := range c.files {
					write(t, filepath.Join(dir, "sys/fs/selinux", name), text)
				}
			})
			b.Engines = []runtimes.Engine{{Name: runtimes.Docker, CDI: runtimes.On}}
			if list := b.look(t, seLinux); c.want != "" && (len(list) != 1 || list[0].Severity != discover.Note) {
				t.Errorf("with Docker alone, which confines nothing by itself: %+v", list)
			}
			b.Engines = append(b.Engines, runtimes.Engine{Name: runtimes.Podman, CDI: runtimes.Always})
			list := b.look(t, seLinux)
			if c.want == "" && len(list) > 0 || c.want != "" && (len(list) != 1 || list[0].Severity != discover.Broken || list[0].Fix.Commands[0] != "setsebool -P "+c.want+"=true") {
				t.Errorf("%+v", list)
			}
		})
	}
}

func TestWatcherThatFailsAndSystemsWithoutSystemd(t *testing.T) {
	b := newBed(t, "two-gpus", nil)
	if list := b.look(t, watcher); len(list) != 1 || list[0].Severity != discover.Note {
		t.Errorf("without systemd: %+v", list)
	}
	b.Watcher = &Watcher{Error: "disk full"}
	if c := find(b.look(t, watcher), "watcher-failing"); c == nil || c.Message != "disk full" {
		t.Errorf("%+v", c)
	}
	b.Watcher = &Watcher{Current: true}
	if list := b.look(t, watcher); len(list) > 0 {
		t.Errorf("one that works: %+v", list)
	}
	// A unit that is not installed: something that works all the same.
	b = newBed(t, "two-gpus", func(dir string) {
		if err := os.MkdirAll(filepath.Join(dir, "run/systemd/system"), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	b.programs = []string{"systemctl"}
	if c := find(b.look(t, watcher), "watcher-not-running"); c == nil || !strings.HasPrefix(c.Fix.Commands[0], "systemd-run --unit=cdigen ") {
		t.Errorf("%+v", c)
	}
}

func TestEngines(t *testing.T) {
	for _, c := range []struct {
		name     string
		engines  []runtimes.Engine
		programs []string
		want     []string // severity and ID of each
	}{
		{"that work", []runtimes.Engine{{Name: runtimes.Podman, Version: "5.4.2", CDI: runtimes.Always}, {Name: runtimes.Apptainer, Version: "1.5.0", CDI: runtimes.Always}}, nil, nil},
		{"that nobody uses", []runtimes.Engine{{Name: runtimes.Containerd, Version: "1.7.24", CDI: runtimes.Unused}}, nil, nil},
		{"that do not answer", []runtimes.Engine{{Name: runtimes.Podman, CDI: runtimes.Unknown, Err: &runtimes.Error{Message: "no answer"}}}, nil, []string{"warning engine-unknown"}},
		{"containerd for Docker only", []runtimes.Engine{{Name: runtimes.Docker, Version: "28.5.2", CDI: runtimes.On}, {Name: runtimes.Containerd, Version: "1.7.24", CDI: runtimes.Off}}, []string{"nvidia-container-runtime-hook"}, []string{"note containerd-cri-off"}},
		{"containerd too old, for Docker only", []runtimes.Engine{{Name: runtimes.Docker, Version: "28.5.2", CDI: runtimes.On}, {Name: runtimes.Containerd, Version: "1.6.33", CDI: runtimes.None}}, []string{"nvidia-container-runtime-hook"}, []string{"note engine-without-cdi"}},
		{"containerd for nerdctl", []runtimes.Engine{{Name: runtimes.Containerd, Version: "1.7.27", CDI: runtimes.Off}, {Name: runtimes.Nerdctl, Version: "2.1.2", CDI: runtimes.Always}}, nil, []string{"note containerd-cri-off"}},
		{"buildah too old beside podman", []runtimes.Engine{{Name: runtimes.Podman, Version: "4.3.1", CDI: runtimes.Always}, {Name: runtimes.Buildah, Version: "1.28.2", CDI: runtimes.None}}, nil, []string{"note engine-without-cdi"}},
		{"Docker 29.3 with NVIDIA's own hook", []runtimes.Engine{{Name: runtimes.Docker, Version: "29.3.0", CDI: runtimes.On}}, []string{"nvidia-container-runtime-hook"}, []string{"note docker-gpus-legacy"}},
		{"a configuration with a mistake", []runtimes.Engine{{Name: runtimes.Docker, Version: "28.5.2", CDI: runtimes.Unknown, Err: &runtimes.Error{File: "/etc/docker/daemon.json", Line: 3, Column: 1}}}, nil, []string{"broken engine-config-broken"}},
		{"containerd for Kubernetes", []runtimes.Engine{{Name: runtimes.Docker, Version: "28.5.2", CDI: runtimes.On}, {Name: runtimes.Containerd, Version: "1.7.24", CDI: runtimes.Off}}, []string{"kubelet", "nvidia-container-runtime-hook"}, []string{"broken engine-cdi-off"}},
		{"k3s, not started yet", []runtimes.Engine{{Name: runtimes.K3s, CDI: runtimes.Unknown, Err: &runtimes.Error{Message: "its containerd is not there"}}}, nil, []string{"note engine-not-seen"}},
		{"k3s beside Docker", []runtimes.Engine{{Name: runtimes.Docker, Version: "28.5.2", CDI: runtimes.On}, {Name: runtimes.K3s, Version: "1.7.23-k3s2", CDI: runtimes.Off}}, []string{"nvidia-container-runtime-hook"}, []string{"broken engine-cdi-off"}},
		{"containerd alone", []runtimes.Engine{{Name: runtimes.Containerd, Version: "1.7.24", CDI: runtimes.Off}}, nil, []string{"broken engine-cdi-off"}},
		{"too old for CDI", []runtimes.Engine{{Name: runtimes.CRIO, Version: "1.22.0", CDI: runtimes.None}}, nil, []string{"warning engine-without-cdi"}},
		{"Docker 29.2 with the program", []runtimes.Engine{{Name: runtimes.Docker, Version: "29.2.0", CDI: runtimes.On}}, []string{"nvidia-cdi-hook"}, nil},
		{"Docker 29.2 without it", []runtimes.Engine{{Name: runtimes.Docker, Version: "29.2.0", CDI: runtimes.On}}, nil, []string{"warning docker-gpus"}},
		{"Docker 29.1", []runtimes.Engine{{Name: runtimes.Docker, Version: "29.1.5", CDI: runtimes.On}}, nil, []string{"note docker-gpus-legacy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, "two-gpus", nil)
			b.Engines, b.programs = c.engines, c.programs
			var got []string
			for _, c := range b.look(t, engines) {
				got = append(got, fmt.Sprintf("%s %s", c.Severity, c.ID))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// The daemon that runs has the last word, where it tells.
func TestDaemonThatRunsDecides(t *testing.T) {
	for _, c := range []struct {
		file   runtimes.State
		daemon string
		want   string
	}{
		{runtimes.Off, `["/etc/cdi"]`, ""}, {runtimes.Off, "null", "engine-cdi-off"}, {runtimes.On, "null", "engine-needs-restart"}, {runtimes.On, `["/etc/cdi"]`, ""},
		{runtimes.Off, "an old client", "engine-cdi-off"}, {runtimes.On, "an old client", ""},
	} {
		b := newBed(t, "two-gpus", nil)
		b.Engines, b.programs = []runtimes.Engine{{Name: runtimes.Docker, Version: "26.1.4", CDI: c.file, Service: "docker.service"}}, []string{"docker", "nvidia-container-runtime-hook"}
		b.Run = func(context.Context, string, ...string) ([]byte, error) { return []byte(c.daemon), nil }
		list, got := b.look(t, engines), ""
		if len(list) > 0 {
			got = string(list[0].ID)
		}
		if got != c.want {
			t.Errorf("file %s, daemon %s: %q, want %q", c.file, c.daemon, got, c.want)
		}
	}
}

func TestNamesThatEnginesDoNotKnow(t *testing.T) {
	const device = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: \"0\", containerEdits: {env: [A=b]}}]\n"
	b := newBed(t, "two-gpus", func(dir string) {
		write(t, filepath.Join(dir, "etc/cdi/nvidia.yaml"), device)
		write(t, filepath.Join(dir, "etc/cdi/a b; c.yaml"), device)
		write(t, filepath.Join(dir, "opt/cdi/vendor.yaml"), strings.ReplaceAll(device, "nvidia.com/gpu", "vendor.com/dev"))
	})
	// Never is it our own spec that has to go, and names are quoted.
	if c := b.device(t, "0"); c == nil || c.ID != "device-conflict" || c.Fix.Commands[0] != "mv '"+b.dir+"/etc/cdi/a b; c.yaml' '"+b.dir+"/etc/cdi/a b; c.yaml.disabled'" {
		t.Errorf("%+v", c)
	}
	if c := b.device(t, "vendor.com/dev=0"); c == nil || c.ID != "device-unknown" {
		t.Errorf("%+v", c)
	}
	b.Engines = []runtimes.Engine{{Name: runtimes.Docker, CDI: runtimes.On, SpecDirs: []string{b.SpecDirs[0], filepath.Join(b.dir, "opt/cdi")}}}
	if c := b.device(t, "vendor.com/dev=0"); c != nil {
		t.Errorf("of a directory that only Docker reads: %+v", c)
	}
}

// A spec of others in our directory must go before ours comes: two would take each
// other's devices away.
func TestForeignSpecInTheSameDirectory(t *testing.T) {
	b := newBed(t, "two-gpus", func(dir string) {
		write(t, filepath.Join(dir, "etc/cdi/other.yaml"), "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: \"0\", containerEdits: {env: [A=b]}}]\n")
	})
	b.Now = &specs.Spec{Kind: "nvidia.com/gpu", Devices: []specs.Device{{Name: "0"}}}
	list := append(b.look(t, published), b.look(t, neighbours)...)
	if len(list) != 1 || list[0].ID != "spec-foreign" || list[0].Fix.Safe || len(list[0].Fix.Commands) != 2 || !strings.HasPrefix(list[0].Fix.Commands[0], "mv ") {
		t.Errorf("%+v", list)
	}
}

// An engine that is too old for every possible spec has no command.
func TestEngineForWhichNoSpecIsOldEnough(t *testing.T) {
	b := newBed(t, "two-gpus", func(dir string) {
		write(t, filepath.Join(dir, "etc/cdi/nvidia.yaml"), "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: \"0\", containerEdits: {env: [A=b]}}]\n")
	})
	b.Engines = []runtimes.Engine{{Name: runtimes.CRIO, Version: "1.24.0", CDI: runtimes.Always, MaxCDIVersion: "0.3.0"}}
	c := find(b.look(t, engines), "engine-too-old")
	if c == nil || len(c.Fix.Commands) > 0 || c.Fix.Safe || !strings.Contains(c.Fix.Note, "it cannot be older") {
		t.Errorf("%+v", c)
	}
}

func TestWorstComesFirst(t *testing.T) {
	list := findings.Sorted([]discover.Finding{{Severity: discover.Note}, {ID: "a", Severity: discover.Warning}, {ID: "b", Severity: discover.Broken}, {ID: "a", Severity: discover.Broken}})
	if len(list) != 3 || list[0].ID != "a" || list[0].Severity != discover.Broken || list[1].ID != "b" || list[2].Severity != discover.Note {
		t.Errorf("%+v", list)
	}
	for n, want := range map[int]string{0: "", 1: "a", 4: "a, b, c, d", 6: "a, b, c and 3 others"} {
		if got := printable.Some([]string{"a", "b", "c", "d", "e", "f"}[:n]); got != want {
			t.Errorf("%d of them: %q, want %q", n, got, want)
		}
	}
}

func (b *bed) device(t *testing.T, name string) *Report {
	t.Helper()
	b.look(t, func(*Snapshot) []discover.Finding { return nil })
	f, unknown := Device(b.Snapshot, name)
	if !unknown {
		return nil
	}
	return &Reports(b.Snapshot, []discover.Finding{f})[0]
}

// All that checks and fixes need is read when the snapshot is taken.
func TestChecksReadNothing(t *testing.T) {
	const other = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: \"0\", containerEdits: {env: [A=b]}}]\n"
	var texts []string
	for _, gone := range []bool{false, true} {
		b := newBed(t, "two-gpus", func(dir string) {
			for _, file := range []string{"etc/cdi/nvidia.yaml", "etc/cdi/other.yaml", "run/cdi/other.yaml", "opt/cdi/other.yaml"} {
				write(t, filepath.Join(dir, file), other)
			}
			write(t, filepath.Join(dir, "run/cdi/broken.yaml"), "devices: 7\n")
			if err := errors.Join(os.Symlink("../run/cdi", filepath.Join(dir, "etc/link")), os.Chmod(filepath.Join(dir, "opt/cdi"), 0o777)); err != nil {
				t.Fatal(err)
			}
		})
		at := func(name string) string { return filepath.Join(b.dir, name) }
		b.SpecDirs, b.Others = []string{at("etc/cdi"), at("run/cdi")}, []string{at("opt/cdi/ours.yaml")}
		b.Now = &specs.Spec{Kind: "nvidia.com/gpu", Devices: []specs.Device{{Name: "0"}}}
		b.Engines = []runtimes.Engine{{Name: runtimes.Docker, Version: "28.5.2", CDI: runtimes.On, MaxCDIVersion: "0.8.0", SpecDirs: []string{at("etc/link"), at("opt/cdi")}}}
		b.look(t, func(*Snapshot) []discover.Finding { return nil })
		if gone {
			if err := os.RemoveAll(b.dir); err != nil {
				t.Fatal(err)
			}
		}
		list := All(b.Snapshot)
		unknown, _ := Device(b.Snapshot, "1")
		conflict, _ := Device(b.Snapshot, "0")
		list = append(list, unknown, conflict)
		texts = append(texts, strings.ReplaceAll(fmt.Sprintf("%+v", Reports(b.Snapshot, append(list, OfFile(b.Snapshot, b.Published)...))), b.dir, ""))
	}
	for _, id := range []discover.ID{specdir.Conflict, specdir.Hidden, specdir.Untrusted, SpecFileBroken, EngineDirectories, DeviceConflict, DeviceUnknown} {
		if !strings.Contains(texts[0], string(id)) {
			t.Errorf("there is no %s", id)
		}
	}
	if texts[0] != texts[1] {
		t.Errorf("on a host:\n%s\nwhen it is gone:\n%s", texts[0], texts[1])
	}
}

// Every ID has an entry, and there is no other.
func TestTableHasEveryID(t *testing.T) {
	ids := map[discover.ID]bool{}
	for _, g := range Groups {
		for _, e := range g.Entries {
			if ids[e.ID] || e.Title == "" || e.Explanation == "" {
				t.Errorf("%q is there twice, or has no title or explanation", e.ID)
			}
			ids[e.ID] = true
		}
	}
	for _, file := range []string{"../../discover/finding.go", "../../spec/spec.go", "../specdir/directories.go", "../ownedits/edits.go", "check.go"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^\t\w+ +(?:discover\.)?ID += "(.*)"$`).FindAllStringSubmatch(string(data), -1) {
			if !ids[discover.ID(m[1])] {
				t.Errorf("%s of %s has no entry", m[1], file)
			}
			delete(ids, discover.ID(m[1]))
		}
	}
	for id := range ids {
		t.Errorf("the entry %s has no constant", id)
	}
}

func TestMessagesNameFindings(t *testing.T) {
	for _, m := range Messages {
		for _, id := range m.IDs {
			if Lookup(id).Title == "" {
				t.Errorf("%s: there is no finding %s", m.Text, id)
			}
		}
		if len(m.IDs) == 0 || m.Of == "" {
			t.Errorf("%s has no finding, or nothing that prints it", m.Text)
		}
	}
}
