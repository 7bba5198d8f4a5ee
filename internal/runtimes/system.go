package runtimes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/limits"
	"github.com/cdigen/cdigen/internal/regular"
)

// System is where engines are looked for.
type System struct {
	// Root is the directory that has the configuration files in its etc. Links in it
	// lead to files below it.
	Root string
	// LookPath finds a program by its name.
	LookPath func(name string) (string, error)
	// Run runs a program and returns its standard output. An error includes its standard
	// error. The program ends with the context.
	Run func(ctx context.Context, program string, args ...string) ([]byte, error)
	// Getenv returns environment variables: HOME, XDG_CONFIG_HOME,
	// XDG_RUNTIME_DIR, CONTAINERS_CONF and others that engines read.
	Getenv func(string) string
	// UID of the user who runs the engines. Configuration in the home directory is read unless
	// it is root.
	UID int
}

// Local returns this machine, for the user who runs the program.
func Local() System {
	return System{Root: "/", LookPath: lookPath, Run: run, Getenv: os.Getenv, UID: os.Geteuid()}
}

// An ordinary user's PATH may lack these, which daemons are in.
var daemonDirs = []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin"}

func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range daemonDirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}

func run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	// A child of its own may keep the output open.
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		err = nil // it succeeded, but a child is left
	}
	name := strings.Join(append([]string{filepath.Base(program)}, args...), " ")
	switch {
	case ctx.Err() != nil:
		return stdout.Bytes(), fmt.Errorf("%s: not finished in time: %w", name, context.Cause(ctx))
	case err != nil && strings.TrimSpace(stderr.String()) != "":
		return stdout.Bytes(), fmt.Errorf("%s: %w: %s", name, err, lastLines(stderr.String(), 3))
	case err != nil:
		return stdout.Bytes(), fmt.Errorf("%s: %w", name, err)
	}
	return stdout.Bytes(), nil
}

// lastLines returns the last lines of a text as one line: programs usually print the reason
// there.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}

// path returns the path of a file of the system on this machine.
func (s System) path(name string) string { return filepath.Join(s.Root, name) }

// linksLimit is the kernel's (MAXSYMLINKS).
const linksLimit = 40

// resolve follows the symbolic links of a path inside the root, and returns the path on this
// machine. A missing file is not an error, since it may be about to be made; to a
// [hosttree.Tree], which is read only, it is one.
func (s System) resolve(name string) (string, error) {
	done, left := "/", strings.Split(filepath.Clean("/"+name), "/")
	for links := 0; len(left) > 0; {
		part := left[0]
		left = left[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = filepath.Dir(done)
			continue
		}
		next := filepath.Join(done, part)
		target, err := os.Readlink(s.path(next))
		if err != nil { // no link, or nothing at all
			done = next
			continue
		}
		if links++; links > linksLimit {
			return "", fmt.Errorf("%s: too many symbolic links", s.path(name))
		}
		if filepath.IsAbs(target) {
			done = "/"
		}
		left = append(strings.Split(target, "/"), left...)
	}
	return s.path(done), nil
}

// read reads a file of the system; nil without one.
func (s System) read(name string) ([]byte, error) {
	path, err := s.resolve(name)
	if err != nil {
		return nil, err
	}
	data, err := regular.ReadFile(path, limits.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if data == nil && err == nil {
		data = []byte{}
	}
	return data, err
}

// exists reports whether there is a file or directory, or a link.
func (s System) exists(name string) bool {
	_, err := os.Lstat(s.path(name))
	return err == nil
}

// list returns the sorted names in a directory that are not directories.
func (s System) list(dir string) (names []string, err error) {
	path, err := s.resolve(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, err
}

// userDir returns the directory of the user's configuration; empty for root.
func (s System) userDir() string {
	if s.UID == 0 {
		return ""
	}
	return s.configHome()
}

// configHome returns $XDG_CONFIG_HOME or its default.
func (s System) configHome() string {
	if dir := s.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	if home := s.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".config")
	}
	return ""
}

// runtimeDir returns $XDG_RUNTIME_DIR or its default.
func (s System) runtimeDir() string {
	if dir := s.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return dir
	}
	return fmt.Sprintf("/run/user/%d", s.UID)
}

// userFile returns the user's own file if it exists, or else that of the system.
func (s System) userFile(system, own string) string {
	if dir := s.userDir(); dir != "" {
		if data, err := s.read(filepath.Join(dir, own)); data != nil || err != nil {
			return filepath.Join(dir, own)
		}
	}
	return system
}
