package redact

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
)

const (
	uuid    = `[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}`
	account = "user@host"
	// label ends a label, as nvidia-smi, dmidecode and JSON have it: "Serial Number : 165…",
	// "GPU PDI : 0x…", "serial": "…".
	label = `["']?[ \t]*[:=#][ \t]*["']?`
)

// wordReplaced matches what [named] returns.
const wordReplaced = `redacted-(?:host|user|serial|word|name|id)-\d{8}`

// forms are the rules for identifiers with a known form, longer texts first.
var forms = sync.OnceValue(func() (rules []rule) {
	for _, f := range []struct {
		form        string
		accept      func(s string, from, to int) bool
		replacement func(r *Redactor, found string) string
		replaced    string
	}{
		{wordReplaced, nil, nil, wordReplaced}, // of a text that was redacted before
		{`[A-Za-z][0-9A-Za-z+.-]*://[^\s"'<>|,;(){}\[\]]*[^\s"'<>|,;(){}\[\].:!?]`, foreign, (*Redactor).url, `[^:]*://redacted-host-\d{8}`},
		// Amazon's and Oracle's names of resources, iSCSI's and NVMe's of hosts.
		{`(?i)(?:arn:aws|ocid1\.|[in]qn\.\d{4}-\d{2}\.)[^\s"',;(){}\[\]]*[^\s"',;(){}\[\].:]`, nil, named("id"), wordReplaced},
		{uuid, nil, (*Redactor).uuid, `0{8}-\d{4}-\d{4}-\d{4}-\d{12}`},
		// UUIDs without dashes, machine-id(5), GUIDs, WWNs, MAC addresses, IDs of containers.
		{`(?:0[Xx])?[0-9A-Fa-f]{12,}`, isHexadecimal, (*Redactor).hexadecimal, `(?:0[Xx])?(?:02\d{10}|02\d{14}|0{8}\d{24,})`},
		{`(?:::|[0-9A-Fa-f]{1,4}::?)(?:[0-9A-Fa-f]{1,4}::?){0,6}[0-9A-Fa-f]{1,4}|[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,6}::`, ipv6, (*Redactor).ipv6, `2001:db8(?::\d{4}){6}`},
		// Ethernet has 6 bytes, InfiniBand 8 and 20; in groups of 4 as sysfs and Cisco have them.
		{`[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5,19}|[0-9A-Fa-f]{4}(?:(?:\.[0-9A-Fa-f]{4}){2}|(?::[0-9A-Fa-f]{4}){3})`, separated, (*Redactor).hardware, `02[0-9:.-]+`},
		{`\d{1,3}(?:\.\d{1,3}){3}`, ipv4, (*Redactor).ipv4, `0\..*`},
		{`(?i)(?:serial(?:[ _-]?(?:number|no\.?))?|pdi|(?:^|[^0-9a-z])s/?n|(?:asset|service)[ _-]?tag)` + label + `([0-9a-z-]*[0-9][0-9a-z-]*)`, nil, named("serial"), wordReplaced},
		{`(?i)(?:(?:host|node|pod|cluster|user)[ _-]?name|(?:container|instance)[ _-]?(?:name|id))` + label + `([0-9a-z][0-9a-z._-]*)`, uncommon, named("name"), wordReplaced},
		// Also in the driver's version, which names who built the kernel module.
		{`[0-9A-Za-z][0-9A-Za-z._+-]*@[0-9A-Za-z][0-9A-Za-z._-]*`, nil, func(*Redactor, string) string { return account }, account},
		{`[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?(?:\.[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?)+`, domain, named("host"), wordReplaced},
		{`ip-\d{1,3}(?:-\d{1,3}){3}`, word, named("host"), wordReplaced},
		{`(?:^|[^0-9A-Za-z])(?:homes?|Users)\d*/([0-9A-Za-z_][^\s/:"'<>|,;(){}\[\]]*)`, uncommon, named("user"), wordReplaced},
		{`(?:i|vol|eni|vpc|subnet|sg|ami|snap|igw|nat|rtb|lt)-(?:[0-9a-f]{17}|[0-9a-f]{8})`, word, named("id"), wordReplaced},
		{`(?:projects|instances|subscriptions|resourceGroups|virtualMachines|organizations|tenants)/([0-9A-Za-z][0-9A-Za-z._-]*)`, uncommon, named("id"), wordReplaced},
		{`\d{13}`, word, (*Redactor).number, `9999.*`}, // a serial number of NVIDIA's boards without its label
	} {
		rules = append(rules, rule{regexp.MustCompile(f.form), f.accept, f.replacement, regexp.MustCompile(`^(?:` + f.replaced + `)$`)})
	}
	return rules
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

// separated reports whether colons or dashes separate the bytes of an address; one of groups
// has to stand alone.
func separated(s string, from, to int) bool {
	return s[from+2] == ':' || s[from+2] == '-' || alone(s, from, to)
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
