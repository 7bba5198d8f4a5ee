package config

import (
	"errors"
	"io/fs"
	"os"

	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/trust"
)

// MaxGiven is the size limit of a file that the user names, in bytes.
const MaxGiven = 32 << 20

// ReadGiven reads a file that the user has named. It may be a pipe, such as /dev/stdin or
// that of a shell's <(command).
func ReadGiven(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return regular.Read(f, file, MaxGiven)
}

// readTrusted reads a file that decides what is published: only root and the user may be
// able to write it. A file that is read again must not be a pipe.
func readTrusted(file string, again bool) ([]byte, error) {
	if err := trust.Path(file, trust.Self()); errors.As(err, new(*trust.Error)) {
		return nil, err // other errors are of the user's own files, such as a pipe without a name
	}
	if again {
		return regular.ReadFile(file, MaxGiven)
	}
	return ReadGiven(file)
}

// untrustedPath returns a function that returns why users other than root and the caller
// can change where a path leads. A path that does not exist is accepted.
func untrustedPath() func(path string) error {
	tree := trust.Local("/", trust.Self())
	return func(path string) error {
		err := tree.Check(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
}
