package inject

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/limits"
	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/trust"
)

// Injection is how devices were injected into a file, to do so again. Which devices these
// are is in the file.
type Injection struct {
	// File is the path of the file, without symbolic links on the way.
	File   string `json:"file"`
	Format string `json:"format"`
	// UserOwned is the user with whose rights it is edited; empty: none.
	UserOwned string `json:"userOwned,omitempty"`
	Cgroup    string `json:"cgroup,omitempty"`
	// Rootfs is the directory of the container's root, and Links what was found in it.
	Rootfs string            `json:"rootfs,omitempty"`
	Links  map[string]string `json:"links,omitempty"`
	// Nodes are values of Proxmox's devN lines.
	Nodes []string `json:"nodes,omitempty"`
}

// Registry is the directory with a record of each file that devices were injected into, and
// with the files that those of Proxmox include.
type Registry string

// DefaultRegistry returns the directory for the effective user; empty: there is none.
func DefaultRegistry() Registry {
	if os.Geteuid() == 0 {
		return "/var/lib/cdigen"
	}
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return Registry(filepath.Join(state, "cdigen"))
	}
	if home, err := os.UserHomeDir(); err == nil {
		return Registry(filepath.Join(home, ".local/state/cdigen"))
	}
	return ""
}

// FormatProxmox is the format of an [Injection] into a [Proxmox].
const FormatProxmox = "proxmox"

const recordSuffix = ".injected.json"

// record returns the path of a file's record.
func (r Registry) record(file string) string {
	sum := sha256.Sum256([]byte(file))
	return filepath.Join(string(r), filepath.Base(file)+"-"+hex.EncodeToString(sum[:6])+recordSuffix)
}

// Included returns the path of the file that a configuration of Proxmox includes. It is the
// same on all nodes of a cluster.
func (r Registry) Included(file string) string {
	return filepath.Join(string(r), "proxmox-"+filepath.Base(file))
}

// Of returns how devices were injected into a file, or a new Injection.
func (r Registry) Of(file string) (Injection, error) {
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return Injection{}, err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	i := Injection{File: filepath.Join(dir, filepath.Base(file))}
	data, err := r.Read(r.record(i.File))
	if len(data) == 0 || err != nil {
		return i, err
	}
	return parseInjection(data, r.record(i.File))
}

// Read reads a file of the registry, which for root must be one that others cannot change;
// nothing if there is none.
func (r Registry) Read(name string) ([]byte, error) {
	f, err := regular.Open(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if os.Geteuid() == 0 {
		if err := trust.Path(name, trust.Self()); err != nil {
			return nil, err
		}
	}
	return regular.Read(f, name, limits.MaxBytes)
}

func parseInjection(data []byte, name string) (i Injection, err error) {
	if err := json.Unmarshal(data, &i); err != nil || !filepath.IsAbs(i.File) || i.Format == "" {
		return i, fmt.Errorf("%s is not a record of cdigen inject: remove it, and inject again: %w", name, errors.Join(err))
	}
	return i, nil
}

// All returns all injections.
func (r Registry) All() (all []Injection, err error) {
	entries, err := os.ReadDir(string(r))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var errs []error
	for _, e := range entries {
		name := filepath.Join(string(r), e.Name())
		if !strings.HasSuffix(name, recordSuffix) || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		data, err := r.Read(name)
		if err == nil && len(data) > 0 {
			var i Injection
			if i, err = parseInjection(data, name); err == nil {
				all = append(all, i)
			}
		}
		errs = append(errs, err)
	}
	return all, errors.Join(append(errs, err)...)
}

// Gone reports whether the file of an injection was removed with its container, and not only
// with the file system that they are on.
func (i Injection) Gone() bool {
	if _, err := os.Lstat(i.File); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	containers := filepath.Dir(i.File)
	if i.Format != FormatProxmox { // Proxmox has the files of all containers in one directory
		containers = filepath.Dir(containers)
	}
	_, err := os.Lstat(containers)
	return err == nil
}

// Plan returns the change of the record of an injection, and that of the file that is
// included, unless that is nil. Without keep both are removed.
func (r Registry) Plan(i Injection, included []byte, keep bool) (record, file change.Plan, err error) {
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return nil, nil, err
	}
	if data = append(data, '\n'); !keep {
		data = nil
	}
	if record, err = r.plan(r.record(i.File), data); err != nil || included == nil {
		return record, nil, err
	}
	if !keep {
		included = nil
	}
	file, err = r.plan(r.Included(i.File), included)
	return record, file, err
}

func (r Registry) plan(name string, data []byte) (change.Plan, error) {
	old, err := r.Read(name)
	if err != nil || bytes.Equal(old, data) && (old == nil) == (data == nil) {
		return nil, err
	}
	return change.Plan{{Path: name, Old: old, New: data}}, nil
}

// Conflict returns an error if the file that another configuration of Proxmox includes is
// the one that this would.
func (r Registry) Conflict(i Injection) error {
	all, err := r.All()
	if err != nil {
		return err
	}
	other := slices.IndexFunc(all, func(o Injection) bool {
		_, err := os.Lstat(o.File)
		return o.File != i.File && o.Format == FormatProxmox && r.Included(o.File) == r.Included(i.File) && err == nil
	})
	if other < 0 {
		return nil
	}
	return fmt.Errorf("%s has the same number: remove its devices first", all[other].File)
}
