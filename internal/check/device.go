package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/spec"
)

// Device returns why engines do not know a device; false when they do. A name without
// kind is of the spec's kind.
func Device(s *Snapshot, name string) (discover.Finding, bool) {
	unknown := func(format string, args ...any) (discover.Finding, bool) {
		return found(DeviceUnknown, discover.Broken, name, format, args...), true
	}
	qualified, wrong := s.Qualified(name)
	switch kind, device, _ := strings.Cut(qualified, "="); {
	case device == "":
		return unknown("names no device: %s", s.alternatives(kind, ""))
	case strings.Contains(device, ","):
		var each []string
		for one := range strings.SplitSeq(device, ",") {
			each = append(each, kind+"="+strings.TrimSpace(one))
		}
		return unknown("names several devices: ask for each by itself, %s", strings.Join(each, ", "))
	case wrong:
		message := "is not the form of a name: write " + qualified
		if f, isUnknown := Device(s, qualified); isUnknown {
			message += ", which " + f.Message
		}
		return unknown("%s", message)
	}
	name = qualified
	devices, _ := s.allDirectories().Devices()
	for _, d := range devices {
		switch {
		case d.Name == name && d.Availability == specdir.Conflicting:
			other, this := d.By, d.File
			if s.Directories.File(other).Is(s.Published) {
				other, this = this, other
			}
			return found(DeviceConflict, discover.Broken, other, "defines %s, and so does %s: engines take neither", name, this), true
		case d.Name == name && d.Availability == specdir.Available:
			return s.refused(&d)
		}
	}
	kind, device, _ := strings.Cut(name, "=")
	return unknown("is defined by no spec%s", s.alternatives(kind, device))
}

// Qualified returns a name as engines know it, with its kind. It is wrong if it has another
// sign than = between kind and device.
func (s *Snapshot) Qualified(name string) (qualified string, wrong bool) {
	if strings.Contains(name, "=") {
		return name, false
	}
	vendor, rest, ok := strings.Cut(name, "/")
	if !ok {
		return s.Kind + "=" + name, false
	}
	if class, device, ok := strings.Cut(rest, ":"); ok {
		return vendor + "/" + class + "=" + device, true
	}
	if class, device, ok := strings.Cut(rest, "/"); ok {
		return vendor + "/" + class + "=" + device, true
	}
	return name + "=", false
}

// refused reports whether an engine refuses the file of a device. Of our own file All has
// said so.
func (s *Snapshot) refused(d *specdir.Defined) (discover.Finding, bool) {
	f := s.Directories.File(d.File)
	content, err := f.Spec()
	if err != nil || s.own(f) {
		return discover.Finding{}, false
	}
	for i := range s.Engines {
		e := &s.Engines[i]
		dir := s.reading(e, f)
		if dir == nil || !takesCDI(e) {
			continue
		}
		if why := refusal(e, content.Version); why != "" {
			return found(DeviceRefused, discover.Broken, d.Name, "%s accepts CDI %s, and %s %s", engineName(e), e.MaxCDIVersion, d.File, why), true
		}
		if list := dirLink(e, dir); list != nil {
			return list[0], true
		}
	}
	return discover.Finding{}, false
}

// available returns the names of the devices of a kind that can be used, without the kind.
func (s *Snapshot) available(kind string) (names []string) {
	devices, _ := s.allDirectories().Devices()
	for _, d := range devices {
		if name, ok := strings.CutPrefix(d.Name, kind+"="); ok && d.Availability == specdir.Available {
			names = append(names, name)
		}
	}
	return names
}

// alternatives returns what there is in place of a device that is not defined, to follow the
// words that say so.
func (s *Snapshot) alternatives(kind, device string) string {
	names := s.available(kind)
	if len(names) == 0 {
		return ", nor is any other device of that kind" + s.kindAdvice(kind)
	}
	if device == "" {
		if slices.Contains(names, spec.AllDevices) {
			names = append([]string{spec.AllDevices}, names...)
		}
		return "write " + kind + "=" + names[0] + ", or another of " + printable.Some(names)
	}
	if kind == s.Kind {
		if why := s.likely(names, device); why != "" {
			return "; " + strings.ReplaceAll(why, "\x00", kind+"=")
		}
	}
	if near := startingWith(names, device); len(near) > 0 {
		return "; there is " + ranges(near)
	}
	return "; defined are " + printable.Some(withKind(kind, names))
}

// kindAdvice returns why there is no device of a CDI kind that cdigen knows, to follow the words
// that say so.
func (s *Snapshot) kindAdvice(kind string) string {
	known := spec.Kinds.Of(kind)
	if known == nil || known.OfGPUs() {
		return ""
	}
	for _, one := range s.each() {
		if one.Of == known && one.Now == nil {
			return ": the host has nothing of the kind " + known.Name
		} else if one.Of == known {
			return ""
		}
	}
	return ": --kind has to name " + known.Name
}

func withKind(kind string, names []string) []string {
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = kind + "=" + name
	}
	return list
}

// likely returns what a name is likely to mean on this host; empty: that is not known. The
// kind goes in for zero bytes.
func (s *Snapshot) likely(names []string, device string) string {
	for i := range s.Inventory.GPUs {
		g := &s.Inventory.GPUs[i]
		index := strconv.Itoa(g.Index)
		called := slices.Contains([]string{index, "gpu" + index, g.UUID, g.PCI}, device)
		switch mig := startingWith(names, index+":"); {
		case !called:
		case !g.Usable():
			return fmt.Sprintf("GPU %s is not usable: %s", index, g.Unusable())
		case g.MIGEnabled && len(mig) > 0:
			return fmt.Sprintf("GPU %s is in MIG mode: its MIG devices are \x00%s", index, ranges(mig))
		case g.MIGEnabled:
			return fmt.Sprintf("GPU %s is in MIG mode, and none of its MIG devices is in a spec", index)
		case slices.Contains(names, index) && device != index:
			return fmt.Sprintf("it is GPU %s, which the spec calls \x00%s", index, index)
		}
	}
	// The names of another strategy.
	for _, prefix := range []string{"gpu", "mig"} {
		if short, ok := strings.CutPrefix(device, prefix); ok && slices.Contains(names, short) {
			return "there is \x00" + short
		}
	}
	if _, err := strconv.Atoi(device); err == nil {
		numbers := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "" || name[0] < '0' || name[0] > '9' })
		if len(numbers) > 0 {
			return "there is \x00" + ranges(numbers)
		}
	}
	return ""
}

// startingWith returns the names that begin with a text, and the text with a colon behind it.
func startingWith(names []string, text string) (list []string) {
	for _, name := range names {
		if strings.HasPrefix(name, text) && (len(text) > 3 || strings.HasSuffix(text, ":")) {
			list = append(list, name)
		}
	}
	return list
}

// ranges joins names; those that end with numbers that follow each other are "6:0 to 6:6".
func ranges(names []string) string {
	var parts []string
	for i := 0; i < len(names); {
		last := i
		for last+1 < len(names) && follows(names[last], names[last+1]) {
			last++
		}
		switch last - i {
		case 0:
			parts = append(parts, names[i])
		case 1:
			parts = append(parts, names[i], names[last])
		default:
			parts = append(parts, names[i]+" to "+names[last])
		}
		i = last + 1
	}
	return printable.Some(parts)
}

// follows reports whether a name is another with the next number at its end.
func follows(name, next string) bool {
	at := strings.LastIndexByte(name, ':') + 1
	a, err1 := strconv.Atoi(name[at:])
	if len(next) < at || next[:at] != name[:at] {
		return false
	}
	b, err2 := strconv.Atoi(next[at:])
	return err1 == nil && err2 == nil && b == a+1
}
