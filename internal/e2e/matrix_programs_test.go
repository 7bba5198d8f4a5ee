package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// goProgram is a program that is built from its module, once, and kept in the cache.
type goProgram struct {
	module, version string
	packages        []string
	// name is that of the program if the package is the module's own, ".".
	name string
	// cgo: the program links C.
	cgo bool
	// kubernetes: the module's own replacements point into its source tree, and the
	// modules are published on their own.
	kubernetes bool
	ldflags    string
	tags       string
	// make makes what is not plain Go, into dir, from a copy of the module.
	make func(source, dir, version string) error
}

// The versions are those that the matrix was last run with; each is the newest that
// could be had then, but for the kubelet, whose later versions refuse cgroups of
// version 1, which is all there is here.
var (
	containerd2 = goProgram{module: "github.com/containerd/containerd/v2", version: "v2.4.2", packages: []string{"cmd/containerd", "cmd/ctr", "cmd/containerd-shim-runc-v2"}}
	buildkit    = goProgram{module: "github.com/moby/buildkit", version: "v0.34.2", packages: []string{"cmd/buildkitd", "cmd/buildctl"},
		ldflags: "-X github.com/moby/buildkit/version.Version=v0.34.2"}
	networkPlugins = goProgram{module: "github.com/containernetworking/plugins", version: "v1.10.0", packages: []string{"plugins/main/loopback", "plugins/main/ptp", "plugins/ipam/host-local"}}
	kubelet        = kubernetes("cmd/kubelet")
	controlPlane   = kubernetes("cmd/kube-apiserver", "cmd/kube-controller-manager", "cmd/kube-scheduler", "cmd/kubectl")
	etcd           = goProgram{module: "go.etcd.io/etcd/server/v3", version: "v3.6.4", packages: []string{"."}, name: "etcd"}
	helm           = goProgram{module: "helm.sh/helm/v3", version: "v3.22.0", packages: []string{"cmd/helm"}}
	devicePlugin   = goProgram{module: "github.com/NVIDIA/k8s-device-plugin", version: "v0.19.3", packages: []string{"cmd/nvidia-device-plugin"}, cgo: true}
	// Docker 29.8.0 has this number as a module.
	docker29 = goProgram{module: "github.com/moby/moby/v2", version: "v2.0.0-beta.23", packages: []string{"cmd/dockerd"},
		ldflags: "-X github.com/moby/moby/v2/dockerversion.Version=29.8.0"}
	nerdctl = goProgram{module: "github.com/containerd/nerdctl/v2", version: "v2.3.4", packages: []string{"cmd/nerdctl"},
		ldflags: "-X github.com/containerd/nerdctl/v2/pkg/version.Version=2.3.4"}
	crio      = goProgram{module: "github.com/cri-o/cri-o", version: "v1.36.3", packages: []string{"cmd/crio"}, cgo: true, tags: "containers_image_openpgp exclude_graphdriver_btrfs", make: makePinns}
	gvisor    = goProgram{module: "gvisor.dev/gvisor", version: "v0.0.0-20260905035102-160fafc42237", packages: []string{"runsc"}, ldflags: "-X gvisor.dev/gvisor/runsc/version.version=20260905.0"}
	apptainer = goProgram{module: "github.com/apptainer/apptainer", version: "v1.5.3", packages: []string{"cmd/apptainer"}, make: makeApptainer}
)

// kubernetes are programs of Kubernetes.
func kubernetes(packages ...string) goProgram {
	return goProgram{module: "k8s.io/kubernetes", version: "v1.34.4", packages: packages, kubernetes: true,
		ldflags: "-X k8s.io/component-base/version.gitVersion=v1.34.4 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"}
}

// makePinns compiles the program of CRI-O that is C.
func makePinns(source, dir, _ string) error {
	files, err := filepath.Glob(filepath.Join(source, "pinns/src/*.c"))
	if err != nil {
		return err
	}
	return command(source, "cc", append([]string{"-std=c99", "-Os", "-static", "-o", filepath.Join(dir, "pinns")}, files...)...)
}

// makeApptainer makes the tree that an ordinary user may put anywhere.
func makeApptainer(source, dir, version string) error {
	// The files of a module cannot be executable. What is touched has apptainer's own
	// makefile not empty Go's cache.
	script := `set -e
echo "$1" >VERSION
find . -name '*.sh' -exec chmod +x {} +
chmod +x mconfig makeit/* mlocal/scripts/* scripts/*
./mconfig --without-suid --without-seccomp --without-network --without-libsubid -p "$2"
touch builddir/.clean-starter
make -C builddir
make -C builddir install
ln -sf bin/apptainer "$2/apptainer"`
	return command(source, "sh", "-c", script, "sh", version, dir)
}

// programsDir has a directory for each of them.
func programsDir() (string, error) {
	cache, err := cacheDir()
	return filepath.Join(cache, "programs"), err
}

// build gives the directory with the programs.
func (p goProgram) build() (dir string, err error) {
	programs, err := programsDir()
	if err != nil {
		return "", err
	}
	name := regexp.MustCompile(`/v\d+$`).ReplaceAllString(p.module, "")
	dir = filepath.Join(programs, filepath.Base(name)+"-"+p.version)
	program := func(pkg string) string {
		if pkg == "." {
			return p.name
		}
		return filepath.Base(pkg)
	}
	built := func(pkg string) bool {
		_, err := os.Stat(filepath.Join(dir, program(pkg)))
		return err == nil
	}
	if !slices.ContainsFunc(p.packages, func(pkg string) bool { return !built(pkg) }) {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	// As a dependency of a module of ours: `go install` refuses modules that replace or
	// exclude others.
	mod := fmt.Sprintf("module build\n\ngo 1.26.0\n\nrequire %s %s\n", p.module, p.version)
	if p.kubernetes {
		more, err := p.stagingModules(scratch)
		if err != nil {
			return "", err
		}
		mod += more
	}
	if err := os.WriteFile(filepath.Join(scratch, "go.mod"), []byte(mod), 0o644); err != nil {
		return "", err
	}
	if p.make != nil {
		module, err := p.download(scratch)
		if err != nil {
			return "", err
		}
		source := filepath.Join(scratch, "source")
		if err := command(scratch, "sh", "-c", `cp -r "$1" "$2" && chmod -R u+w "$2"`, "sh", module.Dir, source); err != nil {
			return "", err
		}
		if err := p.make(source, dir, strings.TrimPrefix(p.version, "v")); err != nil {
			return "", err
		}
	}
	for _, pkg := range p.packages {
		if built(pkg) {
			continue
		}
		cmd := exec.Command("go", "build", "-mod=mod", "-trimpath", "-tags", p.tags, "-ldflags", "-s -w "+p.ldflags, "-o", filepath.Join(scratch, program(pkg)), path.Join(p.module, pkg))
		cmd.Dir = scratch
		cmd.Env = append(os.Environ(), fmt.Sprintf("CGO_ENABLED=%d", map[bool]int{true: 1}[p.cgo]), "GOFLAGS=-buildvcs=false", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s %s: %w\n%s", p.module, p.version, err, lastBytes(out, 2000))
		}
		if err := os.Rename(filepath.Join(scratch, program(pkg)), filepath.Join(dir, program(pkg))); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// has builds programs that a place's PATH has then, before Debian's.
func (p *place) has(t *testing.T, programs ...goProgram) {
	t.Helper()
	for _, program := range programs {
		dir, err := program.build()
		if err != nil {
			missing(t, err.Error())
		}
		p.path += dir + ":"
	}
}

// stagingModules are the replacements that make a program of Kubernetes' own module
// buildable: the parts of its source tree that are modules are published as v0.X.Y.
func (p goProgram) stagingModules(dir string) (string, error) {
	module, err := p.download(dir)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(module.GoMod)
	if err != nil {
		return "", err
	}
	version := "v0" + strings.TrimPrefix(p.version, "v1")
	var mod strings.Builder
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "godebug ") {
			mod.WriteString(line)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^\s*(k8s\.io/\S+) => \./staging/`).FindAllStringSubmatch(string(data), -1) {
		fmt.Fprintf(&mod, "replace %s => %s %s\n", m[1], m[1], version)
	}
	return mod.String(), nil
}

// module is what Go says of a module that it has downloaded.
type module struct{ GoMod, Dir string }

func (p goProgram) download(dir string) (m module, err error) {
	cmd := exec.Command("go", "mod", "download", "-json", p.module+"@"+p.version)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return m, fmt.Errorf("download %s %s: %w", p.module, p.version, err)
	}
	return m, json.Unmarshal(out, &m)
}
