package runtimes

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/semver"
)

func FuzzVersion(f *testing.F) {
	for _, text := range []string{
		"Docker version 26.1.5+dfsg1, build 411e817\n", "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7\n",
		"crio version 1.28.4\nVersion:        1.28.4\n", "podman version 6.0.0-dev\n", "1.7.24~rc1", "99999999999999999999.1",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		version := parseVersion(text)
		if c := canonical(version); (version == "") != (c == "") || c != "" && !semver.IsValid(c) {
			t.Errorf("%q has version %q, which is %q", text, version, c)
		}
	})
}

// Whatever an engine's configuration is: it is refused, or changed so that CDI is on and
// nothing is left to be done.
func FuzzEnable(f *testing.F) {
	targets := []struct{ file, version string }{
		{"etc/docker/daemon.json", "26.1.5"}, {"etc/containerd/config.toml", "1.7.24"}, {"etc/containerd/config.toml", "2.1.9"},
		{"etc/containerd/config.toml", "2.3.0"}, {"etc/buildkit/buildkitd.toml", "0.21.0"},
	}
	names := []Name{Docker, Containerd, Containerd, Containerd, BuildKit}
	for which, text := range []string{
		`{"features": {"cdi": false}, "cdi-spec-dirs": ["/x"]}`, "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nenable_cdi = false\n",
		"version = 2\nimports = ['*.toml', '/etc/containerd/config.toml']\n[plugins.'io.containerd.grpc.v1.cri']\nenable_cdi = false\n",
		"version = 3\nplugins.'io.containerd.cri.v1.runtime'.enable_cdi = false\n", "[cdi]\ndisabled = true\nspecDirs = ['']\n",
	} {
		f.Add(uint8(which), text)
	}
	root := f.TempDir()
	s := System{Root: root, Getenv: func(string) string { return "" }}
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		i := int(which) % len(targets)
		file := filepath.Join(root, targets[i].file)
		if err := errors.Join(os.RemoveAll(root), os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		r := Request{Engine: names[i], Version: targets[i].version, SpecDirs: []string{"/etc/cdi"}}
		p, err := s.Enable(r)
		if err != nil {
			return
		}
		for _, c := range p.Changes {
			if err := os.WriteFile(c.Path, c.New, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		again, err := s.Enable(r)
		if err != nil || len(again.Changes) > 0 || again.Engine.CDI != On {
			t.Fatalf("again: %v, %+v", err, again)
		}
	})
}
