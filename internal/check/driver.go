package check

import (
	"slices"

	"github.com/cdigen/cdigen/discover"
)

// NoGPU returns an error that is [ErrNoGPU] for a machine without GPUs for containers.
func NoGPU(s *Snapshot) error {
	if why := s.Inventory.NoGPU(); why != "" {
		return noGPUError(why)
	}
	return nil
}

// noGPUError has the reason, which begins with what is wrong.
type noGPUError string

func (e noGPUError) Error() string { return string(e) }

func (e noGPUError) Is(target error) bool { return target == ErrNoGPU }

// driver looks at the kernel module and at the user-space driver that goes with it.
// Without them there is no use in looking at what depends on them: unusable.
func driver(s *Snapshot) (list []discover.Finding, unusable bool) {
	for _, f := range s.Inventory.Findings {
		switch f.ID {
		case discover.DriverNotLoaded, discover.DriverUnreadable:
			unusable, list = true, append(list, f)
		case discover.GPUOtherDriver:
			if s.Inventory.Driver.Version == "" {
				list = append(list, f)
			}
		}
	}
	if !unusable && !hasCUDA(s.Inventory) {
		f := s.Inventory.LibrariesMissing(s.Host)
		if at := slices.IndexFunc(s.Inventory.Findings, func(f discover.Finding) bool { return f.ID == discover.LibraryUntrusted }); at >= 0 {
			f = s.Inventory.Findings[at]
		}
		return append(list, libraries(s, f)), true
	}
	return list, unusable
}

func hasCUDA(inv *discover.Inventory) bool {
	return slices.ContainsFunc(inv.Libraries, func(l discover.Library) bool { return l.SONAME == "libcuda.so.1" })
}

// libraries returns why the driver's libraries are not found, where more is known than
// discovery could tell.
func libraries(s *Snapshot, f discover.Finding) discover.Finding {
	below := s.Host.Driver.Path
	switch {
	case s.System.DriverRootMissing:
		return found(DriverRootMissing, discover.Broken, below, "does not exist: the driver's libraries should be below it")
	case s.System.OtherDriverRoot != "":
		return found(DriverRoot, discover.Broken, s.System.OtherDriverRoot, "has the libraries of driver %s, which are not below %s", s.Inventory.Driver.Version, below)
	}
	return f
}
