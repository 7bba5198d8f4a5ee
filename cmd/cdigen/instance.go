package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/rundir"
	"github.com/cdigen/cdigen/internal/trust"
)

// runtimeDirectory is where watchers have their locks and sockets.
func runtimeDirectory(dir string) (string, error) {
	if dir == "" {
		dir = rundir.Default()
	}
	if dir == "" {
		return "", errors.New("no directory for lock and socket: run this as root, set XDG_RUNTIME_DIR, or use --runtime-dir")
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = makeRuntimeDirectory(dir)
	}
	if err != nil {
		return "", fmt.Errorf("the directory of locks and sockets: %w: run it as root, or use another --runtime-dir", err)
	}
	return dir, nil
}

// makeRuntimeDirectory creates a directory in which no other user can replace a socket by a
// link, whose target's mode would be changed.
func makeRuntimeDirectory(dir string) error {
	d, _, err := change.MakeDir(dir)
	if err != nil {
		return err
	}
	d.Close()
	return trust.Directory(dir, trust.Self())
}

// instanceName stands for an output in names of files, of which those of sockets
// cannot be long.
func instanceName(output string) string {
	name := strings.ReplaceAll(strings.Trim(output, "/"), "/", "-")
	if len(name) > 40 {
		sum := sha256.Sum256([]byte(output))
		name = fmt.Sprintf("%x-%s", sum[:6], name[len(name)-20:])
	}
	return name
}

// The files of a watcher for others, by the ends of their names.
const (
	socketFile  = ".sock"
	historyFile = ".history.json"
)

func instanceFile(runtimeDir, output, end string) string {
	return filepath.Join(runtimeDir, instanceName(output)+end)
}

// watcherFile is a file of a spec's watcher: in a directory that was named, or in the
// user's own one, or in that of the system, whose watcher a user may be asking for.
func watcherFile(runtimeDir, output, end string) string {
	if runtimeDir != "" {
		return instanceFile(runtimeDir, output, end)
	}
	if own := rundir.Default(); own != "" {
		if _, err := os.Stat(instanceFile(own, output, end)); err == nil {
			return instanceFile(own, output, end)
		}
	}
	return instanceFile(rundir.System, output, end)
}

// watcherSocket is the socket of a spec's watcher.
func watcherSocket(runtimeDir, output string) string {
	return watcherFile(runtimeDir, output, socketFile)
}
