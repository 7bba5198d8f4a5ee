package capture

import (
	"cmp"
	"encoding/json"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/ldcache"
)

// content describes what a capture has of the text of some files.
type content struct {
	// file matches the path of a file below /proc or /sys.
	file *regexp.Regexp
	// line matches the part of a line that is kept, from its beginning. Other lines are
	// dropped.
	line *regexp.Regexp
	// key matches the beginning of a line of the wrong form, which is kept with a question
	// mark, so that the fault shows; nil: such lines are dropped.
	key *regexp.Regexp
	// replace changes the kept part; nil: names.text.
	replace func(n names, line string) string
}

// whole returns an expression that matches a text from its beginning to its end.
func whole(expr string) *regexp.Regexp { return regexp.MustCompile(`^(?:` + expr + `)$`) }

// begin returns an expression that matches the beginning of a text.
func begin(expr string) *regexp.Regexp { return regexp.MustCompile(`^(?:` + expr + `)`) }

const (
	permissionKeys = `[ \t]*(?:ModifyDeviceFiles|DeviceFile(?:UID|GID|Mode|Modify|Minor)|ImexChannelCount|CreateImexChannel0):`
	deviceNames    = `(?:-frontend|ctl|-modeset|-uvm|-nvlink|-nvswitch|-caps|-caps-imex-channels|-vgpu-vfio|-fs)?`
)

// contents is the table of all files whose text is recorded. Of other files a capture has
// only the name.
var contents = sync.OnceValue(func() []content {
	return []content{
		{file: whole(`driver/nvidia/version`), line: begin(`NVRM version:(?: +(?:NVIDIA|UNIX|Open|x86_64|aarch64|arm64))* +Kernel Module(?: for (?:x86_64|aarch64|arm64))? +\d{1,4}\.\d{1,4}(?:\.\d{1,4})?(?:\s|$)`), key: begin(`NVRM version:`)},
		{file: whole(`devices`), line: begin(`(?:(?:Character|Block) devices:| *\d{1,4} (?:gdrdrv|nvidia` + deviceNames + `))$`)},
		{file: whole(`driver/nvidia/params`), line: begin(permissionKeys + `[ \t]*\d{1,10}[ \t]*$`), key: begin(permissionKeys)},
		{file: whole(`driver/nvidia[a-z-]*/(?:capabilities/.+|permissions)`), line: begin(permissionKeys + `[ \t]*\d{1,10}[ \t]*$`), key: begin(permissionKeys)},
		{
			file: whole(`driver/nvidia/gpus/[^/]+/information`),
			line: begin(`[ \t]*(?:Model:[ \t]*[!-~](?:[ -~]{0,94})|GPU UUID:[ \t]*GPU-(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[?-]{36})|` +
				`Bus Location:[ \t]*` + pci + `|Device Minor:[ \t]*\d{1,7}|(?:GPU Excluded|Blacklisted):[ \t]*(?:Yes|No))[ \t]*$`),
			key: begin(`[ \t]*(?:Model|GPU UUID|Bus Location|Device Minor|GPU Excluded|Blacklisted):`),
		},
		{file: whole(migMinors), line: begin(`(?:config|monitor|gpu\d{1,4}/gi\d{1,4}/(?:ci\d{1,4}/)?access) \d{1,7}$`)},
		{file: whole(`1/environ`), line: begin(`(?:[^\x00]*\x00)*container=[a-z-]{1,32}(?:\x00|$)`), replace: lastName},
		{file: whole(`modules`), line: begin(`nvidia[0-9a-z_]{0,32}_modeset(?: |$)`)},
		{file: whole(`device-tree/compatible`), line: begin(`(?:[^\x00]*\x00)*nvidia,tegra[0-9a-z]{0,8}(?:\x00|$)`), replace: lastName},
		{file: whole(`sys/kernel/osrelease`), line: begin(`.+`), replace: names.release},

		{file: whole(`(?:.*/)?(?:vendor|device|class)`), line: begin(`0x[0-9a-f]{4,6}$`)},
		{file: whole(`(?:.*/)?dev`), line: begin(`\d{1,4}:\d{1,7}$`)},
		{file: whole(`(?:.*/)?ibdev`), line: begin(`[!-.0-~]{1,64}$`), replace: names.component},
		{file: whole(`(?:.*/)?driver_override`), line: begin(`(?:\(null\)|[0-9a-z_-]{1,32})$`)},
		{file: whole(`(?:.*/)?numa_node`), line: begin(`-?\d{1,5}$`)},
		{file: whole(`(?:.*/)?power/(?:control|runtime_status)`), line: begin(`(?:auto|on|active|suspended|suspending|resuming|error|unsupported)$`)},
		{file: whole(`module/[^/]+/version`), line: begin(`\d{1,4}(?:\.\d{1,4}){1,2}$`)},
		{file: whole(`module/[^/]+/initstate`), line: begin(`(?:live|coming|going)$`)},
		{file: whole(`module/firmware_class/parameters/path`), line: begin(`.+`), replace: names.path},
	}
})

// lastName keeps the last of several names with zero bytes behind them.
func lastName(_ names, line string) string {
	line = strings.TrimSuffix(line, "\x00")
	return line[strings.LastIndexByte(line, 0)+1:]
}

// maxText is the size limit of a file of procfs or sysfs, in bytes. The longest one, the
// table of MIG's capabilities, has 110 KB.
const maxText = 1 << 20

// textFile records the lines of a file in procfs or sysfs that the table allows.
func textFile(r *recorder, n names, seen seenFile) (File, error) {
	at := slices.IndexFunc(contents(), func(c content) bool { return c.file.MatchString(seen.name) })
	file, err := r.quiet.Open(seen.name)
	if err != nil {
		return File{}, err
	}
	defer file.Close()
	if at < 0 {
		return File{}, nil
	}
	data, err := io.ReadAll(io.LimitReader(file, maxText+1))
	if err == nil && len(data) > maxText {
		err = errTooLong
	}
	if err != nil {
		return File{}, err
	}
	var f File
	lines := strings.Split(string(data), "\n")
	if seen.name == migMinors {
		lines = r.present(lines)
	}
	for _, line := range lines {
		if line = contents()[at].keep(n, line); line != "" {
			f.Lines = append(f.Lines, line)
		}
	}
	return f, nil
}

// keep returns the recorded part of a line; empty: none.
func (c *content) keep(n names, line string) string {
	kept := c.line.FindString(line)
	switch {
	case kept != "" && c.replace != nil:
		return c.replace(n, kept)
	case kept != "":
		return n.text(strings.TrimRight(kept, " \t"))
	case c.key != nil && c.key.MatchString(line):
		return c.key.FindString(line) + " ?"
	}
	return ""
}

const migMinors = "driver/nvidia-caps/mig-minors"

// present returns the lines of GPUs that are present: the driver has 135 lines for each
// of 32 GPUs.
func (r *recorder) present(lines []string) []string {
	list := append(r.names("driver/nvidia/capabilities", "gpu"), "gpu0")
	return slices.DeleteFunc(lines, func(line string) bool {
		gpu, _, of := strings.Cut(line, "/")
		return of && !slices.ContainsFunc(list, func(dir string) bool { return path.Base(dir) == gpu })
	})
}

// driverFile records the names in a library, in the loader's cache or in a manifest. Of
// other files a capture has only the name.
func driverFile(r *recorder, n names, seen seenFile) (File, error) {
	if !seen.opened {
		return File{}, nil // the discovery did not look into it
	}
	name := seen.name
	file, err := r.quiet.Open(name)
	if err != nil {
		return File{}, err
	}
	defer file.Close()
	if path.Base(name) == "ld.so.cache" {
		return cacheFile(n, file)
	}
	if slices.Contains(driverfiles.CSVFiles, name) {
		return listFile(n, file)
	}
	if ext := path.Ext(name); ext == ".json" || ext == ".icd" {
		return manifestFile(n, name, file)
	}
	info, err := r.quiet.ELF(name)
	if err != nil || driverfiles.Triplet(info.Arch) == "" {
		// An empty file is not a library either.
		return File{}, nil
	}
	return File{Library: &Library{Arch: info.Arch, SONAME: n.path(info.SONAME)}}, nil
}

// listFile records what a Tegra system lists for containers, at the same lines. A line that is
// not understood becomes a question mark.
func listFile(n names, file fs.File) (f File, err error) {
	data, err := io.ReadAll(io.LimitReader(file, driverfiles.MaxCSV+1))
	if err != nil || len(data) > driverfiles.MaxCSV {
		return File{}, cmp.Or(err, errTooLong)
	}
	entries, bad := driverfiles.ParseCSV(data)
	at := func(line int) *string {
		for len(f.Lines) < line {
			f.Lines = append(f.Lines, "#")
		}
		return &f.Lines[line-1]
	}
	for _, e := range entries {
		*at(e.Line) = e.Type + ", " + n.path(e.Path)
	}
	for _, b := range bad {
		*at(b.Line) = "?"
	}
	return f, nil
}

// manifestFile records the libraries that a manifest names, in the form of a manifest. A
// manifest that cannot be read becomes an empty file.
func manifestFile(n names, name string, file fs.File) (File, error) {
	data, err := io.ReadAll(io.LimitReader(file, driverfiles.MaxManifest+1))
	if err != nil {
		return File{}, err
	}
	libraries, err := driverfiles.ManifestLibraries(name, data)
	if err != nil || len(data) > driverfiles.MaxManifest {
		return File{}, nil //nolint:nilerr // see above
	}
	for i := range libraries {
		libraries[i] = n.path(libraries[i])
	}
	if path.Ext(name) == ".icd" {
		return File{Lines: libraries}, nil
	}
	var layers []map[string]string
	for _, l := range libraries {
		layers = append(layers, map[string]string{"library_path": l})
	}
	line, err := json.Marshal(map[string]any{"layers": layers})
	return File{Lines: []string{string(line)}}, err
}

// cacheFile records the entries of the loader's cache that a discovery looks at, not what
// else is installed.
func cacheFile(n names, file fs.File) (File, error) {
	data, err := io.ReadAll(file)
	if err != nil {
		return File{}, err
	}
	cache, err := ldcache.Read(data)
	if err != nil {
		return File{}, nil //nolint:nilerr // an empty file is a damaged cache too
	}
	c := &Cache{Layout: cache.Layout}
	for _, e := range cache.Entries {
		if e.HWCap == 0 && (strings.HasPrefix(e.Name, "libnvidia-") || strings.HasPrefix(e.Name, "libcuda.") || strings.HasPrefix(e.Name, "libGLX_nvidia")) {
			c.Entries = append(c.Entries, n.entry(e))
		}
	}
	return File{Cache: c}, nil
}
