package hosttest

import (
	"os"

	"golang.org/x/sys/unix"
)

// Exchange exchanges a place and a symbolic link in a loop, as an attacker does who races
// against another program. A link that the other program has replaced by a file is made
// again. It ends when stop, which is called each time that everything is in its place,
// returns true.
func Exchange(place, link string, stop func() bool) error {
	target, err := os.Readlink(link)
	if err != nil {
		return err
	}
	for !stop() {
		for range 2 { // there and back
			_ = unix.Renameat2(unix.AT_FDCWD, place, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
		}
		if now, _ := os.Readlink(link); now != target {
			_ = os.Remove(link)
			_ = os.Symlink(target, link)
		}
	}
	return nil
}
