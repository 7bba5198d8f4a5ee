package specwatch

import (
	"time"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
)

// Condition of the published spec.
type Condition string

// The conditions.
const (
	// Starting: no generation has ended yet.
	Starting Condition = "starting"
	// Current: the spec is what the host has.
	Current Condition = "current"
	// NoDevices: the host has no usable GPU and no spec is published.
	NoDevices Condition = "no-devices"
	// Holding: the driver is incomplete or being replaced, and the last good spec stays.
	Holding Condition = "holding"
	// Limited: there were too many publications in a row, and the last spec stays until
	// another is allowed.
	Limited Condition = "limited"
	// Asleep: a GPU has to be awake before anything is known of it.
	Asleep Condition = "asleep"
	// Failing: the last generation failed; a spec that is in place is that of an earlier one.
	Failing Condition = "failing"
)

// Results of a generation beside the outcomes of [spec.Publish].
const (
	Held    = "held"
	Delayed = "delayed"
	Waiting = "waiting"
	Failed  = "failed"
)

// Generation describes one that has ended.
type Generation struct {
	// Trigger is the name of the source of the first event that led to it, or
	// "start", "retry", "limit", "grace" or "deadline".
	Trigger string `json:"trigger"`
	// Detail is what the source saw.
	Detail string `json:"detail,omitempty"`
	// Result is published, unchanged, removed, absent, held, delayed, waiting or failed.
	Result string `json:"result"`
	// Changes in words.
	Changes []string `json:"changes,omitempty"`
	// At is when it began, Seconds how long it took.
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"`
	// Probed reports whether NVML was asked, and ProbeSeconds how long it took.
	Probed       bool    `json:"probed"`
	ProbeSeconds float64 `json:"probeSeconds,omitempty"`
}

// State of a loop.
type State struct {
	Started   time.Time `json:"started"`
	Condition Condition `json:"condition"`
	// Settled: the first spec of a complete driver was published, or there is no point in
	// waiting longer for one.
	Settled bool `json:"settled"`
	// Ready: it is settled, and a spec that is true of the host is in place.
	Ready bool `json:"ready"`
	// InPlace reports whether there was a spec after the last generation.
	InPlace bool `json:"inPlace"`
	// Error of the last generation.
	Error  string `json:"error,omitempty"`
	Driver string `json:"driver,omitempty"`
	// GPUs that are usable.
	GPUs int `json:"gpus"`
	// Devices of the first spec.
	Devices []string `json:"devices"`
	// Specs are all that are in place.
	Specs []SpecState `json:"specs"`
	// Findings about the host, and about the spec in place.
	Findings []discover.Finding `json:"findings"`
	// Sources are those of the loop, in its order.
	Sources []SourceState `json:"sources"`
	// ChangedSettings is the settings file, if it differs from the settings in use: the
	// watcher has to be restarted.
	ChangedSettings string `json:"changedSettings,omitempty"`
	// LastChange is the generation that wrote or removed the spec last, or the first.
	LastChange     *Generation `json:"lastChange,omitempty"`
	LastGeneration *Generation `json:"lastGeneration,omitempty"`
	// Numbers since Started.
	Generations int `json:"generations"`
	Events      int `json:"events"`
	Probes      int `json:"probes"`

	gpus    []discover.GPU // for the metrics
	unasked bool           // there are devices of other kinds, and clearly no GPUs
}

// WantsGPUs reports whether it is a failure that no GPU is published.
func (s *State) WantsGPUs() bool { return !s.unasked }

// SpecState is a published spec.
type SpecState struct {
	Path string `json:"path"`
	// Kind is that of the devices, "nvidia.com/gds".
	Kind    string   `json:"kind"`
	Devices []string `json:"devices"`
}

// SpecStateOf describes a spec.
func SpecStateOf(path string, s *specs.Spec) SpecState {
	state := SpecState{Path: path, Kind: s.Kind}
	for i := range s.Devices {
		state.Devices = append(state.Devices, s.Devices[i].Name)
	}
	return state
}

// SourceState is whether a source of events works.
type SourceState struct {
	Name string `json:"name"`
	// Up is false while the source is down. It is started again and again, and a slower
	// way of noticing changes stands in for it.
	Up bool `json:"up"`
	// Error says why it is down.
	Error string `json:"error,omitempty"`
}

// Down returns the names of the sources that are down.
func (s *State) Down() (names []string) {
	for _, source := range s.Sources {
		if !source.Up {
			names = append(names, source.Name)
		}
	}
	return names
}

func (s *State) describe(r *Result) {
	s.Driver, s.GPUs, s.gpus = r.Inventory.Driver.Version, 0, r.Inventory.GPUs
	for i := range s.gpus {
		if s.gpus[i].Usable() {
			s.GPUs++
		}
	}
	s.Devices, s.Specs = nil, nil
	for _, w := range r.specs() {
		s.Specs = append(s.Specs, SpecStateOf(w.Spec, w.Now))
	}
	if r.Spec != nil {
		s.Devices = s.Specs[0].Devices
	}
	s.unasked = !r.Inventory.WantsGPUs(r.Spec == nil && len(s.Specs) > 0)
}
