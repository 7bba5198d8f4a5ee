// Command contentsdoc writes docs/contents.md from the tables in package discover.
package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/discover"
)

func main() {
	var b strings.Builder
	b.WriteString(`# What goes into a container

Written by ` + "`make docs`" + ` from the tables in discover/contents.go; do not edit.

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
	for _, e := range discover.LibraryTable {
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
	for _, stem := range slices.Sorted(maps.Keys(discover.LeftOut)) {
		fmt.Fprintf(&b, "| `%s.so.%%v` | %s |\n", stem, discover.LeftOut[stem])
	}
	b.WriteString("\n## Other files\n\nWhat a host lacks is a quiet finding (`--report`).\n\n| file | kind | capabilities | in the container | for |\n| --- | --- | --- | --- | --- |\n")
	for _, e := range discover.FileTable {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", e.Name, e.Kind, list(e.Capabilities), code(e.Targets), e.For)
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
`)
	if err := os.WriteFile("docs/contents.md", []byte(b.String()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "contentsdoc:", err)
		os.Exit(1)
	}
}

func list(capabilities []discover.Capability) string {
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
