package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/mountinfo"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

func TestContainersAreKnownByTheirCgroups(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	other := strings.Repeat("f", 64)
	for _, c := range []struct {
		cgroup string
		want   owner
	}{
		{"0::/", owner{}},
		{"0::/user.slice/user-0.slice/session-1.scope", owner{}},
		{"0::/system.slice/docker.service", owner{}},
		{"0::/machine.slice/libpod-" + id + ".scope/container", owner{enginePodman, id, ""}},
		{"0::/machine.slice/libpod-conmon-" + id + ".scope", owner{}},
		{"12:devices:/libpod_parent/libpod-" + id + "\n0::/", owner{enginePodman, id, ""}},
		{"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope", owner{enginePodman, id, ""}},
		{"0::/system.slice/docker-" + id + ".scope", owner{engineDocker, id, ""}},
		{"4:memory:/docker/" + id, owner{engineDocker, id, ""}},
		{"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope", owner{engineContainerd, id, ""}},
		{"0::/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:" + id, owner{engineContainerd, id, ""}},
		{"0::/kubepods/besteffort/pod1/" + id, owner{engineContainerd, id, ""}},
		{"0::/kubepods.slice/kubepods-pod1.slice/crio-" + id + ".scope", owner{engineCRIO, id, ""}},
		{"0::/kubepods.slice/crio-conmon-" + id + ".scope", owner{}},
		{"0::/lxc.payload.web/init.scope", owner{engineLXC, "web", "web"}},
		{"0::/lxc.monitor.web", owner{}},
		{"4:devices:/lxc/104/ns/system.slice", owner{engineLXC, "104", "104"}},
		{`0::/machine.slice/machine-a\x2db.scope/payload/init.scope`, owner{engineNspawn, "a-b", "a-b"}},
		{`0::/machine.slice/machine-\xc3\xa9\x5cx.scope/payload`, owner{engineNspawn, `é\x`, `é\x`}},
		{"0::/machine.slice/machine-a.scope/supervisor", owner{}},
		{"0::/machine.slice/systemd-nspawn@a.service/payload", owner{engineNspawn, "a", "a"}},
		// The innermost of nested ones.
		{"0::/docker/" + other + "/kubelet/kubepods/pod1/" + id, owner{engineContainerd, id, ""}},
		{"0::/lxc.payload.c/docker/" + id, owner{engineDocker, id, ""}},
	} {
		got, ok := newForms().ownerByCgroup(c.cgroup + "\n")
		if got != c.want || ok != (c.want != owner{}) {
			t.Errorf("%s: %+v, %v", c.cgroup, got, ok)
		}
	}
}

func TestContainersWithoutCgroupsAreKnownByTheirMounts(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	host := []mountinfo.Mount{{Device: "8:1", Root: "/", Point: "/"}}
	root := mountinfo.Mount{Device: "0:50", Root: "/", Point: "/"}
	for _, c := range []struct {
		name   string
		mounts []mountinfo.Mount
		want   owner
		ok     bool
	}{
		{"a service with mounts of its own", append(slices.Clone(host), mountinfo.Mount{Device: "0:7", Root: "/", Point: "/tmp"}), owner{}, false},
		{"podman", []mountinfo.Mount{root, {Root: "/storage/overlay-containers/" + id + "/userdata/hostname", Point: "/etc/hostname"}}, owner{enginePodman, id, ""}, true},
		{"Docker", []mountinfo.Mount{root, {Root: "/var/lib/docker/containers/" + id + "/hosts", Point: "/etc/hosts"}}, owner{engineDocker, id, ""}, true},
		{"systemd-nspawn", []mountinfo.Mount{root, {Root: "/systemd/nspawn/propagate/m", Point: "/run/host/incoming"}}, owner{engineNspawn, "m", "m"}, true},
		{"Apptainer", []mountinfo.Mount{root, {Root: "/usr/lib/libcuda.so.1", Point: "/.singularity.d/libs/libcuda.so.1"}}, owner{engine: engineApptainer}, true},
		{"ctr", []mountinfo.Mount{{Device: "0:50", Root: "/", Point: "/", Super: "rw,upperdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/3/fs"}}, owner{engine: engineContainerd, id: "web"}, true},
		{"another", []mountinfo.Mount{root}, owner{}, true},
	} {
		got, ok := newForms().ownerByMounts(c.mounts, host, "1:name=systemd:/\n0::/default/web\n")
		if got != c.want || ok != c.ok {
			t.Errorf("%s: %+v, %v", c.name, got, ok)
		}
	}
}

// A process of the host that has the node of a GPU open has the GPU, whatever it calls it.
func TestProcessOfTheHostHasWhatItHasOpen(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make device nodes")
	}
	node := filepath.Join(t.TempDir(), "nvidia7")
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(node)
	if err != nil {
		hosttest.SkipWithout(t, "file system with device nodes", err)
	}
	defer f.Close()
	cmd := exec.Command("sleep", "1000")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	inv := &discover.Inventory{GPUs: []discover.GPU{
		{Index: 0, Node: &discover.Node{Path: "/dev/nvidia0", Have: &devnode.Attr{Major: 1, Minor: 3}}},
		{Index: 1, Node: &discover.Node{Path: "/dev/nvidia1", Have: &devnode.Attr{Major: 1, Minor: 77}}},
	}}
	lister := &Lister{Sources: &Sources{Find: func(string) (string, error) { return "", os.ErrNotExist }}}
	list, err := lister.List(context.Background(), hosttree.Local("amd64", "/", "/", "/proc", "/sys"), inv)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(list, func(r *Running) bool { return slices.Contains(r.Using, cmd.Process.Pid) })
	if at < 0 || list[at].Engine != Host || list[at].Name != "sleep" || !slices.Equal(list[at].Devices, []string{"0"}) {
		t.Errorf("%+v", list)
	}
	AddMemory(list, &nvmlprobe.Report{GPUs: []nvmlprobe.GPU{{Processes: []nvmlprobe.Process{{PID: cmd.Process.Pid, Memory: 5}}}}})
	if at >= 0 && list[at].Memory != 5 {
		t.Errorf("memory: %+v", list[at])
	}
}

// Containers that an engine does not know, as root's podman does not know those of users, lead to
// one question and not to one each.
func TestEnginesAreAskedOnceForAllNames(t *testing.T) {
	var ran int
	lister := &Lister{Sources: &Sources{
		Find: func(string) (string, error) { return "/bin/x", nil },
		Run: func(context.Context, string, ...string) ([]byte, error) {
			ran++
			return []byte("aaaa web\n"), nil
		},
	}}
	look := func(ids ...string) (names []string) {
		asked := map[string]bool{}
		for _, id := range ids {
			r := &Running{Engine: enginePodman, ID: id, PIDs: []int{1}}
			lister.name(context.Background(), t.TempDir(), r, asked)
			names = append(names, r.Name)
		}
		return names
	}
	if names := look("bbbb", "cccc", "aaaa"); !slices.Equal(names, []string{"bbbb", "cccc", "web"}) || ran != 1 {
		t.Errorf("%q, asked %d times", names, ran)
	}
	if names := look("bbbb", "cccc", "aaaa"); names[2] != "web" || ran != 1 {
		t.Errorf("again: %q, asked %d times", names, ran)
	}
	if look("dddd"); ran != 2 {
		t.Errorf("a new one: asked %d times", ran)
	}
}

// Another process may get the number of an instance that has ended.
func TestAReusedNumberIsNotTheOldInstance(t *testing.T) {
	proc, answer := t.TempDir(), `{"instances": [{"instance": "first", "pid": 7}]}`
	lister := &Lister{Sources: &Sources{
		Find: func(string) (string, error) { return "/bin/x", nil },
		Run:  func(context.Context, string, ...string) ([]byte, error) { return []byte(answer), nil },
	}}
	look := func(started int) string {
		stat := fmt.Sprintf("7 (appinit) S 1 %s %d 0", strings.Repeat("0 ", 17), started)
		if err := errors.Join(os.MkdirAll(filepath.Join(proc, "7"), 0o755), os.WriteFile(filepath.Join(proc, "7/stat"), []byte(stat), 0o644)); err != nil {
			t.Fatal(err)
		}
		r := &Running{Engine: engineApptainer, ID: "4026532", PIDs: []int{7}}
		lister.name(context.Background(), proc, r, map[string]bool{})
		return r.Name
	}
	if got := look(100); got != "first" {
		t.Errorf("the instance: %q", got)
	}
	answer = `{"instances": []}`
	if got := look(100); got != "first" {
		t.Errorf("the instance again: %q", got)
	}
	if got := look(200); got != "" {
		t.Errorf("another container: %q", got)
	}
	answer = `{"instances": [{"instance": "second", "pid": 7}]}`
	if got := look(300); got != "second" {
		t.Errorf("another instance: %q", got)
	}
}

func TestArgumentsOfDoctorContainer(t *testing.T) {
	for want, r := range map[string]Running{
		"web":     {Engine: enginePodman, ID: "0123", Name: "web"},
		"'a b'":   {Engine: engineLXC, ID: "a b", Name: "a b"},
		"0123":    {Engine: engineContainerd, ID: "0123", Name: "pod/web"},
		"--pid 7": {Engine: engineNspawn, ID: "m", Name: "m", PIDs: []int{7, 8}},
		"--pid 4": {ID: "4026532", Name: "4026532", PIDs: []int{4}},
		"--pid 5": {Engine: engineApptainer, ID: "4026532", PIDs: []int{5}},
	} {
		if got := r.Argument(); got != want {
			t.Errorf("%+v: %s, want %s", r, got, want)
		}
	}
}
