package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// specWrites remembers who has put the spec of the device plugin's devices in its place,
// and when: the plugin, whose spec has hooks, or cdigen.
type specWrites struct {
	mutex sync.Mutex
	list  []specWrite
}

type specWrite struct {
	at      time.Time
	plugins bool
}

// watchSpecs watches the place's /var/run/cdi, into which both rename their files. The plugin's spec lasts as long as cdigen
// waits for quiet, which is long enough to read it.
func watchSpecs(t *testing.T) *specWrites {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	check(t, err)
	events := os.NewFile(uintptr(fd), "inotify")
	_, err = unix.InotifyAddWatch(fd, runCDI(), unix.IN_MOVED_TO)
	check(t, err)
	s := &specWrites{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buffer := make([]byte, 64<<10)
		for {
			if _, err := events.Read(buffer); err != nil {
				if !errors.Is(err, os.ErrClosed) {
					t.Errorf("inotify: %v", err)
				}
				return
			}
			s.look()
		}
	}()
	t.Cleanup(func() {
		check(t, events.Close())
		<-ended
	})
	return s
}

// look takes down whose spec is there.
func (s *specWrites) look() {
	now := time.Now()
	data, err := os.ReadFile(filepath.Join(runCDI(), filepath.Base(pluginSpec)))
	if err != nil {
		return
	}
	plugins := bytes.Contains(data, []byte("nvidia-ctk")) || bytes.Contains(data, []byte("nvidia-cdi-hook"))
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.list = append(s.list, specWrite{now, plugins})
}

// after gives the first write of the plugin's since a time, and the first of cdigen's
// after that, or since then if the plugin has written nothing.
func (s *specWrites) after(since time.Time) (theirs, ours time.Time) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, w := range s.list {
		switch {
		case w.at.Before(since):
		case w.plugins && theirs.IsZero():
			theirs, ours = w.at, time.Time{}
		case !w.plugins && ours.IsZero():
			ours = w.at
		}
	}
	return theirs, ours
}
