package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The engines of the documentation, with their configuration as Debian 13 and a user have
// it.
var (
	documentedEngines = map[string]string{
		"podman":     "podman version 5.4.2",
		"dockerd":    "Docker version 26.1.5+dfsg1, build 411e817",
		"containerd": "containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6",
	}
	documentedFiles = map[string]string{
		"etc/docker/daemon.json": "{\n  \"features\": {\n    \"containerd-snapshotter\": true\n  }\n}\n",
		"etc/containerd/config.toml": `version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
`,
	}
)

func TestDocumentationShowsRuntime(t *testing.T) {
	p := build(t)
	root, bin := t.TempDir(), t.TempDir()
	for name, version := range documentedEngines {
		script := "#!/bin/sh\ncase $3 in config) cat \"$2\" ;; *) echo '" + version + "' ;; esac\n"
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	for name, text := range documentedFiles {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const document = "../../docs/runtimes.md"
	shown, lines := shownBlock(t, document)
	var got strings.Builder
	for _, line := range lines[shown.first:shown.end] {
		m := prompt.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		got.WriteString(line + "\n")
		words := strings.Fields(m[1])
		// Other engines that this machine has are not those of the documentation.
		if words[2] == "status" {
			words = append(words, "podman", "docker", "containerd")
		}
		cmd := exec.Command(p.cdigen, words[1:]...)
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME=/none", "XDG_RUNTIME_DIR="+t.TempDir(), "XDG_CONFIG_HOME=", "CONTAINERS_CONF=", "CDIGEN_ROOT="+root)
		text, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !asExit(err, &exit) {
			t.Fatal(err)
		}
		got.WriteString(strings.Join(unroot(strings.Split(string(text), "\n"), root), "\n"))
	}
	compareShown(t, document, got.String())
}
