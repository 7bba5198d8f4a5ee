// Command contentsdoc writes the tables of the documentation from those in the code:
// docs/contents.md from package driverfiles, docs/findings.md from package check, and those of
// docs/runtimes.md from package runtimes and of docs/metrics.md from package specwatch.
package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/nvidiactk"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/specwatch"
)

func main() {
	if err := write(); err != nil {
		fmt.Fprintln(os.Stderr, "contentsdoc:", err)
		os.Exit(1)
	}
}

// write writes the tables into the files in docs.
func write() error {
	var b strings.Builder
	b.WriteString(`# What goes into a container

Written by ` + "`make docs`" + ` from the tables in internal/driverfiles/tables.go; do not edit.

` + "`--capabilities`" + ` says what containers want GPUs for, in NVIDIA's terms; the default is
all. A library or file goes in when it serves one of them. A library of the
driver's version that is not in the table goes in always. ` + "`%v`" + ` is the driver's
version, ` + "`*`" + ` any characters.

## Libraries

Each is mounted under its SONAME and the further names, in the directories of the
library layout (` + "`--library-layout`" + `); 32-bit ones, for ` + "`compat32`" + `, in theirs.

| library | capabilities | further names | for |
| --- | --- | --- | --- |
`)
	for _, e := range driverfiles.Libraries {
		version := e.Version
		if version == "" {
			version = "%v"
		}
		file := e.Stem + ".so." + version
		if e.Dir != "" {
			file = e.Dir + "/" + file
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", file, list(e.Capabilities), code(e.Names), e.For)
	}
	b.WriteString("\nNot injected:\n\n| library | why |\n| --- | --- |\n")
	for _, stem := range slices.Sorted(maps.Keys(driverfiles.LeftOut)) {
		fmt.Fprintf(&b, "| `%s.so.%%v` | %s |\n", stem, driverfiles.LeftOut[stem])
	}
	foreign(&b)
	b.WriteString(`
## Other files

` + "`*`" + ` takes in all files of that name: what a new driver adds there goes in. What a host
lacks is a quiet finding (` + "`--report`" + `). A path that is not absolute is below each directory
of the library layout.

Vulkan's, EGL's and OpenCL's manifests are read. Where one names its library by a path, as
on NixOS, that path goes in as well, or a finding says why it does not.

| file | kind | capabilities | in the container | for |
| --- | --- | --- | --- | --- |
`)
	for _, e := range driverfiles.Files {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", e.Name, e.Kind, list(e.Capabilities), code(e.Targets), e.For)
	}
	b.WriteString("\nNot injected, like other files that are called as the driver's are; each is a quiet finding:\n\n| file | why |\n| --- | --- |\n")
	for _, e := range driverfiles.LeftOutFiles {
		fmt.Fprintf(&b, "| `%s` | %s |\n", e.Name, e.Reason)
	}
	b.WriteString(`
Sockets and directories are mounted writable, ` + "`noexec`" + ` and ` + "`nosuid`" + `; all else
read-only, ` + "`nosuid`" + ` and ` + "`nodev`" + `.

## Device nodes

| node | capabilities |
| --- | --- |
| ` + "`/dev/nvidiactl`, `/dev/nvidia<minor>`, `/dev/nvidia-caps/nvidia-cap<N>`" + ` | all |
| ` + "`/dev/nvidia-uvm`, `/dev/nvidia-uvm-tools`" + ` | compute, video, graphics |
| ` + "`/dev/nvidia-modeset`" + ` | graphics, display |
| ` + "`/dev/dri/card<N>`, `/dev/dri/renderD<N>`, `/dev/dri/by-path/*`" + ` | graphics, display, video; of a MIG device only with a graphics profile |

## Variables

| variable | when | for |
| --- | --- | --- |
| ` + "`NVIDIA_VISIBLE_DEVICES=void`" + ` | always | images of CUDA set it to ` + "`all`" + `; where NVIDIA's own runtime hook is installed too, that would inject everything a second time |
| ` + "`TRITON_LIBCUDA_PATH=<directory>`" + ` | with ` + "`libcuda.so.1`" + ` | Triton, which otherwise asks ` + "`ldconfig -p`" + `, and that knows of no mounts; its directory, in the library layout |
| ` + "`CUDA_MPS_PIPE_DIRECTORY=<directory>`" + ` | with ` + "`--mps-directory`" + `, unless that is ` + "`/tmp/nvidia-mps`" + ` | CUDA, to find them |

A variable of the same name in ` + "`containerEdits`" + ` of the ` + "`--edits`" + ` file takes the place of one of these.
`)
	return errors.Join(os.WriteFile("docs/contents.md", []byte(b.String()), 0o644), writeFindings("docs/findings.md"), writeReleases("docs/runtimes.md"), writeMetrics("docs/metrics.md"), writeToolkit("docs/migrating.md"))
}

// foreign writes what belongs to other packages.
func foreign(b *strings.Builder) {
	b.WriteString(`
### Names of other packages

Nothing is mounted where a package of a distribution has a file that is not the driver's: the
mount would take the place of the image's own file, and the package manager could not install
or upgrade the package in the container ("Device or resource busy", "Invalid cross-device
link"). Images that need one of these have it from the package.

| file | what | packages |
| --- | --- | --- |
`)
	for _, e := range driverfiles.Others {
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", e.Name, e.What, e.Packages)
	}
	b.WriteString(`
A user who needs the host's file in containers mounts it with ` + "`--edits`" + `, for EGL on
Wayland in Debian's images:

` + "```yaml" + `
containerEdits:
  mounts:
    - hostPath: /usr/lib/x86_64-linux-gnu/libnvidia-egl-wayland.so.1
      containerPath: /usr/lib/x86_64-linux-gnu/libnvidia-egl-wayland.so.1
      options: [ro, nosuid, nodev, rbind, rprivate]
    - hostPath: /usr/share/egl/egl_external_platform.d/10_nvidia_wayland.json
      containerPath: /usr/share/egl/egl_external_platform.d/10_nvidia_wayland.json
      options: [ro, nosuid, nodev, rbind, rprivate]
` + "```" + `
`)
}

// writeFindings writes what each ID of a finding means.
func writeFindings(file string) error {
	var b strings.Builder
	b.WriteString(`# Findings

Written by ` + "`make docs`" + ` from the table in internal/check/table.go; do not edit.

Every command that looks at a host reports what is wrong in the same words: ` + "`generate`, `info`" + `
and ` + "`status`" + ` in a table, ` + "`check`" + ` for spec files, ` + "`watch`" + ` in its log, and ` + "`doctor`" + ` with the
commands that fix it. In JSON a finding has ` + "`id`, `severity`, `subject` and `message`" + `. An ID
stands for one cause and does not change.

| severity | meaning |
| --- | --- |
| broken | containers of some kind get no GPU or do not start, or something that GPU programs require is missing |
| warning | containers work, but will not after an event that can be expected, or some of their programs do not |
| note | nothing is wrong |

` + "`--strict`" + ` refuses all but notes.
`)
	for _, group := range check.Groups {
		b.WriteString("\n## " + group.Name + "\n\n| ID | what it means | cause, and what to do |\n| --- | --- | --- |\n")
		for _, e := range group.Entries {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", e.ID, e.Title, strings.ReplaceAll(e.Explanation, "|", `\|`))
		}
	}
	b.WriteString("\n## By error message\n\nWhat engines and programs print, and the findings that may be behind it. `cdigen doctor` says which it is.\n\n" +
		"| message | of | findings |\n| --- | --- | --- |\n")
	for _, m := range check.Messages {
		var ids []string
		for _, id := range m.IDs {
			ids = append(ids, string(id))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", m.Text, m.Of, code(ids))
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

// writeReleases puts the table of engines' versions between its marks in a file.
func writeReleases(file string) error {
	var b strings.Builder
	b.WriteString("| engine | from version | CDI | accepts up to | searches | other directories |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, r := range runtimes.Releases {
		configurable := "no"
		if r.Configurable {
			configurable = "yes"
		}
		accepted := r.MaxCDIVersion
		if accepted == "" {
			accepted = "any"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.Engine, r.From, r.CDI, accepted, code(r.SpecDirs), configurable)
	}
	return replaceTable(file, "releases", b.String())
}

// writeMetrics puts the table of metrics between its marks in a file.
func writeMetrics(file string) error {
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n")
	for _, m := range specwatch.MetricTable() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, code(m.Labels), m.Help)
	}
	return replaceTable(file, "metrics", b.String())
}

// writeToolkit puts the table of nvidia-ctk's commands and flags between its marks in a file.
func writeToolkit(file string) error {
	var b strings.Builder
	b.WriteString("| nvidia-ctk | cdigen | variable | notes |\n| --- | --- | --- | --- |\n")
	for _, c := range nvidiactk.Commands {
		name, use := "`"+c.Name+"`", "none"
		if c.Name == "" {
			name, use = "any command", ""
		}
		if c.Use != "" {
			use = "`cdigen " + c.Use + "`"
		}
		fmt.Fprintf(&b, "| **%s** | %s | | %s |\n", name, use, c.Note)
		for _, f := range c.Flags {
			var names []string
			for _, n := range f.Names {
				dashes := "--"
				if len(n) == 1 {
					dashes = "-"
				}
				names = append(names, dashes+n)
			}
			use, variable := "none", ""
			switch {
			case f.Use == nvidiactk.Argument:
				use = "the argument " + f.Use
			case f.Use != "":
				use = "`--" + f.Use + "`"
			}
			if f.Variable != "" {
				variable = "`" + f.Variable + "`"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(names), use, variable, f.Note)
		}
	}
	return replaceTable(file, "commands", b.String())
}

// replaceTable replaces what is between two marks in a file.
func replaceTable(file, name, table string) error {
	begin, end := "<!-- "+name+": written by make docs -->\n", "<!-- end of "+name+" -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s: it has no place for the table of %s", file, name)
	}
	return os.WriteFile(file, []byte(before+begin+table+end+after), 0o644)
}

func list(capabilities []driverfiles.Capability) string {
	var names []string
	for _, c := range capabilities {
		names = append(names, string(c))
	}
	return strings.Join(names, ", ")
}

func code(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "`" + strings.Join(names, "`, `") + "`"
}
