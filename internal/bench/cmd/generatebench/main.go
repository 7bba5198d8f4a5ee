// Command generatebench measures whole runs of `cdigen generate` against whole
// runs of `nvidia-ctk cdi generate` on one simulated host with one fake NVML
// library, and counts their system calls. Run it in the root of the source tree.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/cdigen/cdigen/internal/driverroots"
	"github.com/cdigen/cdigen/internal/elfstub"
	"github.com/cdigen/cdigen/internal/simhost"
	"github.com/cdigen/cdigen/internal/simhost/fakenvml"
)

func main() {
	var b bench
	flag.IntVar(&b.runs, "runs", 21, "how often to run each program")
	flag.IntVar(&b.gpus, "gpus", 8, "how many GPUs the specs must have")
	flag.StringVar(&b.description, "host", "internal/bench/h100x8.yaml", "description of the simulated host")
	flag.StringVar(&b.driverRoot, "driver-root", "", "driver root of make driver-roots to use (default: the simulated host's own libraries)")
	flag.IntVar(&b.systemLibraries, "system-libraries", 0, "libraries that have nothing to do with the driver to add to the driver root and its loader's cache")
	flag.StringVar(&b.cdigen, "cdigen", "bin/cdigen", "the cdigen to measure")
	flag.StringVar(&b.peer, "nvidia-ctk", "", "the nvidia-ctk to measure it against (default: none)")
	flag.Parse()
	if err := b.run(); err != nil {
		fmt.Fprintln(os.Stderr, "generatebench:", err)
		os.Exit(1)
	}
}

type bench struct {
	runs, gpus      int
	description     string
	driverRoot      string
	systemLibraries int
	cdigen, peer    string
}

// program is one of the programs that are measured.
type program struct {
	name   string
	argv   []string
	output string
	took   []time.Duration
}

func (b *bench) run() (err error) {
	if b.runs < 1 {
		return fmt.Errorf("-runs %d: at least 1 is needed", b.runs)
	}
	beside := ""
	if b.driverRoot != "" {
		beside = filepath.Dir(b.driverRoot)
	}
	dir, err := os.MkdirTemp(beside, "generatebench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	host := filepath.Join(dir, "host")
	driver := host
	if b.driverRoot != "" {
		host, driver, err = driverroots.WithFakeNVML(dir, b.driverRoot, b.description)
	} else {
		err = simulate(b.description, host)
	}
	if err == nil && b.systemLibraries > 0 {
		err = addSystemLibraries(driver, b.systemLibraries)
	}
	if err != nil {
		return err
	}
	programs := b.programs(dir, host, driver)
	// A first run of each loads the files and shows that the spec is whole.
	for _, p := range programs {
		if err := p.check(b.gpus); err != nil {
			return err
		}
	}
	// In turn, so that what else the machine does hits all alike.
	for range b.runs {
		for _, p := range programs {
			took, err := p.measure()
			if err != nil {
				return err
			}
			p.took = append(p.took, took)
		}
	}
	return report(os.Stdout, b, programs, filepath.Join(dir, "strace"))
}

// simulate makes the simulated host in dir.
func simulate(description, dir string) error {
	nvml, err := fakenvml.Build()
	if err != nil {
		return err
	}
	d, err := simhost.Load(description)
	if err != nil {
		return err
	}
	// nvidia-ctk calls this library where there is one, and the simulated one has
	// no functions.
	d.Driver.WithoutLibraries = append(d.Driver.WithoutLibraries, "libnvidia-sandboxutils")
	return d.Build(dir, simhost.Options{NVMLLibrary: nvml})
}

// addSystemLibraries puts n libraries into a driver root, as a whole system has
// them beside those of the driver, and has ldconfig make its cache anew.
func addSystemLibraries(root string, n int) error {
	dir := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	for i := range n {
		soname := fmt.Sprintf("libsystem%d.so.1", i)
		if err := os.WriteFile(filepath.Join(dir, soname+".0"), elfstub.SharedObject("amd64", soname), 0o644); err != nil {
			return err
		}
	}
	// It makes the links to the SONAMEs too.
	if out, err := exec.Command("ldconfig", "-r", root).CombinedOutput(); err != nil {
		return fmt.Errorf("ldconfig -r %s: %w: %s", root, err, out)
	}
	return nil
}

func (b *bench) programs(dir, host, driver string) []*program {
	ours := filepath.Join(dir, "cdigen", "nvidia.yaml")
	argv := []string{
		b.cdigen, "generate", "--output", ours, "--driver-root", driver, "--dev-root", host,
		"--proc-root", filepath.Join(host, "proc"), "--sys-root", filepath.Join(host, "sys"),
	}
	if os.Getuid() != 0 {
		// Only root can make device nodes.
		argv = append(argv, "--dev-nodes", filepath.Join(host, "dev-nodes"))
	}
	programs := []*program{{name: "cdigen generate", argv: argv, output: ours}}
	if b.peer != "" {
		theirs := filepath.Join(dir, "nvidia-ctk", "nvidia.yaml")
		programs = append(programs, &program{
			name: "nvidia-ctk cdi generate",
			argv: []string{
				b.peer, "--quiet", "cdi", "generate", "--mode", "nvml", "--output", theirs,
				"--driver-root", driver, "--dev-root", host,
			},
			output: theirs,
		})
	}
	return programs
}

// measure runs the program once, on a host that has no spec yet.
func (p *program) measure() (time.Duration, error) {
	if err := os.RemoveAll(filepath.Dir(p.output)); err != nil {
		return 0, err
	}
	if err := os.Mkdir(filepath.Dir(p.output), 0o755); err != nil {
		return 0, err
	}
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	began := time.Now()
	_, err := cmd.Output()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", strings.Join(p.argv, " "), withStderr(err))
	}
	return took, nil
}

// check runs the program and looks for the devices 0 to gpus-1 in its spec: a
// program that finds less has less to do.
func (p *program) check(gpus int) error {
	if _, err := p.measure(); err != nil {
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
	names := map[string]bool{}
	for _, d := range spec.Devices {
		names[d.Name] = true
	}
	for i := range gpus {
		if !names[strconv.Itoa(i)] {
			return fmt.Errorf("the spec of %s has no device %d", p.name, i)
		}
	}
	if len(spec.ContainerEdits.Mounts) == 0 {
		return fmt.Errorf("the spec of %s has no mounts", p.name)
	}
	return nil
}

// systemCalls counts the system calls of one run, child processes included.
func (p *program) systemCalls(scratch string) (int, error) {
	traced := *p
	traced.argv = append([]string{"strace", "-f", "-c", "-o", scratch}, p.argv...)
	if _, err := traced.measure(); err != nil {
		return 0, err
	}
	table, err := os.ReadFile(scratch)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(table)) {
		// % time, seconds, usecs/call, calls, errors, "total"
		if fields := strings.Fields(line); len(fields) >= 5 && fields[len(fields)-1] == "total" {
			return strconv.Atoi(fields[3])
		}
	}
	return 0, errors.New("strace printed no total")
}

func report(w *os.File, b *bench, programs []*program, scratch string) error {
	what := b.description
	if b.driverRoot != "" {
		what += ", driver root " + filepath.Base(b.driverRoot)
	}
	if b.systemLibraries > 0 {
		what += fmt.Sprintf(", %d further libraries", b.systemLibraries)
	}
	fmt.Fprintf(w, "%s: %d runs of each program in turn\n", what, b.runs)
	fmt.Fprintf(w, "%-26s %10s %10s %10s %14s\n", "", "median", "least", "most", "system calls")
	for _, p := range programs {
		slices.Sort(p.took)
		calls, err := p.systemCalls(scratch)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%-26s %10s %10s %10s %14d\n", p.name, milliseconds(median(p.took)), milliseconds(p.took[0]),
			milliseconds(p.took[len(p.took)-1]), calls)
	}
	if len(programs) == 2 {
		fmt.Fprintf(w, "%s is %.1f times as fast\n", programs[0].name,
			float64(median(programs[1].took))/float64(median(programs[0].took)))
	}
	return nil
}

// median of a sorted list.
func median(d []time.Duration) time.Duration { return d[len(d)/2] }

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// withStderr adds to the error of a program what it printed.
func withStderr(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}
