package e2e

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// The CDI library went to another import path with 0.6.2.
const (
	oldLibrary = "github.com/container-orchestrated-devices/container-device-interface"
	newLibrary = "tags.cncf.io/container-device-interface"
)

// crioReleases are those of CRI-O with the version of the CDI library in their go.mod.
var crioReleases = []struct{ release, module, version string }{
	{"1.25", oldLibrary, "v0.5.0"},
	{"1.26", oldLibrary, "v0.5.3"},
	{"1.27", oldLibrary, "v0.5.4"},
	{"1.28", oldLibrary, "v0.6.0"},
	{"1.29", newLibrary, "v0.6.2"},
	{"1.30", newLibrary, "v0.7.2"},
	{"1.31, 1.32", newLibrary, "v0.8.0"},
	{"1.33, 1.34", newLibrary, "v1.0.1"},
	{"1.35, 1.36", newLibrary, "v1.1.0"},
}

// crioName is the release's name in ENGINE= and in the table.
func crioName(release string) string {
	return "cri-o-" + strings.ReplaceAll(release, ", 1.", "-")
}

//go:embed testdata/cdilibrary.go.txt
var librarySource string

// buildLibrary builds the program that injects with a version of the library.
func buildLibrary(module, version string) (path string, err error) {
	programs, err := programsDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(programs, "cdi-"+version)
	path = filepath.Join(dir, "inject")
	main := strings.ReplaceAll(librarySource, "MODULE", module)
	if old, err := os.ReadFile(path + ".go"); err == nil && string(old) == main {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	for name, text := range map[string]string{"main.go": main, "go.mod": "module inject\n\ngo 1.21\n\nrequire " + module + " " + version + "\n"} {
		if err := os.WriteFile(filepath.Join(scratch, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	cmd := exec.Command("go", "build", "-mod=mod", "-o", path, ".")
	cmd.Dir = scratch
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with %s %s: %w\n%s", module, version, err, lastBytes(out, 2000))
	}
	return path, os.WriteFile(path+".go", []byte(main), 0o644)
}

// library is a running program that injects.
type library struct {
	questions io.Writer
	answers   *json.Decoder
}

type injected struct {
	Spec       oci.Spec
	Error      string
	Unresolved []string
}

func startLibrary(t *testing.T, path string) *library {
	t.Helper()
	cmd := exec.Command(path, "/etc/cdi", runCDI())
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() {
		check(t, in.Close())
		check(t, cmd.Wait())
	})
	return &library{in, json.NewDecoder(out)}
}

func (l *library) ask(t *testing.T, devices ...string) injected {
	t.Helper()
	_, err := fmt.Fprintln(l.questions, strings.Join(devices, ","))
	check(t, err)
	var answer injected
	check(t, l.answers.Decode(&answer))
	return answer
}

// inside gives what a container of the OCI spec would be given, in the form of what is
// seen in a real one.
func (i *injected) inside() inside {
	in := inside{map[string]string{}, map[string]string{}, map[string]string{}}
	if i.Spec.Linux != nil {
		for _, d := range i.Spec.Linux.Devices {
			in.nodes[d.Path] = fmt.Sprintf("%d:%d", d.Major, d.Minor)
		}
	}
	if i.Spec.Process != nil {
		for _, e := range i.Spec.Process.Env {
			name, value, _ := strings.Cut(e, "=")
			in.env[name] = value
		}
	}
	for _, m := range i.Spec.Mounts {
		in.mounts[m.Destination] = strings.Join(m.Options, ",")
	}
	return in
}

// TestCRIOLibrary stands in for the releases of CRI-O that cannot be built: what one
// does with a spec is what the CDI library of its release does, a cache that follows the
// directories and injection into an OCI spec. The OCI runtimes are in TestEngines.
func TestCRIOLibrary(t *testing.T) {
	var names []string
	for _, r := range crioReleases {
		// The oldest and the newest are quick.
		run, write := selected(crioName(r.release), r == crioReleases[0] || r == crioReleases[len(crioReleases)-1])
		if !run {
			continue
		}
		names = append(names, crioName(r.release))
		t.Run(crioName(r.release), func(t *testing.T) {
			requireNamespace(t)
			check(t, os.MkdirAll(runCDI(), 0o755))
			began := time.Now()
			path, err := buildLibrary(r.module, r.version)
			if err != nil {
				missing(t, err.Error())
			}
			host := simulatedHost(t)
			copyNodes(t, host)
			publishHere(t)
			result := engineResult{Engine: crioName(r.release), Version: "CDI library " + strings.TrimPrefix(r.version, "v"), Setup: seconds(time.Since(began)), Cases: map[string]caseResult{}}
			began = time.Now()
			cases := matrixCases()
			for _, c := range cases {
				result.Cases[c.name] = caseResult{Result: none, Note: "of this release of CRI-O only the CDI library was run: the Go module proxy that was used refused its module, and Debian has no package"}
			}
			l := startLibrary(t, path)
			tests := libraryCases(l, path, host)
			for _, c := range cases {
				test, ok := tests[c.name]
				if !ok {
					continue
				}
				result.run(t, c.name, passes, func(t *testing.T, note *string) { *note = test(t) })
			}
			result.Seconds = seconds(time.Since(began))
			if write {
				keepResult(t, &result)
			}
		})
	}
	t.Logf("releases: %s (%s=all for all)", strings.Join(names, ", "), engineVariable)
}

// libraryCases are those of matrixCases that concern the library; each gives a note.
func libraryCases(l *library, path, host string) map[string]func(*testing.T) string {
	const five = "nvidia.com/gpu=5"
	cases := map[string]func(*testing.T) string{
		"unknown name": func(t *testing.T) string {
			if a := l.ask(t, "nvidia.com/gpu=99"); !strings.Contains(a.Error, "nvidia.com/gpu=99") || !slices.Equal(a.Unresolved, []string{"nvidia.com/gpu=99"}) {
				t.Errorf("error %q, unresolved %q", a.Error, a.Unresolved)
			}
			return ""
		},
		"broken neighbour": func(t *testing.T) string {
			for _, dir := range bothDirs() {
				neighbour(t, dir, "vendor.yaml", brokenSpec)
				other := otherNeighbour(t, dir)
				until(t, "the specs to be seen", func() bool { a := l.ask(t, other); return a.inside().env["SPEC"] == "other" })
				a := l.ask(t, one...)
				checkInside(t, host, a.inside(), given[0].nodes)
			}
			return ""
		},
		"broken at start": func(t *testing.T) string {
			for _, dir := range bothDirs() {
				neighbour(t, dir, "vendor.yaml", brokenSpec)
			}
			a := startLibrary(t, path).ask(t, one...)
			checkInside(t, host, a.inside(), given[0].nodes)
			return ""
		},
		"shadowed": func(t *testing.T) string {
			spec := func(device string) string { a := l.ask(t, "nvidia.com/gpu="+device); return a.inside().env["SPEC"] }
			t.Cleanup(func() { until(t, "the shadow to go", func() bool { return spec("0") == "" }) })
			neighbour(t, runCDI(), "nvidia.yaml", shadowSpec)
			until(t, "the shadow", func() bool { return spec("0") == "shadow" })
			if got := spec("1"); got != "" {
				t.Errorf("device 1, which is ours alone, has SPEC=%s", got)
			}
			return ""
		},
		"replaced": func(t *testing.T) string {
			publishHere(t, "--device", "0")
			until(t, "the old spec's device to be unknown", func() bool { return slices.Equal(l.ask(t, five).Unresolved, []string{five}) })
			publishHere(t)
			start := time.Now()
			until(t, "the new spec's device", func() bool { return l.ask(t, five).Error == "" })
			return fmt.Sprintf("after %v", time.Since(start).Round(time.Millisecond))
		},
	}
	for _, g := range given {
		cases[g.name] = func(t *testing.T) string {
			a := l.ask(t, g.devices...)
			if a.Error != "" {
				t.Fatal(a.Error)
			}
			in := a.inside()
			checkInside(t, host, in, g.nodes)
			// The device filter lets in the nodes and no others.
			rules := map[string]bool{}
			for _, r := range a.Spec.Linux.Resources.Devices {
				rules[fmt.Sprintf("%d:%d", *r.Major, *r.Minor)] = r.Allow
			}
			want := map[string]bool{}
			for number := range maps.Values(in.nodes) {
				want[number] = true
			}
			if diff := cmp.Diff(want, rules); diff != "" {
				t.Errorf("device rules (-want +got):\n%s", diff)
			}
			return ""
		}
	}
	return cases
}
