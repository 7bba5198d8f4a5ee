package printable

import (
	"errors"
	"fmt"
	"io/fs"
)

// Count returns a number and a noun, "1 device" or "2 devices".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Cause returns an error without the operation and the path of an [fs.PathError], for texts
// that name the path already.
func Cause(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}
