package ownedits_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/ownedits"
)

func TestWhatCannotBeGivenIsLeftOutWithAFinding(t *testing.T) {
	dir := t.TempDir()
	file, program := filepath.Join(dir, "file"), filepath.Join(dir, "program")
	if err := errors.Join(os.WriteFile(file, nil, 0o644), os.WriteFile(program, nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	own, err := ownedits.Parse([]byte(strings.NewReplacer("FILE", file, "PROGRAM", program, "DIR", dir).Replace(`
containerEdits:
  mounts:
  - {hostPath: FILE, containerPath: /a}
  - {hostPath: DIR/missing, containerPath: /b}
  - {hostPath: DIR/untrusted, containerPath: /c}
  - {hostPath: tmpfs, containerPath: /d, type: tmpfs}
  deviceNodes: [{path: FILE}, {path: /dev/null}, {path: DIR/pinned, type: c, major: 1, minor: 3}]
  hooks: [{hookName: createContainer, path: PROGRAM}, {hookName: createContainer, path: FILE}]
devices:
- name: "0"
  containerEdits: {env: [A=1]}
`)))
	if err != nil {
		t.Fatal(err)
	}
	if len(own.Paths()) != 8 {
		t.Errorf("paths %q", own.Paths())
	}
	own.Source = "edits.yaml"
	own.LeaveOut(ownedits.Judge{
		Untrusted: func(path string) error {
			if strings.HasSuffix(path, "untrusted") {
				return errors.New("belongs to a user")
			}
			return nil
		},
		Stat: os.Stat,
	})
	var mounts []string
	for _, m := range own.ContainerEdits.Mounts {
		mounts = append(mounts, m.ContainerPath)
	}
	if !slices.Equal(mounts, []string{"/a", "/d"}) || len(own.ContainerEdits.DeviceNodes) != 2 || len(own.ContainerEdits.Hooks) != 1 {
		t.Errorf("%+v", own.ContainerEdits)
	}
	var left []string
	for _, f := range own.Left {
		left = append(left, string(f.ID)+" "+strings.TrimPrefix(f.Subject, dir+"/")+" "+f.Message)
	}
	want := []string{
		"edits-path-unusable missing is left out of the edits in edits.yaml: no such file or directory",
		"edits-untrusted untrusted is left out of the edits in edits.yaml: belongs to a user",
		"edits-path-unusable file is left out of the edits in edits.yaml: not a device node",
		"edits-path-unusable file is left out of the edits in edits.yaml: not an executable file",
	}
	if !slices.Equal(left, want) {
		t.Errorf("left out\n%s\nwant\n%s", strings.Join(left, "\n"), strings.Join(want, "\n"))
	}
	if len(own.Of([]string{"0"})) != 1 || own.Of([]string{"1"}) != nil {
		t.Error("the edits of a device are not those of its name")
	}
}
