package fakenvml

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// In a separate directory, because go build takes a C file for cgo.
//
//go:embed src/nvml.c
var source []byte

// ErrNoCompiler says that this machine has no C compiler: neither $CC nor cc nor
// gcc is a program.
var ErrNoCompiler = errors.New("no C compiler ($CC, cc or gcc)")

// Old is the define for [Build] that makes a library of the time before MIG.
const Old = "FAKE_NVML_OLD"

// Build compiles the library, unless an earlier call of any process has done so
// from the same source with the same compiler and defines, and returns its
// absolute path. The file is kept in the user's cache directory and must not be
// changed: copy it to where it is wanted.
func Build(defines ...string) (string, error) {
	compiler, err := findCompiler()
	if err != nil {
		return "", err
	}
	args := append(slices.Clone(compiler[1:]),
		"-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-pthread", "-Wl,-soname,libnvidia-ml.so.1")
	for _, d := range defines {
		args = append(args, "-D"+d)
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%q %q ", compiler[0], args)
	hash.Write(source)
	dir, err := cacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for the fake NVML library: %w", err)
	}
	path := filepath.Join(dir, "libnvidia-ml-"+hex.EncodeToString(hash.Sum(nil)[:12])+".so.1")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, compile(compiler[0], args, path)
}

func compile(compiler string, args []string, path string) error {
	work, err := os.MkdirTemp(filepath.Dir(path), "build-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	input, output := filepath.Join(work, "nvml.c"), filepath.Join(work, "libnvidia-ml.so.1")
	if err := os.WriteFile(input, source, 0o644); err != nil {
		return err
	}
	// -ldl for glibc before 2.34, after the source that needs it.
	cmd := exec.Command(compiler, append(args, "-o", output, input, "-ldl")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the fake NVML library: %s: %w\n%s", cmd, err, out)
	}
	return os.Rename(output, path)
}

// findCompiler returns the absolute path of the C compiler and the arguments that
// $CC may bring with it.
func findCompiler() ([]string, error) {
	candidates := []string{"cc", "gcc"}
	if cc := os.Getenv("CC"); cc != "" {
		candidates = []string{cc}
	}
	for _, c := range candidates {
		words := strings.Fields(c)
		if len(words) == 0 {
			continue
		}
		path, err := exec.LookPath(words[0])
		if err != nil {
			continue
		}
		if words[0], err = filepath.Abs(path); err != nil {
			return nil, err
		}
		return words, nil
	}
	return nil, ErrNoCompiler
}

// cacheDir is the user's cache directory, or, for a user without a home, a
// directory of the user's own among the temporary files.
func cacheDir() (string, error) {
	if base, err := os.UserCacheDir(); err == nil {
		dir := filepath.Join(base, "cdigen", "fakenvml")
		if err := os.MkdirAll(dir, 0o755); err == nil {
			return dir, nil
		}
	}
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("cdigen-fakenvml-%d", os.Getuid()))
	err := os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	// Another user may have been there first.
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("%s is not a directory that only this user can write to", dir)
	}
	return dir, nil
}

// Skip says what a test should do about an error of [Build]: skip for want of a
// compiler, but not in CI, where nothing is skipped.
func Skip(err error) bool {
	return errors.Is(err, ErrNoCompiler) && os.Getenv("CI") != "true"
}
