// Command generatebench measures whole runs of `cdigen generate` against whole runs of
// `nvidia-ctk cdi generate`, in pairs on simulated hosts with a real driver root and a fake
// NVML library, and the start of cdigen against that of a least Go program. It prints the
// table of docs/performance.md and writes it there with its figures. Run it as root in the
// root of the source tree; make bench-pairs does.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/cdigen/cdigen/internal/bench"
	"github.com/cdigen/cdigen/internal/driverroots"
)

func main() {
	var m measurement
	flag.IntVar(&m.runs, "runs", 21, "how often to run each program")
	flag.StringVar(&m.description, "host", "testdata/hosts/h100x8.yaml", "description of the simulated host")
	flag.StringVar(&m.driverRoot, "driver-root", "", "driver root of make driver-roots")
	flag.StringVar(&m.cdigen, "cdigen", "bin/cdigen", "the cdigen to measure")
	flag.StringVar(&m.peer, "nvidia-ctk", "", "the nvidia-ctk to measure it against")
	version := flag.String("nvidia-ctk-version", "", "its version")
	figures := flag.String("figures", "docs/performance.json", "file for the figures")
	document := flag.String("document", "docs/performance.md", "file to write the table into")
	flag.Parse()
	f, err := m.all("nvidia-ctk " + strings.TrimPrefix(*version, "v"))
	if err == nil {
		fmt.Print(f.Table())
		err = errors.Join(f.Save(*figures), f.Document(*document))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generatebench:", err)
		os.Exit(1)
	}
}

type measurement struct {
	runs                    int
	description, driverRoot string
	cdigen, peer            string
	stderr                  *os.File
}

// program is one of the two that a case compares.
type program struct {
	name   string
	argv   []string
	output string // the spec that it writes; empty: none
	took   []taken
}

// taken is what one run took, by the clock and of the processors' time.
type taken struct{ clock, processor time.Duration }

// all measures all cases.
func (m *measurement) all(peer string) (f *bench.Figures, err error) {
	switch {
	case m.runs < 1:
		return nil, fmt.Errorf("-runs %d: at least 1 is needed", m.runs)
	case os.Getuid() != 0:
		return nil, errors.New("only root can make device nodes and show another procfs to nvidia-ctk: run it as root")
	}
	root, err := driverroots.Open(m.driverRoot)
	if err != nil {
		return nil, err
	}
	// Mounts are for this thread, which starts the programs, and nobody else.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, os.NewSyscallError("mount", err)
	}
	dir, err := os.MkdirTemp(filepath.Dir(m.driverRoot), "generatebench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if m.stderr, err = os.OpenFile(filepath.Join(dir, "stderr"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	defer m.stderr.Close()
	f = &bench.Figures{Machine: machine(), Driver: root.Version, Peer: peer, Runs: m.runs}
	for i := range scenarios {
		c, err := m.scenario(&scenarios[i], filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", scenarios[i].name, err)
		}
		f.Cases = append(f.Cases, c)
	}
	c, err := m.start(filepath.Join(dir, "printline"))
	f.Cases = append(f.Cases, c)
	return f, err
}

// scenario measures the generations of both programs on one host.
func (m *measurement) scenario(s *scenario, dir string) (c bench.Case, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return c, err
	}
	host, driver, names, err := s.build(dir, m.description, m.driverRoot)
	if err != nil {
		return c, errors.Join(err, os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, remove(dir)) }()
	pair := m.generations(dir, host, driver)
	// A first run of each loads the files and shows that the specs are complete.
	for _, p := range pair {
		if err := m.check(p, names); err != nil {
			return c, err
		}
	}
	return m.compare(s.name, pair)
}

// start measures what it takes to start cdigen, and a program that prints a line.
func (m *measurement) start(least string) (c bench.Case, err error) {
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", least, "./internal/bench/cmd/printline")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return c, fmt.Errorf("go build: %w: %s", err, out)
	}
	pair := [2]*program{{name: "cdigen --version", argv: []string{m.cdigen, "--version"}}, {name: "printline", argv: []string{least}}}
	for _, p := range pair {
		if _, err := m.run(p); err != nil {
			return c, err
		}
	}
	c, err = m.compare("`cdigen --version`", pair)
	c.Against = "a Go program that prints a line"
	return c, err
}

func (m *measurement) generations(dir, host, driver string) [2]*program {
	ours, theirs := filepath.Join(dir, "cdigen/nvidia.yaml"), filepath.Join(dir, "nvidia-ctk/nvidia.yaml")
	return [2]*program{{
		name: "cdigen",
		argv: []string{
			m.cdigen, "generate", "--output", ours, "--driver-root", driver, "--dev-root", host,
			"--proc-root", filepath.Join(host, "proc"), "--sys-root", filepath.Join(host, "sys"),
		},
		output: ours,
	}, {
		name: "nvidia-ctk",
		argv: []string{
			m.peer, "--quiet", "cdi", "generate", "--mode", "nvml", "--output", theirs,
			"--driver-root", driver, "--dev-root", host,
		},
		output: theirs,
	}}
}

// compare runs two programs in pairs, so that what else the machine does hits both alike.
func (m *measurement) compare(name string, pair [2]*program) (c bench.Case, err error) {
	for i := range m.runs {
		for j := range pair {
			p := pair[(i+j)%2]
			took, err := m.run(p)
			if err != nil {
				return c, err
			}
			p.took = append(p.took, took)
		}
	}
	return bench.Case{Name: name, Cdigen: pair[0].measured(), Other: pair[1].measured()}, nil
}

// run runs a program once, on a host that has no spec yet.
func (m *measurement) run(p *program) (taken, error) {
	if p.output != "" {
		dir := filepath.Dir(p.output)
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755), m.stderr.Truncate(0)); err != nil {
			return taken{}, err
		}
	}
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Stderr = m.stderr
	began := time.Now()
	err := cmd.Run()
	clock := time.Since(began)
	if err != nil {
		said, _ := os.ReadFile(m.stderr.Name())
		return taken{}, fmt.Errorf("%s: %w: %s", strings.Join(p.argv, " "), err, strings.TrimSpace(string(said)))
	}
	return taken{clock, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}

// check runs a program and looks for the devices in its spec: a program that finds less has
// less to do.
func (m *measurement) check(p *program, names []string) error {
	if _, err := m.run(p); err != nil {
		return err
	}
	data, err := os.ReadFile(p.output)
	if err != nil {
		return err
	}
	var spec struct {
		Devices []struct {
			Name string `json:"name"`
		} `json:"devices"`
		ContainerEdits struct {
			Mounts []struct{} `json:"mounts"`
		} `json:"containerEdits"`
	}
	if err := yaml.Unmarshal(data, &spec); err != nil {
		return fmt.Errorf("read the spec of %s: %w", p.name, err)
	}
	have := map[string]bool{}
	for _, d := range spec.Devices {
		have[d.Name] = true
	}
	for _, name := range names {
		if !have[name] {
			return fmt.Errorf("the spec of %s has no device %s", p.name, name)
		}
	}
	if len(spec.ContainerEdits.Mounts) == 0 {
		return fmt.Errorf("the spec of %s has no mounts", p.name)
	}
	return nil
}

func (p *program) measured() bench.Measured {
	var clock, processor []time.Duration
	for _, t := range p.took {
		clock, processor = append(clock, t.clock), append(processor, t.processor)
	}
	slices.Sort(clock)
	slices.Sort(processor)
	return bench.Measured{
		Median: milliseconds(clock[len(clock)/2]), Least: milliseconds(clock[0]), Most: milliseconds(clock[len(clock)-1]),
		Processor: milliseconds(processor[len(processor)/2]),
	}
}

// milliseconds has the precision that figures are kept with.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// machine describes the machine that measures.
func machine() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Sprintf("%d processors", runtime.NumCPU())
	}
	release := strings.SplitN(unix.ByteSliceToString(name.Release[:]), ".", 3)
	return fmt.Sprintf("%d processors, Linux %s", runtime.NumCPU(), strings.Join(release[:min(2, len(release))], "."))
}
