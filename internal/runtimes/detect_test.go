package runtimes_test

import (
	stdcmp "cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/internal/runtimes"
)

// installation is a system for a test: files below a directory, and programs that print a
// version.
type installation struct {
	files    map[string]string
	programs map[string]string
	env      map[string]string
	uid      int
}

// system builds it.
func (i installation) system(t testing.TB) runtimes.System {
	t.Helper()
	root := t.TempDir()
	for name, text := range i.files {
		writeFile(t, filepath.Join(root, name), text)
	}
	return runtimes.System{
		Root: root,
		UID:  i.uid,
		LookPath: func(name string) (string, error) {
			if _, ok := i.programs[name]; !ok {
				return "", errors.New("not found")
			}
			return filepath.Join("/usr/bin", strings.TrimPrefix(name, "/")), nil
		},
		Run: func(_ context.Context, program string, _ ...string) ([]byte, error) {
			name := strings.TrimPrefix(program, "/usr/bin/")
			return []byte(stdcmp.Or(i.programs[name], i.programs["/"+name])), nil
		},
		Getenv: func(name string) string { return i.env[name] },
	}
}

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestVersionOutput(t *testing.T) {
	for _, c := range []struct{ program, output, want string }{
		{"podman", "podman version 4.3.1\n", "4.3.1"},
		{"podman", "podman version 6.0.0-dev\n", "6.0.0-dev"},
		{"dockerd", "Docker version 26.1.5+dfsg1, build 411e817\n", "26.1.5+dfsg1"},
		{"dockerd", "Docker version 28.2.0-rc.1, build ecc6942\n", "28.2.0-rc.1"},
		{"dockerd", "Docker version 20.10.24+dfsg1, build 5d6db84\n", "20.10.24+dfsg1"},
		{"containerd", "containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+b4\n", "1.7.24~ds1"},
		{"containerd", "containerd containerd.io 1.7.29 442cb34bda9a6a0fed82a2ca7cade05c5c749582\n", "1.7.29"},
		{"containerd", "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4e490e9fbdc236c0e811ccaba3376\n", "2.1.4"},
		{"containerd", "containerd github.com/containerd/containerd/v2 2.4.0-beta.0 \n", "2.4.0-beta.0"},
		{"crio", "crio version 1.28.4\nVersion:        1.28.4\nGitCommit:      c56c4ba\n", "1.28.4"},
		{"crio", "crio version        1.34.0\n   GitCommit:      unknown\n   GoVersion:      go1.24.6\n", "1.34.0"},
		{"buildah", "buildah version 1.28.2 (image-spec 1.0.2-dev, runtime-spec 1.0.2-dev)\n", "1.28.2"},
		{"buildkitd", "buildkitd github.com/moby/buildkit v0.20.0 121ecd5b9083b8eef32183cd404dd13e15b4a3df\n", "0.20.0"},
		{"nerdctl", "nerdctl version 2.1.2\n", "2.1.2"},
		{"apptainer", "apptainer version 1.3.4-1.el9\n", "1.3.4-1.el9"},
		{"singularity", "singularity-ce version 4.1.1-jammy\n", "4.1.1-jammy"},
		{"singularity", "singularity version 3.8.7-1.el8\n", "3.8.7-1.el8"},
	} {
		t.Run(c.want, func(t *testing.T) {
			got := runtimes.Detect(t.Context(), installation{programs: map[string]string{c.program: c.output}}.system(t))
			if len(got) != 1 || got[0].Version != c.want || got[0].Err != nil || got[0].Program != "/usr/bin/"+c.program {
				t.Errorf("%+v, want version %s", got, c.want)
			}
		})
	}
}

// What versions can do.
func TestReleases(t *testing.T) {
	for _, c := range []struct {
		engine       runtimes.Name
		version      string
		cdi          runtimes.State
		max          string
		dirs         string
		configurable bool
	}{
		{runtimes.Podman, "3.1.2", runtimes.None, "", "", false},
		{runtimes.Podman, "3.4.4+ds1", runtimes.Always, "", "/etc/cdi", false},
		{runtimes.Podman, "4.3.1+ds1", runtimes.Always, "0.5.0", "/etc/cdi /var/run/cdi", false},
		{runtimes.Podman, "4.9.3", runtimes.Always, "0.6.0", "/etc/cdi /var/run/cdi", false},
		{runtimes.Podman, "5.4.2", runtimes.Always, "0.8.0", "/etc/cdi /var/run/cdi", false},
		{runtimes.Podman, "5.5.2", runtimes.Always, "1.0.0", "/etc/cdi", true},
		{runtimes.Podman, "5.6.0-rc1", runtimes.Always, "1.0.0", "/etc/cdi", true},
		{runtimes.Podman, "5.8.6", runtimes.Always, "1.0.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.Podman, "17.0", runtimes.Always, "1.1.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.Docker, "24.0.9", runtimes.None, "", "", false},
		{runtimes.Docker, "25.0.0-rc.1", runtimes.None, "", "", false},
		{runtimes.Docker, "25.0.17", runtimes.Off, "0.8.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.Docker, "26.0.0", runtimes.Off, "0.6.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.Docker, "28.1.1", runtimes.Off, "1.0.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.Docker, "28.2.0", runtimes.On, "1.0.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.Docker, "29.7.2", runtimes.On, "1.1.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.Containerd, "1.6.20~ds1", runtimes.None, "", "", false},
		{runtimes.Containerd, "1.7.24~ds1", runtimes.Off, "0.7.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.Containerd, "2.0.4", runtimes.On, "0.8.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.Containerd, "2.4.0-rc.0", runtimes.On, "1.1.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.Containerd, "2.4.2", runtimes.Always, "1.1.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.CRIO, "1.23.5", runtimes.None, "", "", false},
		{runtimes.CRIO, "1.29.1", runtimes.Always, "0.6.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.Buildah, "1.28.2", runtimes.None, "", "", false},
		{runtimes.Buildah, "1.39.3", runtimes.Always, "0.8.0", "/etc/cdi", true},
		{runtimes.BuildKit, "0.19.0", runtimes.None, "", "", false},
		{runtimes.BuildKit, "0.28.1", runtimes.On, "1.1.0", "/etc/cdi /var/run/cdi /etc/buildkit/cdi", true},
		{runtimes.Nerdctl, "2.0.5", runtimes.None, "", "", false},
		{runtimes.Nerdctl, "2.2.0", runtimes.Always, "1.0.0", "/etc/cdi /var/run/cdi", true},
		{runtimes.Apptainer, "1.4.5-1.el9", runtimes.None, "", "", false},
		{runtimes.Apptainer, "1.5.0-2.el9", runtimes.Always, "1.1.0", "/etc/cdi /var/run/cdi", false},
		{runtimes.Singularity, "4.1.3-jammy", runtimes.Always, "0.7.0", "/etc/cdi /var/run/cdi", false},
		{runtimes.Docker, "nightly", runtimes.Unknown, "", "", false},
	} {
		t.Run(fmt.Sprint(c.engine, " ", c.version), func(t *testing.T) {
			e := installation{}.system(t).Engine(c.engine, c.version)
			if e.CDI != c.cdi || e.MaxCDIVersion != c.max || strings.Join(e.SpecDirs, " ") != c.dirs {
				t.Errorf("%+v", e)
			}
		})
	}
	for _, r := range runtimes.Releases {
		if r.CDI == "" || len(r.SpecDirs) == 0 || !slices.Contains(runtimes.Names(), r.Engine) {
			t.Errorf("incomplete: %+v", r)
		}
	}
}

func TestDetectTellsEnginesInOrder(t *testing.T) {
	s := installation{programs: map[string]string{
		"singularity": "apptainer version 1.5.0\n", "apptainer": "apptainer version 1.5.0\n", "nerdctl": "nerdctl version 2.1.2\n",
		"containerd": "containerd x v2.1.4 75cb2b7\n", "docker": "Docker version 28.0.0, build 1\n", "dockerd": "Docker version 28.0.0, build 1\n",
		"podman": "podman version 5.8.0\n",
	}}.system(t)
	var names []runtimes.Name
	for _, e := range runtimes.Detect(t.Context(), s) {
		names = append(names, e.Name)
	}
	want := []runtimes.Name{runtimes.Podman, runtimes.Docker, runtimes.Containerd, runtimes.Nerdctl, runtimes.Apptainer}
	if !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
	if some := runtimes.Detect(t.Context(), s, runtimes.CRIO, runtimes.Docker); len(some) != 1 || some[0].Name != runtimes.Docker {
		t.Errorf("of two asked for: %+v", some)
	}
	if none := runtimes.Detect(t.Context(), installation{}.system(t)); none == nil || len(none) > 0 {
		t.Errorf("of none installed: %v", none)
	}
}

// Distributions of Kubernetes are engines by the containerd that they unpack; that of k3s in PATH
// is not one that reads /etc/containerd.
func TestDistributionsOfKubernetes(t *testing.T) {
	const (
		rancher = "containerd github.com/k3s-io/containerd v2.1.5-k3s1 57ae91d0\n"
		units   = "etc/systemd/system/"
	)
	s := installation{
		programs: map[string]string{
			"containerd": "containerd github.com/k3s-io/containerd 1.7.23-k3s2 1\n",
			"/var/lib/rancher/k3s/data/current/bin/containerd": rancher,
			"/var/lib/rancher/rke2/bin/containerd":             rancher,
			"/snap/microk8s/current/bin/containerd":            "containerd github.com/containerd/containerd 1.7.28 2\n",
			"k0s":                                              "v1.35.1+k0s.0\n",
		},
		files: map[string]string{
			"var/lib/rancher/k3s/agent/etc/containerd/config.toml": "version = 3\n",
			units + "k3s-agent.service":                            "", units + "rke2-server.service": "",
			units + "multi-user.target.wants/rke2-agent.service": "",
		},
	}.system(t)
	got := runtimes.Detect(t.Context(), s)
	var lines []string
	for _, e := range got {
		lines = append(lines, strings.TrimSpace(fmt.Sprintln(e.Name, e.Version, e.CDI, e.Service, e.Socket, e.Err != nil)))
	}
	want := []string{
		"k3s 2.1.5-k3s1 on k3s-agent.service /run/k3s/containerd/containerd.sock false",
		"rke2 2.1.5-k3s1 on rke2-agent.service /run/k3s/containerd/containerd.sock false",
		"microk8s 1.7.28 off snap.microk8s.daemon-containerd.service /var/snap/microk8s/common/run/containerd.sock false",
		"k0s  unknown k0sworker.service /run/k0s/containerd.sock true",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if err := got[3].Err; !strings.Contains(err.Error(), "/var/lib/k0s/bin/containerd") {
		t.Errorf("%v", err)
	}
	if runtimes.K3s.Kind() != runtimes.Containerd || runtimes.Podman.Kind() != runtimes.Podman {
		t.Error("which engine does the work")
	}
}

// Docker's snap has its program, its configuration and its unit elsewhere.
func TestDockerOfASnap(t *testing.T) {
	const dockerd = "/snap/docker/current/bin/dockerd"
	s := installation{
		programs: map[string]string{dockerd: "Docker version 27.5.1, build 1\n"},
		files:    map[string]string{dockerd: "", "var/snap/docker/current/config/daemon.json": `{"features": {"cdi": true}}`, "etc/docker/daemon.json": "{}"},
	}.system(t)
	got := runtimes.Detect(t.Context(), s)
	if len(got) != 1 || got[0].CDI != runtimes.On || got[0].Service != "snap.docker.dockerd.service" || !strings.HasSuffix(got[0].Switch, "/var/snap/docker/current/config/daemon.json") {
		t.Errorf("%+v", got)
	}
	writeFile(t, filepath.Join(s.Root, "usr/bin/dockerd"), "")
	if e := s.Engine(runtimes.Docker, "27.5.1"); e.CDI != runtimes.Off || e.Service != "docker.service" {
		t.Errorf("beside another Docker: %+v", e)
	}
}

func TestAnEngineThatFailsOrHangsIsTold(t *testing.T) {
	s := installation{programs: map[string]string{"dockerd": "", "podman": "Segmentation fault\n", "crio": "crio version 1.30.0\n"}}.system(t)
	run := s.Run
	s.Run = func(ctx context.Context, program string, args ...string) ([]byte, error) {
		if filepath.Base(program) == "dockerd" {
			<-ctx.Done()
			return nil, fmt.Errorf("dockerd --version: not finished in time: %w", context.Cause(ctx))
		}
		return run(ctx, program, args...)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no answer for 5s"))
	got := runtimes.Detect(ctx, s)
	if len(got) != 3 {
		t.Fatalf("%+v", got)
	}
	for i, want := range []string{
		`podman --version: no version in its answer "Segmentation fault"`,
		"dockerd --version: not finished in time: no answer for 5s",
	} {
		if got[i].CDI != runtimes.Unknown || got[i].Err == nil || got[i].Err.Error() != want {
			t.Errorf("%+v, want %s", got[i], want)
		}
	}
	if got[2].CDI != runtimes.Always || got[2].Err != nil {
		t.Errorf("one that works: %+v", got[2])
	}
}

func TestLocalRunsPrograms(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	writeFile(t, filepath.Join(dir, "crio"), "#!/bin/sh\n[ \"$LC_ALL\" = C ] && echo crio version 1.30.0\n")
	writeFile(t, filepath.Join(dir, "nerdctl"), "#!/bin/sh\necho 'line 1\ncannot run' >&2\nexit 3\n")
	for _, name := range []string{"crio", "nerdctl"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := runtimes.Local()
	s.Root = t.TempDir()
	got := runtimes.Detect(t.Context(), s, runtimes.CRIO, runtimes.Nerdctl)
	if len(got) != 2 || got[0].Version != "1.30.0" || got[0].Program != filepath.Join(dir, "crio") {
		t.Fatalf("%+v", got)
	}
	if want := "nerdctl --version: exit status 3: line 1; cannot run"; got[1].Err == nil || got[1].Err.Error() != want {
		t.Errorf("%v, want %s", got[1].Err, want)
	}
	slow := filepath.Join(dir, "slow")
	writeFile(t, slow, "#!/bin/sh\nexec sleep 100\n")
	if err := os.Chmod(slow, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 1, errors.New("enough"))
	defer cancel()
	if _, err := s.Run(ctx, slow, "-v"); err == nil || err.Error() != "slow -v: not finished in time: enough" {
		t.Errorf("%v", err)
	}
}

// What configuration makes of engines.
func TestConfigurationIsReadAsEnginesDo(t *testing.T) {
	const (
		dockerJSON = "etc/docker/daemon.json"
		config     = "etc/containerd/config.toml"
		confD      = "etc/containerd/conf.d/"
		criV2      = "[plugins.\"io.containerd.grpc.v1.cri\"]\n"
		criV3      = "[plugins.'io.containerd.cri.v1.runtime']\n"
		both       = "/etc/cdi /var/run/cdi"
	)
	user := map[string]string{"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"}
	for _, c := range []struct {
		name    string
		engine  runtimes.Name
		version string
		with    installation
		cdi     runtimes.State
		by      string // what switches it, without the root
		dirs    string
		dirsBy  string
		err     string
	}{
		{"docker's features without cdi", runtimes.Docker, "27.0.0", installation{files: map[string]string{dockerJSON: `{"features": {"buildkit": true}}`}},
			runtimes.Off, "no features.cdi in /etc/docker/daemon.json", both, "", ""},
		{"docker's features with cdi", runtimes.Docker, "27.0.0", installation{files: map[string]string{dockerJSON: `{"features": {"cdi": true}, "cdi-spec-dirs": ["/x"]}`}},
			runtimes.On, "features.cdi in /etc/docker/daemon.json", "/x", "cdi-spec-dirs in /etc/docker/daemon.json", ""},
		{"docker 28.2 switched off", runtimes.Docker, "28.2.0", installation{files: map[string]string{dockerJSON: `{"features": {"cdi": false}}`}},
			runtimes.Off, "features.cdi in /etc/docker/daemon.json", both, "", ""},
		{"docker with an empty list of directories", runtimes.Docker, "28.2.0", installation{files: map[string]string{dockerJSON: `{"cdi-spec-dirs": [""]}`}},
			runtimes.Off, "cdi-spec-dirs, which is empty, in /etc/docker/daemon.json", "", "cdi-spec-dirs in /etc/docker/daemon.json", ""},
		{"docker with a broken file", runtimes.Docker, "28.2.0", installation{files: map[string]string{dockerJSON: "{\n \"a\": 1,\n}"}},
			runtimes.Unknown, "", both, "", "/etc/docker/daemon.json:3:1: invalid character '}' looking for beginning of object key string (comments and trailing commas are not allowed)"},
		{"docker with a wrong type", runtimes.Docker, "28.2.0", installation{files: map[string]string{dockerJSON: "{\"features\":\n {\"cdi\": \"true\"}}"}},
			runtimes.Unknown, "", both, "", "/etc/docker/daemon.json:2:10: features.cdi is a string, not true or false"},
		{"docker with a name twice", runtimes.Docker, "28.2.0", installation{files: map[string]string{dockerJSON: "{\"features\": {},\n\"features\": {}}"}},
			runtimes.Unknown, "", both, "", "/etc/docker/daemon.json:2:13: features is set twice"},
		{"a user's own docker", runtimes.Docker, "29.2.0", installation{uid: 7, env: user, files: map[string]string{"home/u/.config/docker/daemon.json": "{}", dockerJSON: `{"features": {"cdi": false}}`}},
			runtimes.On, "", both + " /home/u/.config/cdi /run/user/7/cdi", "", ""},
		{"the system's docker for a user", runtimes.Docker, "29.2.0", installation{uid: 7, env: user, files: map[string]string{dockerJSON: `{"features": {"cdi": false}}`}},
			runtimes.Off, "features.cdi in /etc/docker/daemon.json", both, "", ""},

		{"containerd 1.7 without a file", runtimes.Containerd, "1.7.24~ds1", installation{}, runtimes.Off, "no enable_cdi in /etc/containerd/config.toml", both, "", ""},
		{"containerd 1.7 switched on", runtimes.Containerd, "1.7.24", installation{files: map[string]string{config: "version = 2\n" + criV2 + "enable_cdi = true\ncdi_spec_dirs = ['/x']\n"}},
			runtimes.On, "enable_cdi in /etc/containerd/config.toml", "/x", "cdi_spec_dirs in /etc/containerd/config.toml", ""},
		{"containerd 1.7: a drop-in's section replaces the whole", runtimes.Containerd, "1.7.24", installation{files: map[string]string{
			config:              "version = 2\nimports = ['conf.d/*.toml']\n" + criV2 + "enable_cdi = true\ncdi_spec_dirs = ['/x']\n",
			confD + "50-x.toml": "version = 2\n" + criV2 + "sandbox_image = 'p'\n",
			confD + "60-x.toml": "version = 2\n[grpc]\n",
			confD + "70-x.conf": "broken",
		}}, runtimes.Off, "no enable_cdi in /etc/containerd/config.toml", both, "", ""},
		{"containerd 1.7, version 1 file", runtimes.Containerd, "1.7.24", installation{files: map[string]string{config: "[plugins.cri]\nenable_cdi = true\n" + criV2 + "enable_cdi = false\n"}},
			runtimes.On, "enable_cdi in /etc/containerd/config.toml", both, "", ""},
		{"containerd 1.7: what is imported by what is imported comes last", runtimes.Containerd, "1.7.24", installation{files: map[string]string{
			config:                      "version = 2\nimports = ['/etc/containerd/a.toml', 'b.toml']\n",
			"etc/containerd/a.toml":     "imports = ['sub/c.toml', 'config.toml']\n",
			"etc/containerd/b.toml":     criV2 + "enable_cdi = false\n",
			"etc/containerd/sub/c.toml": criV2 + "enable_cdi = true\n",
		}}, runtimes.On, "enable_cdi in /etc/containerd/sub/c.toml", both, "", ""},
		{"containerd 2 merges sections", runtimes.Containerd, "2.1.4", installation{files: map[string]string{
			config:              "version = 3\nimports = ['conf.d/*.toml']\n" + criV3 + "enable_cdi = false\ncdi_spec_dirs = ['/x']\n",
			confD + "50-x.toml": "version = 3\n" + criV3 + "max_container_log_line_size = 5\ncdi_spec_dirs = ['/y']\n",
		}}, runtimes.Off, "enable_cdi in /etc/containerd/config.toml", "/y", "cdi_spec_dirs in /etc/containerd/conf.d/50-x.toml", ""},
		{"containerd 2 migrates version 2", runtimes.Containerd, "2.1.4", installation{files: map[string]string{config: "version = 2\n" + criV2 + "enable_cdi = false\n"}},
			runtimes.Off, "enable_cdi in /etc/containerd/config.toml", both, "", ""},
		{"containerd 2 does not heed the old name in version 3", runtimes.Containerd, "2.1.4", installation{files: map[string]string{config: "version = 3\n" + criV2 + "enable_cdi = false\n"}},
			runtimes.On, "", both, "", ""},
		{"containerd 2.2 migrates by the version of the last file", runtimes.Containerd, "2.2.1", installation{files: map[string]string{
			config: "version = 2\nimports = ['x.toml']\n" + criV2 + "enable_cdi = false\n", "etc/containerd/x.toml": "version = 3\n"}},
			runtimes.On, "", both, "", ""},
		{"containerd 2.3 migrates each file", runtimes.Containerd, "2.3.0", installation{files: map[string]string{
			config: "version = 3\nimports = ['x.toml']\n" + criV3 + "enable_cdi = true\n", "etc/containerd/x.toml": "version = 2\n" + criV2 + "enable_cdi = false\n"}},
			runtimes.Off, "enable_cdi in /etc/containerd/x.toml", both, "", ""},
		{"containerd 2.4 has no switch", runtimes.Containerd, "2.4.1", installation{files: map[string]string{config: "version = 3\n" + criV3 + "enable_cdi = false\n"}},
			runtimes.Always, "", both, "", ""},
		{"containerd without its CRI plugin", runtimes.Containerd, "1.7.29", installation{files: map[string]string{config: "disabled_plugins = [\"cri\"]\n"}},
			runtimes.Unused, "disabled_plugins in /etc/containerd/config.toml", both, "", ""},
		{"containerd with an import that is not there", runtimes.Containerd, "2.1.4", installation{files: map[string]string{config: "version = 3\nimports = ['x.toml', 'no/*.toml']\n"}},
			runtimes.Unknown, "", both, "", "/etc/containerd/x.toml: it is imported but does not exist: containerd would not start"},
		{"containerd with a broken import", runtimes.Containerd, "2.1.4", installation{files: map[string]string{config: "version = 3\nimports = ['x.toml']\n", "etc/containerd/x.toml": "a = 1\nb = \n"}},
			runtimes.Unknown, "", both, "", "/etc/containerd/x.toml:2:5: unexpected character U+000A at start of value"},
		{"containerd with a wrong type", runtimes.Containerd, "2.1.4", installation{files: map[string]string{config: "version = 3\n" + criV3 + "enable_cdi = 'no'\n"}},
			runtimes.Unknown, "", both, "", "/etc/containerd/config.toml:3:14: plugins.io.containerd.cri.v1.runtime.enable_cdi is a string, not true or false"},
		{"containerd with a wrong version", runtimes.Containerd, "2.1.4", installation{files: map[string]string{config: "version = '3'\n"}},
			runtimes.Unknown, "", both, "", "/etc/containerd/config.toml:1:11: version is not a number"},

		{"crio's files in order", runtimes.CRIO, "1.30.0", installation{files: map[string]string{
			"etc/crio/crio.conf": "[crio.runtime]\ncdi_spec_dirs = ['/a']\n", "etc/crio/crio.conf.d/10-b": "[crio.runtime]\ncdi_spec_dirs = ['/b', '/c']\n",
			"etc/crio/crio.conf.d/20-c.conf": "[crio.runtime]\nlog_level = 'info'\n", "etc/crio/crio.conf.d/05-sub/x": "[crio.runtime]\ncdi_spec_dirs = ['/d']\n"}},
			runtimes.Always, "", "/b /c", "crio.runtime.cdi_spec_dirs in /etc/crio/crio.conf.d/10-b", ""},
		{"a broken drop-in of crio", runtimes.CRIO, "1.30.0", installation{files: map[string]string{"etc/crio/crio.conf.d/x.conf~": "[crio\n"}},
			runtimes.Unknown, "", both, "", "/etc/crio/crio.conf.d/x.conf~:1:6: "},

		{"podman's files in order", runtimes.Podman, "5.8.0", installation{env: map[string]string{"HOME": "/root"}, files: map[string]string{
			"usr/share/containers/containers.conf": "[engine]\ncdi_spec_dirs = ['/a']\n", "etc/containers/containers.conf": "[engine]\ncdi_spec_dirs = ['/b']\n",
			"etc/containers/containers.conf.d/x.conf": "[engine]\ncdi_spec_dirs = ['/c', {append=true}]\n", "etc/containers/containers.conf.d/y.toml": "broken",
			"root/.config/containers/containers.conf.d/u.conf": "[engine]\ncdi_spec_dirs = ['/d']\n"}},
			runtimes.Always, "", "/b /c /d", "engine.cdi_spec_dirs in /root/.config/containers/containers.conf.d/u.conf", ""},
		{"podman's attribute adds to the defaults", runtimes.Podman, "5.5.1", installation{files: map[string]string{"etc/containers/containers.conf": "[engine]\ncdi_spec_dirs = [{append=true}, '/run/cdi']\n"}},
			runtimes.Always, "", "/etc/cdi /run/cdi", "engine.cdi_spec_dirs in /etc/containers/containers.conf", ""},
		{"podman's attribute must be known", runtimes.Podman, "5.5.1", installation{files: map[string]string{"etc/containers/containers.conf": "[engine]\ncdi_spec_dirs = [{prepend=true}]\n"}},
			runtimes.Unknown, "", "/etc/cdi", "", "/etc/containers/containers.conf:2:17: engine.cdi_spec_dirs has an attribute that is not append = true or false"},
		{"podman before 5.5 does not heed it", runtimes.Podman, "5.4.2", installation{files: map[string]string{"etc/containers/containers.conf": "[engine]\ncdi_spec_dirs = ['/b']\n"}},
			runtimes.Always, "", both, "", ""},
		{"rootless podman", runtimes.Podman, "5.8.0", installation{uid: 7, env: user, files: map[string]string{
			"etc/containers/containers.rootless.conf.d/7/x.conf": "[engine]\ncdi_spec_dirs = ['/r']\n", "home/u/.config/containers/containers.conf": "[engine]\nnum_locks = 1\n"}},
			runtimes.Always, "", "/r", "engine.cdi_spec_dirs in /etc/containers/containers.rootless.conf.d/7/x.conf", ""},
		{"podman's variable stands for all files", runtimes.Podman, "5.8.0", installation{env: map[string]string{"CONTAINERS_CONF": "/x.conf", "CONTAINERS_CONF_OVERRIDE": "/y.conf"}, files: map[string]string{
			"etc/containers/containers.conf": "broken", "x.conf": "[engine]\ncdi_spec_dirs = ['/x']\n", "y.conf": "[engine]\ncdi_spec_dirs = ['/y']\n"}},
			runtimes.Always, "", "/y", "engine.cdi_spec_dirs in /y.conf", ""},
		{"podman 6 reads one main file and joins drop-ins by name", runtimes.Podman, "6.0.0", installation{env: map[string]string{"XDG_CONFIG_HOME": "/cfg"}, files: map[string]string{
			"etc/containers/containers.conf": "[engine]\ncdi_spec_dirs = ['/a']\n", "usr/share/containers/containers.conf": "broken",
			"usr/share/containers/containers.conf.d/50-x.conf": "broken too", "etc/containers/containers.rootful.conf.d/50-x.conf": "[engine]\ncdi_spec_dirs = ['/b']\n",
			"cfg/containers/containers.conf.d/40-y.conf": "[engine]\ncdi_spec_dirs = ['/c']\n"}},
			runtimes.Always, "", "/b", "engine.cdi_spec_dirs in /etc/containers/containers.rootful.conf.d/50-x.conf", ""},
		{"rootless podman 6", runtimes.Podman, "6.0.0", installation{uid: 7, env: user, files: map[string]string{
			"etc/containers/containers.rootless.conf.d/7/x.conf": "[engine]\ncdi_spec_dirs = ['/r']\n", "etc/containers/containers.rootful.conf.d/y.conf": "broken"}},
			runtimes.Always, "", "/r", "engine.cdi_spec_dirs in /etc/containers/containers.rootless.conf.d/7/x.conf", ""},
		{"buildah has podman's files", runtimes.Buildah, "1.39.0", installation{files: map[string]string{"etc/containers/containers.conf": "[engine]\ncdi_spec_dirs = ['/b']\n"}},
			runtimes.Always, "", "/b", "engine.cdi_spec_dirs in /etc/containers/containers.conf", ""},

		{"buildkit switched off", runtimes.BuildKit, "0.21.0", installation{files: map[string]string{"etc/buildkit/buildkitd.toml": "[cdi]\ndisabled = true\nspecDirs = ['/x']\n"}},
			runtimes.Off, "cdi.disabled in /etc/buildkit/buildkitd.toml", "/x", "cdi.specDirs in /etc/buildkit/buildkitd.toml", ""},
		{"buildkit with an empty list", runtimes.BuildKit, "0.21.0", installation{files: map[string]string{"etc/buildkit/buildkitd.toml": "[cdi]\nspecDirs = []\n"}},
			runtimes.On, "", both + " /etc/buildkit/cdi", "", ""},
		{"a user's own buildkit", runtimes.BuildKit, "0.21.0", installation{uid: 7, env: user, files: map[string]string{"home/u/.config/buildkit/buildkitd.toml": "[cdi]\ndisabled = true\n"}},
			runtimes.Off, "cdi.disabled in /home/u/.config/buildkit/buildkitd.toml", both + " /etc/buildkit/cdi", "", ""},
		{"nerdctl", runtimes.Nerdctl, "2.1.0", installation{files: map[string]string{"etc/nerdctl/nerdctl.toml": "cdi_spec_dirs = ['/x']\n"}},
			runtimes.Always, "", "/x", "cdi_spec_dirs in /etc/nerdctl/nerdctl.toml", ""},
		{"rootless nerdctl", runtimes.Nerdctl, "2.1.0", installation{uid: 7, env: map[string]string{"HOME": "/home/u"}},
			runtimes.Always, "", "/home/u/.config/cdi /run/user/7/cdi", "", ""},
		{"nerdctl's variable", runtimes.Nerdctl, "2.1.0", installation{env: map[string]string{"NERDCTL_TOML": "/n.toml"}, files: map[string]string{"n.toml": "cdi_spec_dirs = 7\n"}},
			runtimes.Unknown, "", both, "", "/n.toml:1:17: cdi_spec_dirs is a number or date, not a list of strings"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.with.system(t)
			e := s.Engine(c.engine, c.version)
			plain := func(text string) string { return strings.ReplaceAll(text, s.Root, "") }
			err := ""
			if e.Err != nil {
				err = plain(e.Err.Error())
			}
			if e.CDI != c.cdi || plain(e.Switch) != c.by || strings.Join(e.SpecDirs, " ") != c.dirs || plain(e.SpecDirsFrom) != c.dirsBy {
				t.Errorf("%s, %q, directories %q by %q", e.CDI, plain(e.Switch), e.SpecDirs, plain(e.SpecDirsFrom))
			}
			if err != c.err && (c.err == "" || !strings.HasPrefix(err, c.err) || !strings.HasSuffix(c.err, " ")) {
				t.Errorf("error %q, want %q", err, c.err)
			}
		})
	}
}

func TestLinksStayBelowTheRoot(t *testing.T) {
	s := installation{files: map[string]string{"opt/docker.json": `{"features": {"cdi": false}}`}}.system(t)
	writeFile(t, filepath.Join(s.Root, "etc/x"), "")
	link := func(target, name string) {
		t.Helper()
		name = filepath.Join(s.Root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(name)
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"/opt/docker.json", "../../opt/docker.json", "../../../../../../opt/./docker.json", "/etc/../opt/l"} {
		link("docker.json", "opt/l")
		link(target, "etc/docker/daemon.json")
		if e := s.Engine(runtimes.Docker, "28.2.0"); e.CDI != runtimes.Off || len(e.Config) != 1 {
			t.Errorf("link to %s: %+v", target, e)
		}
	}
	link("daemon.json", "etc/docker/daemon.json")
	if e := s.Engine(runtimes.Docker, "28.2.0"); e.Err == nil || !strings.HasSuffix(e.Err.Message, "too many symbolic links") {
		t.Errorf("a link to itself: %+v", e)
	}
	link("/etc/x/none", "etc/docker/daemon.json")
	if e := s.Engine(runtimes.Docker, "28.2.0"); e.Err != nil || e.CDI != runtimes.On {
		t.Errorf("a link to nothing: %+v", e)
	}
}

func TestEngineAsJSON(t *testing.T) {
	s := installation{files: map[string]string{"etc/docker/daemon.json": "{\n]"}}.system(t)
	got, err := json.Marshal(s.Engine(runtimes.Docker, "26.1.5+dfsg1"))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"docker","version":"26.1.5+dfsg1","cdi":"unknown","maxCDIVersion":"0.7.0","specDirs":["/etc/cdi","/var/run/cdi"],"config":[],` +
		`"service":"docker.service","error":{"file":"` + s.Root + `/etc/docker/daemon.json","line":2,"column":1,"message":"invalid character ']' looking for beginning of object key string"}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}
