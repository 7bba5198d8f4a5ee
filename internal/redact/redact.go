// Package redact replaces identifiers of a machine, its users and its organisation in a
// text, so that the text can be shared.
//
// A [Redactor] replaces an identifier by a text of the same form, and equal identifiers by
// equal texts, so that they can still be compared. Most kinds are known by their form:
// UUIDs, hardware and IP addresses, labelled serial numbers, domain names, URLs, accounts
// in user@host and below a directory home. Other names and serial numbers must be given
// ([Identifiers], [Collect]). Models, versions and PCI addresses identify nobody and stay.
//
// Identifiers without a known form stay too. A text with known fields is better protected
// by keeping only the valid part of each field; see package capture.
package redact

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Redactor replaces identifiers.
type Redactor struct {
	key   []byte
	rules []rule // forms, then words, the longest first
}

// rule finds and replaces one kind of identifier.
type rule struct {
	// form matches the identifier, in its last group if it has groups.
	form *regexp.Regexp
	// accept reports whether s[from:to] is an identifier in its context; nil: always.
	accept func(s string, from, to int) bool
	// replacement returns a replacement, which replaced matches.
	replacement func(r *Redactor, found string) string
	replaced    *regexp.Regexp
}

// New returns a redactor. Replacements depend on the key and the identifiers only, and
// cannot be reversed without the key.
func New(key []byte, ids Identifiers) *Redactor {
	r := &Redactor{key: key, rules: slices.Clone(forms())}
	r.Know(ids)
	return r
}

// Know adds identifiers.
func (r *Redactor) Know(ids Identifiers) {
	for _, kind := range []struct {
		name string
		list []string
	}{{"serial", ids.Serials}, {"host", ids.Hosts}, {"user", ids.Users}, {"word", ids.Words}} {
		for _, text := range kind.list {
			r.rules = append(r.rules, rule{
				form: regexp.MustCompile(`(?i)` + regexp.QuoteMeta(text)), accept: word,
				replacement: named(kind.name), replaced: forms()[0].replaced,
			})
		}
	}
	// gpu1.example.org before gpu1.
	slices.SortStableFunc(r.rules[len(forms()):], func(a, b rule) int { return cmp.Compare(len(b.form.String()), len(a.form.String())) })
}

// rounds limits the passes over a text. A later pass finds what became an identifier when
// its neighbour was replaced.
const rounds = 4

// Text returns a text with its identifiers replaced. Earlier replacements stay.
func (r *Redactor) Text(s string) string {
	for range rounds {
		var b strings.Builder
		r.walk(s, 0, func(part string, u *rule) {
			if u != nil {
				part = u.replacement(r, part)
			}
			b.WriteString(part)
		})
		if b.String() == s {
			break
		}
		s = b.String()
	}
	return s
}

// Left returns the identifiers in a text that Text would replace.
func (r *Redactor) Left(s string) (list []string) {
	r.walk(s, 0, func(part string, u *rule) {
		if u != nil && !slices.Contains(list, part) {
			list = append(list, part)
		}
	})
	return list
}

// walk calls visit with the parts of a text, and the rule of those to replace. The text
// between the parts that a rule finds is left to later rules.
func (r *Redactor) walk(s string, n int, visit func(part string, u *rule)) {
	if n == len(r.rules) || s == "" {
		visit(s, nil)
		return
	}
	u := &r.rules[n]
	from := 0
	for _, at := range u.find(s) {
		r.walk(s[from:at[0]], n+1, visit)
		if found := s[at[0]:at[1]]; u.replaced.MatchString(found) {
			visit(found, nil)
		} else {
			visit(found, u)
		}
		from = at[1]
	}
	r.walk(s[from:], n+1, visit)
}

// longest is the length of the longest identifier inside of a similar text. It keeps the
// time linear in the length of the text.
const longest = 130

// find returns the offsets of the rule's identifiers in a text.
func (u *rule) find(s string) (list [][2]int) {
	for from := 0; from < len(s); {
		at := u.form.FindStringSubmatchIndex(s[from:])
		if at == nil {
			break
		}
		start, begin, end := from+at[0], from+at[len(at)-2], from+at[len(at)-1]
		if u.accept != nil && !u.accept(s, begin, end) {
			if from = end; end-start <= longest {
				from = start + 1 // an identifier may begin inside
			}
			continue
		}
		list = append(list, [2]int{begin, end})
		from = end
	}
	return list
}

// digits returns n decimal digits for a text. Without letters they are not taken for a
// name, and a UUID of a device is unlikely to have none.
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

// Name returns a stand-in for a name.
func (r *Redactor) Name(found string) string { return named("name")(r, found) }

func named(kind string) func(*Redactor, string) string {
	return func(r *Redactor, found string) string { return "redacted-" + kind + "-" + r.digits(found, 8) }
}

// uuid returns equal digits for a UUID with and without dashes.
func (r *Redactor) uuid(found string) string {
	d := r.digits(strings.ReplaceAll(found, "-", ""), 24)
	return "00000000-" + d[:4] + "-" + d[4:8] + "-" + d[8:12] + "-" + d[12:]
}

// hexadecimal keeps the length of a number and its prefix 0x.
func (r *Redactor) hexadecimal(found string) string {
	text := strings.TrimPrefix(strings.ToLower(found), "0x")
	mark := "00000000" // of UUIDs and longer
	if len(text) < 32 {
		mark = "02"
	}
	return found[:len(found)-len(text)] + mark + r.digits(text, len(text)-len(mark))
}

// hardware keeps the length and the separators; the first byte marks a locally assigned
// address.
func (r *Redactor) hardware(found string) string {
	out := []byte(found)
	d := r.digits(found, len(found))
	for i := range out {
		if alphanumeric(out[i]) {
			out[i] = d[i]
		}
	}
	copy(out, "02")
	return string(out)
}

// ipv4 returns an address in 0.0.0.0/8, which no machine has.
func (r *Redactor) ipv4(found string) string {
	d := r.digits(found, 6)
	return fmt.Sprintf("0.1%s.1%s.1%s", d[:2], d[2:4], d[4:])
}

// ipv6 returns an address with the prefix for documentation.
func (r *Redactor) ipv6(found string) string {
	d := r.digits(found, 24)
	groups := []string{"2001:db8"}
	for ; d != ""; d = d[4:] {
		groups = append(groups, d[:4])
	}
	return strings.Join(groups, ":")
}

func (r *Redactor) number(found string) string { return "9999" + r.digits(found, len(found)-4) }

func (r *Redactor) url(found string) string {
	scheme, _, _ := strings.Cut(found, "://")
	return scheme + "://" + named("host")(r, found)
}
