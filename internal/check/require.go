package check

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/discover"
)

// Requirement is what a program needs of a host: alternatives, of which one has to hold, each
// with constraints that all have to hold.
type Requirement [][]constraint

// constraint compares what a host has with a value: "cuda>=12.4".
type constraint struct{ name, operator, value string }

func (c constraint) String() string { return c.name + c.operator + c.value }

// The operators, the longer ones first.
var operators = []string{">=", "<=", "!=", "=", ">", "<"}

// ParseRequirements reads what the user requires: constraints with spaces or commas between
// them, which all have to hold.
func ParseRequirements(list []string) (Requirement, error) {
	var all []constraint
	for _, text := range list {
		for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' }) {
			c, err := parseConstraint(word)
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
	}
	if all == nil && len(list) > 0 {
		return nil, errors.New("it names no constraint, such as cuda>=12.4")
	}
	return Requirement{all}, nil
}

// imageRequirement reads a variable NVIDIA_REQUIRE_… of an image: alternatives with spaces
// between them, of constraints with commas between them. Constraints that are not known, of a
// later version, are passed over as by NVIDIA's runtime.
func imageRequirement(text string) (r Requirement) {
	for _, alternative := range strings.Fields(text) {
		var all []constraint
		for word := range strings.SplitSeq(alternative, ",") {
			if c, err := parseConstraint(word); err == nil {
				all = append(all, c)
			}
		}
		if all != nil {
			r = append(r, all)
		}
	}
	return r
}

func parseConstraint(word string) (c constraint, err error) {
	at := strings.IndexAny(word, "<>=!")
	if at >= 0 {
		c.name = word[:at]
		for _, o := range operators {
			if value, ok := strings.CutPrefix(word[at:], o); ok && c.operator == "" {
				c.operator, c.value = o, value
			}
		}
	}
	_, isVersion := parseVersion(c.value)
	switch {
	case !slices.Contains([]string{"cuda", "driver", "arch", "brand"}, c.name) || c.operator == "":
		return c, fmt.Errorf("%.40q is not one of cuda, driver, arch and brand, an operator (>=, <=, >, <, =, !=) and a value", word)
	case c.name == "brand" && c.operator != "=" && c.operator != "!=" || c.name == "brand" && c.value == "":
		return c, fmt.Errorf("%.40q: a brand is compared with = or !=, as in brand=tesla", word)
	case c.name != "brand" && !isVersion:
		return c, fmt.Errorf("%.40q: %q is not a version, such as 12.4", word, c.value)
	}
	return c, nil
}

// imageRequirements returns the variables of a process by which images require something of
// the host; none where NVIDIA_DISABLE_REQUIRE turns that off.
func imageRequirements(environ string) map[string]string {
	f, err := os.Open(environ)
	if err != nil {
		return nil // another user's process
	}
	defer f.Close()
	data, _ := io.ReadAll(io.LimitReader(f, 1<<20))
	found := map[string]string{}
	for variable := range strings.SplitSeq(string(data), "\x00") {
		name, value, _ := strings.Cut(variable, "=")
		off, _ := strconv.ParseBool(value)
		switch {
		case name == "NVIDIA_DISABLE_REQUIRE" && off:
			return nil
		case strings.HasPrefix(name, "NVIDIA_REQUIRE_"):
			found[name] = value
		}
	}
	return found
}

// required compares the host with what the user requires, and a container's GPUs with what its
// image does.
func required(s *Snapshot) (list []discover.Finding) {
	given := func(g *discover.GPU) bool {
		return s.Container != nil && slices.ContainsFunc(s.Container.Nodes, func(n discover.Node) bool { return n.Path == g.Node.Path })
	}
	gpus := s.Inventory.UsableGPUs(given)
	if unmet := s.Required.Unmet(s.Inventory, gpus, false); unmet != "" {
		list = append(list, found(RequirementUnmet, discover.Broken, "this host", "%s", unmet))
	}
	if s.Container == nil {
		return list
	}
	for _, name := range slices.Sorted(maps.Keys(s.Container.Require)) {
		if unmet := imageRequirement(s.Container.Require[name]).Unmet(s.Inventory, gpus, true); unmet != "" {
			list = append(list, found(RequirementUnmet, discover.Warning, name, "%s", unmet))
		}
	}
	return list
}

// parseVersion returns the numbers of a version, "550.54.15".
func parseVersion(text string) (numbers []uint64, ok bool) {
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return nil, false
		}
		numbers = append(numbers, n)
	}
	return numbers, true
}

// Unmet returns what of a requirement a host does not meet with one of its GPUs, for people;
// empty: it meets all. Lenient: what is not known of the host, as without NVML, counts as met.
func (r Requirement) Unmet(inv *discover.Inventory, gpus []*discover.GPU, lenient bool) string {
	if len(gpus) == 0 {
		gpus = []*discover.GPU{{}}
	}
	for _, g := range gpus {
		var unmet []string
		for _, all := range r {
			first := ""
			for _, c := range all {
				first = cmp.Or(first, c.unmet(inv, g, lenient))
			}
			if first == "" {
				unmet = nil
				break
			}
			if !slices.Contains(unmet, first) {
				unmet = append(unmet, first)
			}
		}
		if unmet != nil {
			return strings.Join(unmet, "; or ")
		}
	}
	return ""
}

// unmet returns why a constraint does not hold; empty: it does.
func (c constraint) unmet(inv *discover.Inventory, g *discover.GPU, lenient bool) string {
	has, of := map[string]string{"cuda": inv.Driver.CUDAVersion, "driver": inv.Driver.Version, "arch": g.ComputeCapability, "brand": g.Brand}[c.name], ""
	if c.name == "arch" || c.name == "brand" {
		of = " of " + g.Name()
	}
	if has == "" && lenient {
		return ""
	}
	if has == "" {
		return fmt.Sprintf("%s is required, and %s%s is not known (NVML has to be asked for it)", c, c.name, of)
	}
	if !c.holds(has) {
		return fmt.Sprintf("%s is required, and %s%s is %s", c, c.name, of, has)
	}
	return ""
}

// holds compares what a host has with the value.
func (c constraint) holds(has string) bool {
	order := 0
	if c.name == "brand" {
		// Images write quadrortx for Quadro RTX.
		if !strings.EqualFold(strings.ReplaceAll(has, " ", ""), c.value) {
			order = 1
		}
	} else {
		a, _ := parseVersion(has)
		b, _ := parseVersion(c.value)
		order = compareVersions(a, b)
	}
	switch c.operator {
	case ">=":
		return order >= 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case "<":
		return order < 0
	case "!=":
		return order != 0
	}
	return order == 0
}

// compareVersions compares number by number; those that are missing are 0.
func compareVersions(a, b []uint64) int {
	for i := range max(len(a), len(b)) {
		var x, y uint64
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return cmp.Compare(x, y)
		}
	}
	return 0
}
