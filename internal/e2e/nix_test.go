package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Nix refuses to build when vendorHash is not the hash of what go mod vendor makes.
func TestNixPackageHasTheHashOfTheModules(t *testing.T) {
	requireNamespace(t) // an ordinary user's modules may be a vendor directory already
	vendor := filepath.Join(workDir(t), "vendor")
	check(t, command(repository(), "go", "mod", "vendor", "-o", vendor))
	hash := sha256.New()
	writeString(hash, "nix-archive-1")
	check(t, writeNode(hash, vendor))
	want := "sha256-" + base64.StdEncoding.EncodeToString(hash.Sum(nil))
	text, err := os.ReadFile(filepath.Join(repository(), "packaging/nix/package.nix"))
	check(t, err)
	if got := regexp.MustCompile(`vendorHash = "(.*)"`).FindSubmatch(text); got == nil || string(got[1]) != want {
		t.Errorf("packaging/nix/package.nix: vendorHash is %q, not %q", got, want)
	}
}

// writeNode writes a file or directory as Nix archives it (its manual, "Nix Archive format").
func writeNode(w io.Writer, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		data, err := os.ReadFile(path)
		for _, s := range []string{"(", "type", "regular", "contents", string(data), ")"} {
			writeString(w, s)
		}
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, s := range []string{"(", "type", "directory"} {
		writeString(w, s)
	}
	for _, e := range entries {
		for _, s := range []string{"entry", "(", "name", e.Name(), "node"} {
			writeString(w, s)
		}
		if err := writeNode(w, filepath.Join(path, e.Name())); err != nil {
			return err
		}
		writeString(w, ")")
	}
	writeString(w, ")")
	return nil
}

// writeString writes its length, the bytes, and zeros up to a multiple of 8.
func writeString(w io.Writer, s string) {
	padded := make([]byte, (len(s)+7)/8*8)
	copy(padded, s)
	_, _ = w.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(s))))
	_, _ = w.Write(padded)
}
