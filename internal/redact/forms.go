package redact

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/cdigen/cdigen/internal/lazyregexp"
)

const (
	uuid    = `[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}`
	account = "user@host"
	// label ends a label, as nvidia-smi, dmidecode and JSON have it: "Serial Number : 165…",
	// "GPU PDI : 0x…", "serial": "…".
	label = `["']?[ \t]*[:=#][ \t]*["']?`
)

var wordReplaced = lazyregexp.New(`^redacted-(?:host|user|serial|word|name|id)-\d{8}$`)

// forms are the rules for identifiers with a known form, longer texts first.
var forms = sync.OnceValue(func() []rule {
	return []rule{
		{ // of a text that was redacted before
			form: regexp.MustCompile(strings.Trim(wordReplaced().String(), "^$")), replaced: wordReplaced(),
		},
		{
			form: regexp.MustCompile(`[A-Za-z][0-9A-Za-z+.-]*://[^\s"'<>|,;(){}\[\]]*[^\s"'<>|,;(){}\[\].:!?]`), accept: foreign,
			replacement: (*Redactor).url, replaced: regexp.MustCompile(`://redacted-host-\d{8}$`),
		},
		{ // Amazon's and Oracle's names of resources, iSCSI's and NVMe's of hosts
			form:        regexp.MustCompile(`(?i)(?:arn:aws|ocid1\.|[in]qn\.\d{4}-\d{2}\.)[^\s"',;(){}\[\]]*[^\s"',;(){}\[\].:]`),
			replacement: named("id"), replaced: wordReplaced(),
		},
		{form: regexp.MustCompile(uuid), replacement: (*Redactor).uuid, replaced: regexp.MustCompile(`^0{8}-\d{4}-\d{4}-\d{4}-\d{12}$`)},
		{ // UUIDs without dashes, machine-id(5), GUIDs, WWNs, MAC addresses, IDs of containers
			form: regexp.MustCompile(`(?:0[Xx])?[0-9A-Fa-f]{12,}`), accept: isHexadecimal,
			replacement: (*Redactor).hexadecimal, replaced: regexp.MustCompile(`^(?:0[Xx])?(?:02\d{10}|02\d{14}|0{8}\d{24,})$`),
		},
		{
			form:   regexp.MustCompile(`(?:::|[0-9A-Fa-f]{1,4}::?)(?:[0-9A-Fa-f]{1,4}::?){0,6}[0-9A-Fa-f]{1,4}|[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,6}::`),
			accept: ipv6, replacement: (*Redactor).ipv6, replaced: regexp.MustCompile(`^2001:db8(?::\d{4}){6}$`),
		},
		{ // Ethernet has 6 bytes, InfiniBand 8 and 20; in groups of 4 as sysfs and Cisco have them
			form:        regexp.MustCompile(`[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5,19}|[0-9A-Fa-f]{4}(?:(?:\.[0-9A-Fa-f]{4}){2}|(?::[0-9A-Fa-f]{4}){3})`),
			accept:      func(s string, from, to int) bool { return s[from+2] == ':' || s[from+2] == '-' || alone(s, from, to) },
			replacement: (*Redactor).hardware, replaced: regexp.MustCompile(`^02[0-9:.-]+$`),
		},
		{form: regexp.MustCompile(`\d{1,3}(?:\.\d{1,3}){3}`), accept: ipv4, replacement: (*Redactor).ipv4, replaced: regexp.MustCompile(`^0\.`)},
		{
			form:        regexp.MustCompile(`(?i)(?:serial(?:[ _-]?(?:number|no\.?))?|pdi|(?:^|[^0-9a-z])s/?n|(?:asset|service)[ _-]?tag)` + label + `([0-9a-z-]*[0-9][0-9a-z-]*)`),
			replacement: named("serial"), replaced: wordReplaced(),
		},
		{
			form:   regexp.MustCompile(`(?i)(?:(?:host|node|pod|cluster|user)[ _-]?name|(?:container|instance)[ _-]?(?:name|id))` + label + `([0-9a-z][0-9a-z._-]*)`),
			accept: uncommon, replacement: named("name"), replaced: wordReplaced(),
		},
		{ // also in the driver's version, which names who built the kernel module
			form:        regexp.MustCompile(`[0-9A-Za-z][0-9A-Za-z._+-]*@[0-9A-Za-z][0-9A-Za-z._-]*`),
			replacement: func(*Redactor, string) string { return account }, replaced: regexp.MustCompile(`^` + account + `$`),
		},
		{
			form:   regexp.MustCompile(`[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?(?:\.[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?)+`),
			accept: domain, replacement: named("host"), replaced: wordReplaced(),
		},
		{form: regexp.MustCompile(`ip-\d{1,3}(?:-\d{1,3}){3}`), accept: word, replacement: named("host"), replaced: wordReplaced()},
		{
			form:   regexp.MustCompile(`(?:^|[^0-9A-Za-z])(?:homes?|Users)\d*/([0-9A-Za-z_][^\s/:"'<>|,;(){}\[\]]*)`),
			accept: uncommon, replacement: named("user"), replaced: wordReplaced(),
		},
		{
			form:   regexp.MustCompile(`(?:i|vol|eni|vpc|subnet|sg|ami|snap|igw|nat|rtb|lt)-(?:[0-9a-f]{17}|[0-9a-f]{8})`),
			accept: word, replacement: named("id"), replaced: wordReplaced(),
		},
		{
			form:   regexp.MustCompile(`(?:projects|instances|subscriptions|resourceGroups|virtualMachines|organizations|tenants)/([0-9A-Za-z][0-9A-Za-z._-]*)`),
			accept: uncommon, replacement: named("id"), replaced: wordReplaced(),
		},
		{ // a serial number of NVIDIA's boards without its label
			form: regexp.MustCompile(`\d{13}`), accept: word, replacement: (*Redactor).number, replaced: regexp.MustCompile(`^9999`),
		},
	}
})

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// word reports whether no letter or digit is beside s[from:to].
func word(s string, from, to int) bool {
	return (from == 0 || !alphanumeric(s[from-1])) && (to == len(s) || !alphanumeric(s[to]))
}

// alone is like word, but also requires that no dot or colon joins s[from:to] to a number.
func alone(s string, from, to int) bool {
	joins := func(c byte) bool { return c == '.' || c == ':' }
	return word(s, from, to) && (from < 2 || !joins(s[from-1]) || !alphanumeric(s[from-2])) && (to+1 >= len(s) || !joins(s[to]) || !alphanumeric(s[to+1]))
}

func uncommon(s string, from, to int) bool { return !Common(s[from:to]) }

// isHexadecimal reports whether a number has the length of an identifier and is unlikely
// to be an address in memory, a mask or a decimal number.
func isHexadecimal(s string, from, to int) bool {
	text := strings.ToLower(s[from:to])
	digits, prefixed := strings.CutPrefix(text, "0x")
	switch {
	case !word(s, from, to) || strings.Trim(digits, "0") == "" || strings.Trim(digits, "f") == "":
		return false
	case len(digits) == 32 || len(digits) == 64:
		return true
	case len(digits) == 16:
		if strings.HasPrefix(digits, "0000") || strings.Contains(digits, "ffffff") {
			return false
		}
		return prefixed || mixed(digits)
	}
	return len(digits) == 12 && !prefixed && mixed(digits)
}

// mixed reports whether a text has both letters and digits.
func mixed(s string) bool {
	return strings.ContainsAny(s, "0123456789") && strings.Trim(s, "0123456789") != ""
}

func ipv4(s string, from, to int) bool {
	a, err := netip.ParseAddr(s[from:to])
	// "5.15.146.1-microsoft" is the release of a kernel, "so.1.2.3.4" a version.
	release := to+1 < len(s) && s[to] == '-' && alphanumeric(s[to+1]) && s[to+1] > '9'
	return err == nil && word(s, from, to) && (from == 0 || s[from-1] != '.') && (to+1 >= len(s) || s[to] != '.' || !alphanumeric(s[to+1])) &&
		!release && !a.IsLoopback() && !a.IsUnspecified() && s[from:to] != "255.255.255.255"
}

func ipv6(s string, from, to int) bool {
	text := s[from:to]
	a, err := netip.ParseAddr(text)
	if err != nil || a.IsLoopback() || a.IsUnspecified() || !word(s, from, to) || to+1 < len(s) && s[to] == '.' && alphanumeric(s[to+1]) || !strings.ContainsAny(text, "0123456789") {
		return false
	}
	// Eight groups of two digits are an InfiniBand address.
	return strings.Contains(text, "::") || slices.ContainsFunc(strings.Split(text, ":"), func(group string) bool { return len(group) > 2 })
}

// The last labels of domain names. Weak ones, which are also suffixes of files or members
// in programs, count from three labels up; others, such as .so and .sh, only below one
// of second.
var (
	strong = strings.Fields(`arpa com corp edu gov int internal intra intranet lan local localdomain mil net org
		at au be br ca ch cn cz de dk es eu fi fr gr hu ie il jp kr lu mx nl no nz pt ro ru se si sk tr tw ua uk us za`)
	weak   = strings.Fields(`ai app biz cloud cluster dev home info io it me site svc tech tv`)
	second = strings.Fields(`ac co com edu go gob gov mil ne net nic or org res`)
	// public are domains that identify nobody.
	public = strings.Fields(`amazonaws.com cncf.io containerd.io debian.org docker.com docker.io fedoraproject.org freedesktop.org gcr.io ghcr.io
		github.com go.dev golang.org googleapis.com k8s.io kernel.org kubernetes.io nvcr.io nvidia.com opencontainers.org podman.io pypi.org
		pytorch.org quay.io redhat.com ubuntu.com`)
)

func isPublic(host string) bool {
	host = strings.ToLower(host)
	return slices.ContainsFunc(public, func(name string) bool {
		return host == name || strings.HasSuffix(host, "."+name) && name != "amazonaws.com"
	})
}

// domain reports whether a text with dots is a domain name.
func domain(s string, from, to int) bool {
	name := strings.ToLower(s[from:to])
	if !word(s, from, to) || from > 0 && strings.IndexByte("._", s[from-1]) >= 0 || to < len(s) && strings.IndexByte("_-(", s[to]) >= 0 || isPublic(name) {
		return false
	}
	labels := strings.Split(name, ".")
	last, before := labels[len(labels)-1], labels[len(labels)-2]
	switch {
	case strings.Trim(before, "0123456789") == "":
		return false
	case slices.Contains(strong, last):
		return true
	case len(labels) < 3:
		return false
	}
	return slices.Contains(weak, last) || len(last) == 2 && mixed(last+"0") && slices.Contains(second, before)
}

// foreign reports whether a URL names a machine that is neither public nor this one.
func foreign(s string, from, to int) bool {
	_, host, _ := strings.Cut(s[from:to], "://")
	host, _, _ = strings.Cut(host, "/")
	at := strings.LastIndex(host, "@")
	name, _, _ := strings.Cut(host[at+1:], ":")
	return host != "" && (at >= 0 || name != "localhost" && name != "127.0.0.1" && !isPublic(name))
}
