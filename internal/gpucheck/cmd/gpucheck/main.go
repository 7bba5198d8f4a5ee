// Command gpucheck does for the script gpu-check what takes more than a shell; see
// package gpucheck.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/capture"
	"github.com/cdigen/cdigen/internal/gpucheck"
	"github.com/cdigen/cdigen/internal/redact"
)

const usage = `usage: gpucheck facts INFO.json                    print a host's facts for a shell
       gpucheck compare WITH-NVML.json WITHOUT.json  compare the full GPUs of two discoveries
       gpucheck bundle DIRECTORY ROOTFS -- COMMAND … write a container's config.json
       gpucheck time [-runs N] FILE NAME -- COMMAND … measure runs of a program
       gpucheck idle [flags] PID                     measure an idle cdigen watch
       gpucheck redact KEY                           redact a text
       gpucheck report [flags] WORK OUTPUT           write the report
`

// errDifferent is the result of a comparison.
var errDifferent = errors.New("they differ")

func main() { os.Exit(status()) }

func status() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	commands := map[string]func(context.Context, []string) error{
		"facts": facts, "compare": compare, "bundle": bundle, "time": measure, "idle": idle, "redact": redactText, "report": report,
	}
	var run func(context.Context, []string) error
	if len(os.Args) > 1 {
		run = commands[os.Args[1]]
	}
	if run == nil {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if err := run(ctx, os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "gpucheck %s: %v\n", os.Args[1], err)
		return 1
	}
	return 0
}

var errUsage = errors.New("wrong arguments; gpucheck without any prints what there is")

// inventory reads what "cdigen info -o json" has printed.
func inventory(file string) (*discover.Inventory, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var inv discover.Inventory
	if err := json.Unmarshal(data, &inv); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &inv, nil
}

func facts(_ context.Context, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	inv, err := inventory(args[0])
	if err != nil {
		return err
	}
	return gpucheck.WriteShell(os.Stdout, gpucheck.Facts(inv))
}

func compare(_ context.Context, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	nvml, err := inventory(args[0])
	if err != nil {
		return err
	}
	procfs, err := inventory(args[1])
	if err != nil {
		return err
	}
	n, differences := gpucheck.Compare(nvml, procfs)
	if len(differences) > 0 {
		fmt.Println(strings.Join(differences, "; "))
		return errDifferent
	}
	fmt.Printf("%d full GPUs with the same index, minor number, UUID and nodes\n", n)
	return nil
}

// command takes the words after -- off arguments.
func command(args []string, before int) (first, after []string, err error) {
	at := slices.Index(args, "--")
	if at != before || at == len(args)-1 {
		return nil, nil, errUsage
	}
	return args[:at], args[at+1:], nil
}

func bundle(_ context.Context, args []string) error {
	first, words, err := command(args, 2)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(gpucheck.Bundle(first[1], filepath.Dir(filepath.Dir(self)), words), "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(first[0], 0o755); err != nil { //nolint:gosec // it has no secret
		return err
	}
	return os.WriteFile(filepath.Join(first[0], "config.json"), append(data, '\n'), 0o644) //nolint:gosec // as runc spec does
}

// measure appends to a file how long runs of a program took. What the last has printed
// goes where this program prints.
func measure(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("time", flag.ExitOnError)
	runs := flags.Int("runs", 20, "how `often` to run it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	first, words, err := command(flags.Args(), 2)
	if err != nil || *runs < 1 {
		return errors.Join(errUsage, err)
	}
	var took []float64
	for i := range *runs {
		c := exec.CommandContext(ctx, words[0], words[1:]...) //nolint:gosec // the script says which
		if i == *runs-1 {
			c.Stdout, c.Stderr = os.Stdout, os.Stderr
		}
		began := time.Now()
		if err := c.Run(); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(words, " "), err)
		}
		took = append(took, float64(time.Since(began).Microseconds())/1000)
	}
	slices.Sort(took)
	line, err := json.Marshal(gpucheck.Timing{Name: first[1], Runs: *runs, Min: took[0], Median: took[len(took)/2], Max: took[len(took)-1]})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(first[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s\n", line)
	return errors.Join(err, f.Close())
}

func idle(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("idle", flag.ExitOnError)
	seconds := flags.Int("seconds", 60, "how `long` to look on")
	health := flags.String("health", "", "the watcher's `socket`")
	sys := flags.String("sys", "/sys", "`directory` of the sys file system")
	output := flags.String("json", "", "`file` for the result")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var pid int
	if _, err := fmt.Sscan(flags.Arg(0), &pid); err != nil || flags.NArg() != 1 || *seconds < 1 {
		return errUsage
	}
	d := time.Duration(*seconds) * time.Second
	ctx, cancel := context.WithTimeout(ctx, d+time.Minute)
	defer cancel()
	result, err := gpucheck.MeasureIdle(ctx, pid, *health, *sys, d)
	if err != nil {
		return err
	}
	fmt.Println(result)
	if *output == "" {
		return nil
	}
	data, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*output, append(data, '\n'), 0o600)
}

func redactText(_ context.Context, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	// As cdigen capture does, so that what was made from a capture can be compared.
	_, err = io.WriteString(os.Stdout, capture.Text(redact.New([]byte(args[0]), redact.Collect("/", os.Getenv)), string(data)))
	return err
}

func report(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("report", flag.ExitOnError)
	key := flags.String("key", "", "redaction `key` of the captures in it")
	identifiers := flags.String("identifiers", "", "`file` of serial numbers, one a line")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 || *key == "" {
		return errUsage
	}
	ids := redact.Collect("/", os.Getenv)
	if *identifiers != "" {
		f, err := os.Open(*identifiers)
		if err != nil {
			return err
		}
		defer f.Close()
		var serials []string
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			serials = append(serials, strings.TrimSpace(lines.Text()))
		}
		ids.Add(nil, nil, serials)
	}
	r, err := gpucheck.ReadWork(flags.Arg(0), time.Now())
	if err != nil {
		return err
	}
	return r.Write(flags.Arg(0), flags.Arg(1), redact.New([]byte(*key), ids))
}
