// Package redact takes out of a text what tells whose machine it comes from, so that
// it can be shown to others: UUIDs, serial numbers, hardware addresses, and the names
// of hosts and people.
//
// A [Redactor] puts something of the same form in their place, and always the same
// for the same: what could be compared before can be compared after. UUIDs, hardware
// addresses and values that are labelled as serial numbers are known by their form;
// names and the machine's own serial numbers have to be told ([Identifiers],
// [Collect]). A model, a version or a PCI address tells nothing of the kind and stays.
package redact

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"regexp"
	"slices"
	"strings"
)

// Redactor replaces identifiers.
type Redactor struct {
	key   []byte
	rules []rule
}

// rule finds one kind of identifier and has something to put in its place.
type rule struct {
	form *regexp.Regexp
	// word: it counts only with no letter or digit beside it.
	word bool
	// replacement of an identifier, and the form by which it is known again.
	replacement func(r *Redactor, found string) string
	replaced    *regexp.Regexp
}

var (
	uuidForm     = regexp.MustCompile(`[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}`)
	uuidReplaced = regexp.MustCompile(`^0{8}-\d{4}-\d{4}-\d{4}-\d{12}$`)
	// Ethernet has 6 bytes, InfiniBand 8 and 20.
	hardwareForm     = regexp.MustCompile(`[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5,19}`)
	hardwareReplaced = regexp.MustCompile(`^02(?:[:-]\d{2})+$`)
	// As nvidia-smi, dmidecode and JSON have it: "Serial Number : 165…", "GPU PDI : 0x…".
	labelled = regexp.MustCompile(`(?i)(?:serial(?:[ _-]?(?:number|no\.?))?|pdi)["']?[ \t]*[:=][ \t]*["']?([0-9a-z-]*[0-9][0-9a-z-]*)`)
	// The driver's version names who built the kernel module, which with DKMS was root
	// of this very machine.
	accountForm = regexp.MustCompile(`[0-9A-Za-z][0-9A-Za-z._+-]*@[0-9A-Za-z][0-9A-Za-z._-]*`)
	homeForm    = regexp.MustCompile(`/home/([0-9A-Za-z][0-9A-Za-z._-]*)`)

	wordForm     = regexp.MustCompile(`redacted-(?:host|user|serial|word)-\d{8}`)
	wordReplaced = regexp.MustCompile(`^` + wordForm.String() + `$`)

	machineReplaced = regexp.MustCompile(`^0{8}\d{24}$`)
	accountReplaced = regexp.MustCompile(`^` + account + `$`)
)

const account = "user@host"

// New makes a redactor. With the same key and identifiers another one puts the same
// in their place; without the key nobody can tell what was there.
func New(key []byte, ids Identifiers) *Redactor {
	r := &Redactor{key: key}
	r.rules = []rule{
		{form: wordForm, replaced: wordReplaced}, // of a text that was redacted before
		{form: uuidForm, replacement: (*Redactor).uuid, replaced: uuidReplaced},
		{form: hardwareForm, replacement: (*Redactor).hardware, replaced: hardwareReplaced},
		{form: labelled, replacement: named("serial"), replaced: wordReplaced},
		{form: accountForm, replacement: func(*Redactor, string) string { return account }, replaced: accountReplaced},
		{form: homeForm, replacement: named("user"), replaced: wordReplaced},
	}
	var words []rule
	for _, kind := range []struct {
		list []string
		rule rule
	}{
		{ids.MachineIDs, rule{replacement: (*Redactor).machine, replaced: machineReplaced}},
		{ids.Serials, rule{replacement: named("serial"), replaced: wordReplaced}},
		{ids.Hosts, rule{replacement: named("host"), replaced: wordReplaced}},
		{ids.Users, rule{replacement: named("user"), replaced: wordReplaced}},
		{ids.Words, rule{replacement: named("word"), replaced: wordReplaced}},
	} {
		for _, text := range kind.list {
			kind.rule.word = true
			kind.rule.form = regexp.MustCompile(`(?i)` + regexp.QuoteMeta(text))
			words = append(words, kind.rule)
		}
	}
	// gpu1.example.org before gpu1.
	slices.SortStableFunc(words, func(a, b rule) int { return cmp.Compare(len(b.form.String()), len(a.form.String())) })
	r.rules = append(r.rules, words...)
	return r
}

// Text is a text with its identifiers replaced. What was replaced before stays.
func (r *Redactor) Text(s string) string {
	var b strings.Builder
	r.walk(s, r.rules, func(part string, u *rule) {
		if u != nil {
			part = u.replacement(r, part)
		}
		b.WriteString(part)
	})
	return b.String()
}

// Left are the identifiers that are still in a text: those that Text would replace.
func (r *Redactor) Left(s string) (list []string) {
	r.walk(s, r.rules, func(part string, u *rule) {
		if u != nil && !slices.Contains(list, part) {
			list = append(list, part)
		}
	})
	return list
}

// walk gives a text part by part, with the rule for those that are to be replaced.
// What is between those that a rule finds is left to the rules after it: none looks
// into what another has found.
func (r *Redactor) walk(s string, rules []rule, visit func(part string, u *rule)) {
	if len(rules) == 0 || s == "" {
		visit(s, nil)
		return
	}
	first, others := &rules[0], rules[1:]
	from := 0
	for _, at := range first.find(s) {
		r.walk(s[from:at[0]], others, visit)
		if found := s[at[0]:at[1]]; first.replaced.MatchString(found) {
			visit(found, nil)
		} else {
			visit(found, first)
		}
		from = at[1]
	}
	r.walk(s[from:], others, visit)
}

// find says where in a text the rule's identifiers are.
func (u *rule) find(s string) (list [][]int) {
	for _, at := range u.form.FindAllStringSubmatchIndex(s, -1) {
		at = at[len(at)-2:] // the group, where the form has one
		if u.word && (at[0] > 0 && alphanumeric(s[at[0]-1]) || at[1] < len(s) && alphanumeric(s[at[1]])) {
			continue
		}
		list = append(list, at)
	}
	return list
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// digits are so many decimal digits that stand for a text. There are no letters in
// them, so that they are never taken for a name, and no UUID of a device is likely to
// be without letters.
func (r *Redactor) digits(text string, n int) string {
	h := hmac.New(sha256.New, r.key)
	h.Write([]byte(strings.ToLower(text)))
	var b strings.Builder
	for sum := h.Sum(nil); b.Len() < n; sum = h.Sum(nil) {
		for _, c := range sum {
			b.WriteByte('0' + c%10)
		}
		h.Write(sum)
	}
	return b.String()[:n]
}

func (r *Redactor) uuid(found string) string {
	d := r.digits(found, 24)
	return "00000000-" + d[:4] + "-" + d[4:8] + "-" + d[8:12] + "-" + d[12:]
}

// machine is for UUIDs written without dashes, as systemd does.
func (r *Redactor) machine(found string) string { return "00000000" + r.digits(found, 24) }

// hardware keeps the length; the first byte says that somebody made it up.
func (r *Redactor) hardware(found string) string {
	out := []byte(found)
	copy(out, "02")
	d := r.digits(found, len(found))
	for i := 3; i+1 < len(out); i += 3 {
		copy(out[i:], d[i:i+2])
	}
	return string(out)
}

func named(kind string) func(*Redactor, string) string {
	return func(r *Redactor, found string) string { return "redacted-" + kind + "-" + r.digits(found, 8) }
}
