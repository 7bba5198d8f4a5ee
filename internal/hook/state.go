package hook

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"

	"github.com/cdigen/cdigen/internal/regular"
)

// Size limits of the runtime's files, in bytes, far above real ones.
const (
	maxState  = 1 << 20
	maxConfig = 16 << 20
)

// RootPath reads the state of a container that runtimes give to hooks (OCI runtime-spec,
// "State") and returns the path of its root on the host: from the state, where crun
// has it, or else from config.json in the bundle.
func RootPath(state io.Reader) (string, error) {
	data, err := regular.Read(state, "container's state", maxState)
	if err != nil {
		return "", err
	}
	var s struct {
		Bundle string `json:"bundle"`
		Root   string `json:"root"`
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return "", fmt.Errorf("read the container's state: %w", err)
	}
	switch {
	case s.Root != "":
		return s.Root, nil
	case !filepath.IsAbs(s.Bundle):
		return "", fmt.Errorf("the container's state has no root, and the bundle %q is not an absolute path", s.Bundle)
	}
	return configRoot(s.Bundle)
}

// configRoot returns the path of the root in a bundle's config.json.
func configRoot(bundle string) (string, error) {
	name := filepath.Join(bundle, "config.json")
	data, err := regular.ReadFile(name, maxConfig)
	if err != nil {
		return "", fmt.Errorf("find the container's root: %w", err)
	}
	var config struct {
		Root struct {
			Path string `json:"path"`
		} `json:"root"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return "", fmt.Errorf("find the container's root: read %s: %w", name, err)
	}
	switch {
	case config.Root.Path == "":
		return "", fmt.Errorf("find the container's root: %s has none", name)
	case filepath.IsAbs(config.Root.Path):
		return config.Root.Path, nil
	}
	return filepath.Join(bundle, config.Root.Path), nil
}
