// Package fsuser accesses files with the rights of another user.
//
// If root reads or writes in another user's directory, links and exchanged directories
// can lead it elsewhere. A [Thread] has the user's identity for files (setfsuid(2)) and no
// capabilities, so the kernel allows it only what the user may do. In all other respects
// it is a thread of root's process: unlike a child process with the user's uid, the user
// can neither trace nor signal it.
//
// The package knows nothing of containers or of the command line.
package fsuser

import (
	"errors"
	"fmt"
	"os/user"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// User is a user and a group of the user.
type User struct {
	// Name in the user database; empty: the user is not in it.
	Name     string
	UID, GID uint32
}

// String returns the user in words: "alice (uid 1000)".
func (u User) String() string {
	if u.Name == "" {
		return fmt.Sprintf("uid %d", u.UID)
	}
	return fmt.Sprintf("%s (uid %d)", u.Name, u.UID)
}

// Parse parses USER[:GROUP], both by name or number. The default group is that of the user
// database; a user who is not in it has none.
func Parse(text string) (User, error) {
	name, group, grouped := strings.Cut(text, ":")
	u, gid, err := lookUp(name)
	switch {
	case err != nil:
		return User{}, err
	case grouped:
		gid, err = lookUpGroup(group)
	case gid == "":
		return User{}, fmt.Errorf("user %s is not in the user database: give the group too, as in %s:%s", name, name, name)
	}
	if err != nil {
		return User{}, err
	}
	u.GID, err = number(gid)
	return u, err
}

// lookUp returns a user, and the group in the user database.
func lookUp(name string) (u User, gid string, err error) {
	entry, err := user.Lookup(name)
	if err != nil {
		// LookupId may take a number that is too large for another one.
		if u.UID, err = number(name); err != nil {
			return u, "", fmt.Errorf("there is no user %q", name)
		}
		entry, err = user.LookupId(name)
	}
	if err != nil {
		return u, "", nil //nolint:nilerr // a user who is not in the user database may own files
	}
	u.Name = entry.Username
	u.UID, err = number(entry.Uid)
	return u, entry.Gid, err
}

func lookUpGroup(name string) (string, error) {
	if entry, err := user.LookupGroup(name); err == nil {
		return entry.Gid, nil
	}
	if _, err := number(name); err != nil {
		return "", fmt.Errorf("there is no group %q", name)
	}
	return name, nil
}

// number parses an id. The highest number means no user.
func number(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, fmt.Errorf("%q is not the number of a user or group", text)
	}
	return uint32(n), nil
}

// Thread runs functions with a user's rights to files.
type Thread struct{ calls chan func() }

// Start starts a thread. The process must run as root.
func Start(u User) (*Thread, error) {
	t := &Thread{make(chan func())}
	started := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and no other goroutine runs on
		// it. No thread inherits its identity: the Go runtime starts none from a locked one.
		runtime.LockOSThread()
		err := become(u)
		started <- err
		if err != nil {
			return
		}
		for call := range t.calls {
			call()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("take the rights of %s: %w", u, err)
	}
	return t, nil
}

// Do calls a function on the thread and returns its error. The function must not start
// goroutines. A nil thread calls it directly.
func (t *Thread) Do(f func() error) (err error) {
	if t == nil {
		return f()
	}
	done := make(chan struct{})
	t.calls <- func() {
		defer close(done)
		err = f()
	}
	<-done
	return err
}

// Close ends the thread.
func (t *Thread) Close() {
	if t != nil {
		close(t.calls)
	}
}

// become gives only the calling thread a user's identity for files. [unix.Setgroups] would
// change all threads of the process.
func become(u User) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return fmt.Errorf("leave the groups: %w", errno)
	}
	if err := errors.Join(set("gid", u.GID, unix.SetfsgidRetGid), set("uid", u.UID, unix.SetfsuidRetUid)); err != nil {
		return err
	}
	// With the change of the uid the kernel clears the capabilities that override
	// permissions of files (capabilities(7)), unless securebits prevent it.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

// set sets an id. The system call returns the previous id and no errors, so a second call
// with an invalid id verifies it.
func set(what string, id uint32, call func(int) (int, error)) error {
	if _, err := call(int(id)); err != nil {
		return err
	}
	now, err := call(-1)
	if err == nil && uint32(now) != id { //nolint:gosec // an id
		err = fmt.Errorf("set the %s for files to %d: %w", what, id, unix.EPERM)
	}
	return err
}
