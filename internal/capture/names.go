package capture

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/ldcache"
	"github.com/cdigen/cdigen/internal/redact"
)

// names keeps the names that every host with such a driver has, and replaces all others.
type names struct {
	redactor *redact.Redactor
	// dirs are directories that texts may name, of any characters, the longest first.
	dirs []string
	// known are the replacements of components of paths, and of texts.
	known, texts map[string]string
}

func newNames(r *redact.Redactor, dirs ...string) names {
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return len(dir) < 2 })
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return names{r, dirs, map[string]string{}, map[string]string{}}
}

// Text returns a text with its paths and identifiers replaced as in a capture that is made
// with the same redactor.
func Text(r *redact.Redactor, text string) string { return newNames(r).text(text) }

// kinds are the endings that tell what a file of the driver is.
var kinds = []string{".bin", ".conf", ".dll", ".icd", ".json"}

// published is what stands for the * of a pattern in the names that NVIDIA publishes.
const published = `(?:10[-_]?|(?:gsp|ucodes)(?:_[a-z]{2}[0-9a-z]{2,4})?|nvoptix|_?nvngx(?:_dlssg)?|[._](?:x86_64|aarch64|i686|vksc)|-drm-outputclass|rc|key-documentation|layers)?`

const driverVersion = `\d{3}\.\d{2,4}(?:\.\d{1,4})?`

// pci is an address on the PCI bus.
const pci = `[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]`

// standard matches the names of numbered files, and names with a version in them.
var standard = lazyregexp.New(`^(?:` + strings.Join([]string{
	`\.\.?`,
	// Device nodes, what else has the name of a driver, and rights.
	`nvidia(?:ctl|[-_](?:modeset|uvm|uvm-tools|drm|peermem|nvlink|nvswitchctl|nvswitch\d{0,4}|caps|caps-imex-channels|cap\d{1,7}|current|mps|legacy|driver|open|fs\d{0,4}|vgpu-vfio|smi))|gdrdrv`,
	`\d{1,4}:\d{1,7}`,
	`environ|fabric-mgmt|fabric-imex-mgmt|mig-minors|nvlink-minors|sys-minors|nouveau|vfio-pci|nvgrace_gpu_vfio_pci|pci-stub|xen-pciback|nvidia-vgpu-vfio`,
	// Of Tegra systems and of WSL.
	`host-files-for-container\.d|nvidia-container-runtime|(?:devices|drivers|l4t)\.csv|(?:card|renderD|nvidia)(?:\[0-9\])?\*|nv_tegra_release|ld\.so\.conf`,
	`nv(?:host|gpu|map|sciipc)[a-z0-9-]{0,24}|igpu\d|host1x-fence|v4l2-nv(?:dec|enc)|tegra(?:-egl)?|gstreamer-1\.0|wsl|drivers|dxg|nv[a-z_]{1,16}\.inf_(?:amd64|arm64)_[0-9a-f]{16}`,
	// Of network cards with RDMA, whose names are by the driver or by the PCI bus, and of VFIO.
	`infiniband(?:_verbs|_mad)?|rdma_cm|(?:uverbs|umad|issm|vfio)\d{1,4}|mlx[45]_\d{1,4}|mlx[45]_core(?:\.sf\.\d{1,4})?|(?:ib|roce)p\d{1,5}s\d{1,3}(?:f\d{1,3})?(?:np\d{1,2})?`,
	`ibdev|abi_version|virtual|vfio|vfio-dev|iommu|iommu_groups?|snd_hda_intel|xhci_hcd|xhci_pci|i2c_nvidia_gpu|irdma|cufile\.json|udev`,
	// Of the PCI bus: the links to its devices by udev, the names of ACPI.
	pci, `pci[0-9a-f]{4,8}:[0-9a-f]{2}`, `pci-` + pci + `-(?:card|render)`, `[A-Z]{3,8}[0-9A-F]{0,4}:[0-9a-f]{2}`,
	`(?:nvidia|cuda)[-_]` + driverVersion, `(?:nvidia-|cuda-)?\d{1,3}(?:\.\d{1,2})?`,
	// Stand-ins.
	`(?:lib)?(?:nvidia-)?redacted-[a-z]+-\d{8}(?:\.so(?:\.\d{1,4}){0,3}|` + strings.ReplaceAll(strings.Join(kinds, "|"), ".", `\.`) + `)?`,
	`redacted-name-\d{8}-` + nixPackage,
}, "|") + `)$`)

var (
	nixPackage = `nvidia-(?:x11|open|settings|persistenced)(?:-\d{1,4}(?:\.\d{1,4}){1,3}){0,2}(?:-(?:bin|lib32|firmware|dev|persistenced|settings))?`
	nixStore   = lazyregexp.New(`^([0-9a-z]{32})(-` + nixPackage + `)$`)
	// alternative are Debian's links below /etc/alternatives.
	alternative = lazyregexp.New(`^(?:nvidia|glx)--(.+?)(?:-(?:x86_64|aarch64|i386)-linux-gnu)?$`)
	library     = lazyregexp.New(`^(lib.+?)(\.so(?:\.\d{1,4}){0,3})$`)
	// ownLibrary are the many of Tegra systems, those that it replaces, and those of Windows.
	ownLibrary = lazyregexp.New(`^lib(?:(?:gst)?nv[a-z0-9_]{1,32}|(?:cuda|nvidia-[a-z]{1,16})_loader|dxcore|d3d12(?:core)?|drm|v4l2|v4lconvert)$`)
	release    = lazyregexp.New(`^(\d{1,3}\.\d{1,4}(?:\.\d{1,4}){0,2})([-+._~][0-9A-Za-z.+_~-]*)?$`)
	// flavour is a part of what follows the version in a kernel's release.
	flavour = lazyregexp.New(`^(?i:\d{0,6}|rc\d{1,2}|el\d{1,2}(?:uek)?|fc\d{1,2}|amzn\d{1,4}|arch\d|zen\d?|rt\d*|v\d|deb\d{1,2}u?\d*|bpo|wsl2|` +
		`generic|default|preempt|lts|hwe|edge|lowlatency|realtime|virtual|cloud|aws|azure|gcp|gke|gkeop|ibm|kvm|oracle|oem|uek|intel|raspi|rpi|` +
		`amd64|arm64|x86|64|64k|4k|16k|aarch64|i686|pae|smp|pve|tegra|nvidia|talos|flatcar|coreos|fedora|centos|microsoft|standard|azl\d|cm\d|` +
		`hardened|liquorix|xanmod\d?|cachyos|linuxkit|bottlerocket|nixos|gentoo|dist|debug|trunk)$`)
	// driverFiles are the names in the tables of what a driver has, and patterns of such names.
	driverFiles = sync.OnceValues(func() (map[string]bool, *regexp.Regexp) {
		known, patterns := map[string]bool{}, []string{}
		add := func(name string) {
			for part := range strings.SplitSeq(name, "/") {
				if known[part] = true; strings.ContainsAny(part, "*%") {
					form := strings.NewReplacer(`\*`, published, `%v`, driverVersion).Replace(regexp.QuoteMeta(part))
					patterns = append(patterns, form)
				}
			}
		}
		for _, e := range driverfiles.LeftOutFiles {
			add(e.Name)
		}
		for _, name := range discover.ContainerFiles {
			add(name)
		}
		for _, e := range driverfiles.Others {
			if stem, _, ok := strings.Cut(e.Name, ".so."); ok {
				known[stem] = true
			}
		}
		for _, e := range driverfiles.Files {
			add(e.Name)
			for _, target := range e.Targets {
				add(target)
			}
		}
		for _, e := range driverfiles.Libraries {
			known[e.Stem] = true
			for _, name := range e.Names {
				add(name)
			}
		}
		for stem := range driverfiles.LeftOut {
			known[stem] = true
		}
		return known, regexp.MustCompile(`^(?:` + strings.Join(patterns, "|") + `)$`)
	})
	pathInText = lazyregexp.New(`(?:^|[\s"'(=,;:])(/(?:[^\s"'(),;=:<>{}\[\]]|:[^\s"'(),;=:<>{}\[\]/])+)`)
)

// isStandard reports whether a name is found on all systems, so that it identifies nobody.
func isStandard(name string) bool {
	files, patterns := driverFiles()
	if redact.Common(name) || files[name] || patterns.MatchString(name) || standard().MatchString(name) {
		return true
	}
	if m := library().FindStringSubmatch(name); m != nil {
		_, ofDriver := driverfiles.Version(name)
		return ofDriver || files[m[1]] || ownLibrary().MatchString(m[1])
	}
	m := alternative().FindStringSubmatch(name)
	return m != nil && isStandard(m[1])
}

// component returns a component of a path, or a stand-in. The stand-in keeps what a
// discovery looks for: the word nvidia, and the end of a library's name.
func (n names) component(name string) string {
	if known, ok := n.known[name]; ok {
		return known
	}
	var replaced string
	switch {
	case name == "":
	case isStandard(name):
		replaced = n.redactor.Text(name) // it may have a word that the user has given
	case release().MatchString(name):
		replaced = n.release(name)
	case nixStore().MatchString(name):
		m := nixStore().FindStringSubmatch(name)
		replaced = n.redactor.Name(m[1]) + n.redactor.Text(m[2])
	default:
		replaced = n.redactor.Name(name)
		if strings.Contains(name, "nvidia") {
			replaced = "nvidia-" + replaced
		}
		if m := library().FindStringSubmatch(name); m != nil {
			replaced = "lib" + replaced + m[2]
		} else if ext := path.Ext(name); slices.Contains(kinds, ext) {
			replaced += ext
		}
	}
	n.known[name] = replaced
	return replaced
}

// release keeps the version of a kernel's release, and known words that follow it.
func (n names) release(name string) string {
	m := release().FindStringSubmatch(name)
	if m == nil {
		return n.redactor.Name(name)
	}
	rest := m[2]
	parts := strings.FieldsFunc(rest, func(c rune) bool { return strings.ContainsRune("-+._~", c) })
	unknown := func(part string) bool { return !flavour().MatchString(part) }
	if slices.ContainsFunc(parts, unknown) && !standard().MatchString(rest[1:]) {
		rest = "-" + n.redactor.Name(rest)
	}
	if kept := m[1] + rest; n.redactor.Text(kept) == kept {
		return kept
	}
	return n.redactor.Name(name) // an address, perhaps
}

// path returns a path, absolute or not, of standard names and stand-ins.
func (n names) path(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = n.component(parts[i])
	}
	return strings.Join(parts, "/")
}

// text returns a text with absolute paths of standard names and stand-ins, and without
// identifiers that the redactor knows.
func (n names) text(s string) string {
	if known, ok := n.texts[s]; ok {
		return known
	}
	replaced := s
	for _, dir := range n.dirs {
		replaced = replaceDir(replaced, dir, n.path(dir))
	}
	replaced = pathInText().ReplaceAllStringFunc(replaced, func(found string) string {
		at := strings.IndexByte(found, '/')
		if strings.HasPrefix(found[at:], "//") {
			return found // of a URL
		}
		return found[:at] + n.path(found[at:])
	})
	// Other texts than UTF-8 would be written in an encoding.
	n.texts[s] = n.redactor.Text(strings.ToValidUTF8(replaced, "?"))
	return n.texts[s]
}

// replaceDir replaces a directory in a text where its name ends.
func replaceDir(s, dir, replacement string) string {
	before, after, found := strings.Cut(s, dir)
	switch {
	case !found:
		return s
	case after == "" || strings.ContainsAny(after[:1], "/ :,;\"')"):
		dir = replacement
	}
	return before + dir + replaceDir(after, dir, replacement)
}

// entry returns an entry of an ld.so.cache as a capture has it.
func (n names) entry(e ldcache.Entry) string {
	return fmt.Sprintf("%s %#x %s", n.path(e.Name), e.Flags, n.path(e.Path))
}
