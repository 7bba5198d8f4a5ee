package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Limits of what runtimes hand over, far above what they write.
const (
	maxState  = 1 << 20
	maxConfig = 16 << 20
)

// RootPath reads the state of a container as runtimes give it to hooks (OCI
// runtime-spec, "State") and returns the path of its root on the host: that of the
// state, where crun has it as well, else that of config.json in the bundle.
func RootPath(state io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(state, maxState+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the container's state: %w", err)
	case len(data) > maxState:
		return "", fmt.Errorf("the container's state has more than %d bytes", maxState)
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

// configRoot reads the path of the root in a bundle's config.json.
func configRoot(bundle string) (string, error) {
	name := filepath.Join(bundle, "config.json")
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return "", fmt.Errorf("find the container's root: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("find the container's root: %w", err)
	case !info.Mode().IsRegular() || info.Size() > maxConfig:
		return "", fmt.Errorf("find the container's root: %s is not a regular file of at most %d bytes", name, maxConfig)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxConfig))
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
		return "", errors.New("find the container's root: " + name + " has none")
	case filepath.IsAbs(config.Root.Path):
		return config.Root.Path, nil
	}
	return filepath.Join(bundle, config.Root.Path), nil
}
