package discover

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
)

func TestWhatNoContainerMayWriteTo(t *testing.T) {
	for path, want := range map[string]string{
		"/": "it is or contains", "/etc": "it is or contains /etc", "/root": "/root", "/home": "/home", "/usr": "/usr", "/var": "/var", "/run": "/run",
		"/tmp": "/tmp", "/dev": "/dev", "/var/run": "/var/run", "/var/lib": "/var/lib",
		"/run/docker.sock": "container engine", "/var/run/docker.sock": "container engine", "/run/podman/podman.sock": "container engine",
		"/run/containerd/containerd.sock": "container engine", "/run/crio/crio.sock": "container engine", "/run/buildkit/buildkitd.sock": "container engine",
		"/run/k3s/containerd/containerd.sock": "container engine", "/run/user/1000/docker.sock": "container engine",
		"/run/user/1000/podman/podman.sock": "container engine", "/home/jane/.docker/run/docker.sock": "container engine",
		"/srv/x/containerd-debug.sock": "container engine", "/run/nvidia/driver/run/docker.sock": "container engine",
		"/run/podman": "container engine", "/run/containerd/s": "container engine", "/run/user": "container engine", "/run/user/1000": "container engine",
		"/run/user/1000/podman": "container engine", "/var/lib/docker/x": "container engine", "/var/lib/kubelet/pods": "container engine", "/run/systemd": "service manager",
		"/home/jane": "container engine",

		"/tmp/nvidia-mps": "", "/run/nvidia-mps": "", "/var/run/nvidia-mps": "", "/srv/mps": "", "/run/nvidia-persistenced/socket": "", "/run/nvidia-fabricmanager/socket": "",
		"/run/user/1000/nvidia-mps": "", "/home/jane/mps": "", "/etc/nvidia/mps": "", "/opt/nvidia/mps": "", "/run/nvidia/driver/run/nvidia-persistenced/socket": "",
	} {
		got := rulesHost(path)
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q; want %q", path, got, want)
		}
	}
}

func TestADirectoryWithAnEnginesSocket(t *testing.T) {
	socket := &fstest.MapFile{Mode: fs.ModeSocket | 0o666}
	tree := hosttree.NewTree("/", fstest.MapFS{
		"srv/good/control": socket, "srv/good/docker.sock": &fstest.MapFile{}, "srv/bad/a/b/docker.sock": socket, "srv/link": &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("bad")},
	})
	for name, want := range map[string]string{"srv/good": "", "srv/bad": "it contains /srv/bad/a/b/docker.sock", "srv/link": "it contains /srv/bad/a/b/docker.sock", "srv/bad/a/b": "contains"} {
		err := checkWritable(tree, driverfiles.Directory, name)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", name, err, want)
		}
	}
	full := fstest.MapFS{}
	for i := range maxEntries + 1 {
		full["srv/full/"+strings.Repeat("x", i%100)+string(rune('a'+i%26))+strings.Repeat("y", i/100)] = &fstest.MapFile{}
	}
	if err := checkWritable(hosttree.NewTree("/", full), driverfiles.Directory, "srv/full"); err == nil || !strings.Contains(err.Error(), "more than 10000 files") {
		t.Error(err)
	}
}
