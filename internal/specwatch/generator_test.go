package specwatch

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
	"github.com/cdigen/cdigen/internal/ownedits"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/spec"
)

func TestOwnChangesAreThoseThatPublishMakes(t *testing.T) {
	dir := t.TempDir()
	output := filepath.Join(dir, "nvidia.yaml")
	g := &Generator{Output: output}
	if err := os.WriteFile(output, []byte("published"), 0o644); err != nil {
		t.Fatal(err)
	}
	g.sums = map[string][sha256.Size]byte{g.Output: sha256.Sum256([]byte("published"))}
	for path, want := range map[string]bool{
		output: true,
		filepath.Join(dir, ".nvidia.yaml.cdigen-new"):        true,
		filepath.Join(dir, ".nvidia.yaml.cdigen-old"):        true,
		filepath.Join(dir, "other.yaml"):                     false,
		filepath.Join(dir, ".nvidia.yaml.swp"):               false,
		filepath.Join(dir, "sub/.nvidia.yaml.cdigen-new"):    false,
		filepath.Join(t.TempDir(), "x/.nvidia.cdigen-new"):   false,
		filepath.Join(filepath.Dir(dir), filepath.Base(dir)): false,
	} {
		if g.OwnChange(path) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
	if err := os.Chmod(output, 0o600); err != nil {
		t.Fatal(err)
	}
	if g.OwnChange(output) {
		t.Error("a mode that somebody else gave it is taken for ours")
	}
	if err := errors.Join(os.WriteFile(output, []byte("edited"), 0o644), os.Chmod(output, 0o644)); err != nil { //nolint:gosec // as specs are
		t.Fatal(err)
	}
	if g.OwnChange(output) {
		t.Error("somebody else's edit is taken for ours")
	}
}

// The limit on publications is for changes of a spec that is in place as it was published,
// not for one that others have changed or removed.
func TestGeneratorTellsChangesFromRepairs(t *testing.T) {
	const published, other = `{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0", "containerEdits": {"env": ["A=1"]}}]}`,
		`{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0", "containerEdits": {"env": ["A=2"]}}]}`
	data := func(s string) (text spectext.Text) {
		if s == "" {
			return text
		}
		text, err := spectext.Validate([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for name, c := range map[string]struct {
		published        string // by the generator; empty: it removed the spec
		inPlace          string // empty: nothing
		result           string // empty: no devices
		exists, replaces bool
	}{
		"the same":                              {published, published, published, true, false},
		"a change":                              {published, published, other, true, true},
		"no devices any more":                   {published, published, "", true, true},
		"removed by others":                     {published, "", published, false, false},
		"removed by others, and a change":       {published, "", other, false, false},
		"edited by others":                      {published, "a: 3\n", published, true, false},
		"edited by others, and a change":        {published, "a: 3\n", other, true, false},
		"devices again":                         {"", "", other, false, true},
		"still no devices":                      {"", "", "", false, false},
		"a spec of others after it was removed": {"", "a: 3\n", other, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := &Generator{Output: filepath.Join(t.TempDir(), "nvidia.yaml")}
			g.sums = map[string][sha256.Size]byte{g.Output: sha256.Sum256(data(c.published).Bytes())}
			if c.inPlace != "" {
				write(t, g.Output, c.inPlace)
				if err := os.Chmod(g.Output, 0o644); err != nil { //nolint:gosec // as specs are
					t.Fatal(err)
				}
			}
			r := &Result{data: data(c.result), Exists: exists(g.Output)}
			g.compare(r)
			expect(t, "exists", r.Exists, c.exists)
			expect(t, "replaces", r.Replaces, c.replaces)
		})
	}
	t.Run("a spec of before the start", func(t *testing.T) {
		g := &Generator{Output: filepath.Join(t.TempDir(), "nvidia.yaml")}
		write(t, g.Output, published)
		r := &Result{data: data(other), Exists: exists(g.Output)}
		g.compare(r)
		expect(t, "exists", r.Exists, true)
		expect(t, "replaces", r.Replaces, false)
	})
}

// The paths that the user's edits name decide what is in the spec, even those that are
// missing at the moment.
func TestPathsOfTheUsersEditsAreLookedAt(t *testing.T) {
	own, err := ownedits.Parse([]byte("containerEdits: {mounts: [{hostPath: /nowhere/models, containerPath: /models}]}"))
	if err != nil {
		t.Fatal(err)
	}
	own.LeaveOut(ownedits.Judge{Untrusted: func(string) error { return nil }, Stat: os.Stat})
	dir := t.TempDir()
	g := &Generator{
		Observer: Observer{Host: func() (hosttree.Host, error) { return hosttree.Local("amd64", dir, dir, dir, dir), nil }},
		Spec:     func() (spec.Options, error) { return spec.Options{Vendor: "nvidia.com", Class: "gpu", Own: own}, nil },
		Output:   filepath.Join(dir, "nvidia.yaml"), Format: spectext.YAML,
	}
	r, err := g.Generate(t.Context(), false)
	if err != nil || !r.Lookups.Has("/nowhere/models") || !r.Lookups.Has("/nowhere") {
		t.Errorf("%v, %+v", err, r)
	}
}

// Where no GPU has MIG mode, the kernel's log and what follows from it are the only reasons
// to ask NVML.
func TestGeneratorAsksNVMLAboutAGPUThatMayBeLost(t *testing.T) {
	d := hosttest.Load(t, "missing-node")
	d.MissingNodes = nil
	dir := t.TempDir()
	hosttest.Open(t, d, dir)
	lost := false
	g := &Generator{
		Observer: Observer{
			Host: func() (hosttree.Host, error) {
				host := hosttest.Reopen(t, d, dir)
				host.Proc = hosttree.NewTree(filepath.Join(dir, "proc"), os.DirFS(filepath.Join(dir, "proc")))
				return host, nil
			},
			ProcRoot: filepath.Join(dir, "proc"),
			Discover: discover.Options{ProbeIfNeeded: true, Probe: func(ctx context.Context, library string) (*nvmlprobe.Report, error) {
				r, err := d.Probe()(ctx, library)
				r.GPUs[1].Lost = lost
				return r, err
			}},
		},
		Spec: func() (spec.Options, error) {
			return spec.Options{Vendor: "nvidia.com", Class: "gpu", Names: spec.NameStrategies[:1]}, nil
		},
		Output: filepath.Join(dir, "cdi/nvidia.yaml"), Format: spectext.YAML,
	}
	for i, c := range []struct{ full, lost, probed, found bool }{
		{false, false, false, false},
		{false, true, false, false}, // nothing says so
		{true, true, true, true},
		{false, true, true, true}, // it stays lost
		{false, false, true, false},
		{false, false, false, false},
	} {
		lost = c.lost
		r, err := g.Generate(t.Context(), c.full)
		if err != nil {
			t.Fatal(err)
		}
		if r.Probed != c.probed || r.Inventory.GPUs[1].Lost != c.found {
			t.Errorf("generation %d: asked %v, lost %v; want %v, %v", i, r.Probed, r.Inventory.GPUs[1].Lost, c.probed, c.found)
		}
	}
}

// What CUDA programs need is named, and GPUs that nobody expects containers to get are not waited for.
func TestWhatIsMissing(t *testing.T) {
	node := &discover.Node{}
	for name, c := range map[string]struct {
		change func(inv *discover.Inventory)
		want   string
	}{
		"nothing":    {func(*discover.Inventory) {}, ""},
		"the driver": {func(inv *discover.Inventory) { inv.Driver.Version = "" }, "the driver is not loaded"},
		"two things": {func(inv *discover.Inventory) { inv.ControlNodes, inv.Libraries = inv.ControlNodes[:1], nil }, "/dev/nvidia-uvm, libcuda.so.1"},
		"a node": {func(inv *discover.Inventory) {
			inv.GPUs = append(inv.GPUs, discover.GPU{Index: 1, PCI: "0000:43:00.0"})
		}, "the node of GPU 1 (0000:43:00.0)"},
		"an excluded GPU": {func(inv *discover.Inventory) { inv.GPUs = append(inv.GPUs, discover.GPU{Index: -1, Excluded: true}) }, ""},
		"a lost GPU": {func(inv *discover.Inventory) {
			inv.GPUs = append(inv.GPUs, discover.GPU{Index: 1, Lost: true, Node: node})
		}, ""},
		"a GPU of other containers": {func(inv *discover.Inventory) { inv.GPUs = append(inv.GPUs, discover.GPU{Index: 1, Withheld: true}) }, ""},
		"all GPUs":                  {func(inv *discover.Inventory) { inv.GPUs[0].Lost = true }, "a usable GPU"},
	} {
		inv := complete(0)
		c.change(inv)
		r := &Result{Inventory: inv}
		if got := r.Missing(); got != c.want || r.Complete() != (c.want == "") {
			t.Errorf("%s: missing is %q, want %q", name, got, c.want)
		}
	}
}

// A directory of specs that engines of other users could read is made readable again, but not where
// others may have exchanged it, and not one that never was readable.
func TestASpecDirectoryStaysReadable(t *testing.T) {
	above := filepath.Join(t.TempDir(), "above")
	dir := filepath.Join(above, "cdi")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	g := &Generator{}
	for _, c := range []struct {
		what                 string
		g                    *Generator
		above, mode, becomes os.FileMode
	}{
		{"readable", g, 0o755, 0o755, 0o755},
		{"its permissions are taken away", g, 0o755, 0o700, 0o755},
		{"and others can exchange it", g, 0o777, 0o700, 0o700},
		{"never readable", &Generator{}, 0o755, 0o700, 0o700},
	} {
		if err := errors.Join(os.Chmod(above, c.above), os.Chmod(dir, c.mode)); err != nil {
			t.Fatal(err)
		}
		if err := c.g.keepReadable(dir); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != c.becomes {
			t.Errorf("%s: mode %v, %v; want %o", c.what, info.Mode(), err, c.becomes)
		}
	}
	if err := g.keepReadable(filepath.Join(dir, "none")); err != nil {
		t.Errorf("a directory that is not there yet: %v", err)
	}
}

// While the spec of GPUs is held, one of a kind that needs the driver is made where it is missing and
// stays where it is; others are as the host is now.
func TestRestoreHoldsKindsThatNeedTheDriver(t *testing.T) {
	dir := t.TempDir()
	text := func(kind, value string) spectext.Text {
		t.Helper()
		text, err := spectext.Validate([]byte("cdiVersion: 0.5.0\nkind: nvidia.com/" + kind + "\ndevices: [{name: all, containerEdits: {env: [A=" + value + "]}}]\n"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	g := &Generator{Output: filepath.Join(dir, "nvidia.yaml")}
	kinds := []string{"gds", "mofed"}
	for _, kind := range kinds {
		g.Others = append(g.Others, Other{Output: filepath.Join(dir, kind+".yaml"), Kind: "nvidia.com/" + kind})
	}
	for _, c := range []struct {
		value      string // empty: the host has nothing of them
		gds, mofed string
	}{{"1", "1", "1"}, {"2", "1", "2"}, {"", "1", ""}, {"3", "1", "3"}} {
		r := &Result{}
		for _, kind := range kinds {
			if c.value == "" {
				r.others = append(r.others, spectext.Text{})
			} else {
				r.others = append(r.others, text(kind, c.value))
			}
		}
		if err := g.Restore(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{c.gds, c.mofed} {
			data, err := os.ReadFile(g.Others[i].Output)
			if want == "" && !errors.Is(err, fs.ErrNotExist) || want != "" && string(data) != string(text(kinds[i], want).Bytes()) {
				t.Errorf("after %q: %s has %q, %v; want %q", c.value, kinds[i], data, err, want)
			}
		}
	}
}
