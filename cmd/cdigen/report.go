package main

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/specwatch"
	"github.com/cdigen/cdigen/internal/table"
)

// reportFlags are the options of report.
type reportFlags struct {
	doctorFlags
	redaction
	output string
}

func newReport() *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Write one HTML page about this host for a ticket",
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.output, "output", "o", "-", "`file` to write; - is standard output")
	withoutVariable(flags, "output") // CDIGEN_OUTPUT is where generate publishes
	f.redaction.add(flags)
	f.options.add(flags, "report")
	f.late = true // as doctor
	return cmd
}

func (f *reportFlags) run(cmd *cobra.Command) error {
	f.Command = "doctor" // whose options it has by the settings of the service
	if f.output == "-" && !cmd.Flags().Changed("output") && table.IsTerminal(cmd.OutOrStdout()) {
		return usageError(errors.New("name the file of the page with --output, such as report.html"))
	}
	if err := notASpec(f.output, "a report"); err != nil {
		return err
	}
	redactor, err := f.redactor()
	if err != nil {
		return err
	}
	list, snapshots, err := f.examine(cmd, nil)
	if err != nil && !isNoDevices(err) {
		return err
	}
	src := sources()
	service, _ := config.Load("ps", f.layers)
	used, err := whoHas(cmd, &service, &check.Lister{Sources: src})
	if err := cmd.Context().Err(); err != nil {
		return err
	}
	if err != nil {
		if !isNoDevices(err) {
			slog.Warn("the page does not have what uses GPUs", "err", err)
		}
		used = &use{}
	}
	s := snapshots[0]
	devices, _ := s.Directories.Devices()
	history, _ := specwatch.History{Path: watcherFile(f.RuntimeDir, s.Spec, historyFile)}.Read()
	slices.Reverse(history)
	p := &page{redact: redactor.Text}
	p.host(system(src), s.Inventory)
	if why := nothingToFix(s.Inventory); why != "" {
		p.put("<p>%s</p>\n", "There is "+why+".")
	} else {
		p.chain(check.Chain(list, snapshots...))
		p.findings(check.Blocks(slices.DeleteFunc(list, func(r check.Report) bool { return r.Severity == discover.Note })))
	}
	p.layout(s.Inventory, used)
	p.devices(described(devices, s.Inventory))
	p.containers(used)
	p.history(history)
	if err := writeOutput(cmd, f.output, p.end()); err != nil || f.output == "-" {
		return err
	}
	say("Wrote "+f.output+". Read it before you send it.", "written", "path", f.output)
	return nil
}

// system names the operating system, the kernel, the time and this program.
func system(src *check.Sources) string {
	name := ""
	if pretty := src.Release()["PRETTY_NAME"]; pretty != "" {
		name = pretty + ", "
	}
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return name
	}
	return name + "Linux " + unix.ByteSliceToString(u.Release[:]) + ", " + time.Now().UTC().Format("2006-01-02 15:04 UTC") + ", cdigen " + version
}
