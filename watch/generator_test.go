package watch

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"github.com/cdigen/cdigen/spec"
)

func TestOwnChangesAreThoseThatPublishMakes(t *testing.T) {
	dir := t.TempDir()
	output := filepath.Join(dir, "nvidia.yaml")
	g := &Generator{Output: output}
	var temporary string
	_, err := spec.Publish(t.Context(), output, []byte("published"), spec.PublishOptions{Validate: func(path string) error {
		temporary = path
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	g.sum = sha256.Sum256([]byte("published"))
	for path, want := range map[string]bool{
		temporary: true, output: true,
		filepath.Join(dir, ".nvidia.yaml.cdigen-old"):        true,
		filepath.Join(dir, "other.yaml"):                     false,
		filepath.Join(dir, ".nvidia.yaml.swp"):               false,
		filepath.Join(dir, "sub/.nvidia.yaml.cdigen-new"):    false,
		filepath.Join(t.TempDir(), "x/.nvidia.cdigen-new"):   false,
		filepath.Join(filepath.Dir(dir), filepath.Base(dir)): false,
	} {
		if g.OwnChange(path) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
	if err := os.WriteFile(output, []byte("edited"), 0o644); err != nil {
		t.Fatal(err)
	}
	if g.OwnChange(output) {
		t.Error("somebody else's edit is taken for ours")
	}
}
