package runtimes

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/cdigen/cdigen/internal/configedit"
	"github.com/cdigen/cdigen/internal/lazyregexp"
)

// bundle is a distribution of Kubernetes that brings a containerd of its own and writes its
// configuration. Such an engine has the version of its containerd.
type bundle struct {
	name Name
	// command is what users start it with.
	command string
	// containerd is its program, config the file that it reads, socket where it listens.
	containerd, config, socket string
	// units of systemd, of which a node runs one.
	units []string
	// templates are files that the configuration is made of when the node starts, the best one
	// first, each with the first version of containerd that it is for.
	templates []template
	// dropIns are files that the distribution merges into its configuration, key by key.
	dropIns string
}

type template struct{ since, name string }

// bundles are at their default places. What k3s and RKE2 do is in pkg/agent/containerd and
// pkg/agent/templates of k3s: since 1.34.5 and 1.35.2 the configuration imports config-v3.toml.d.
var bundles = []bundle{
	{
		name: K3s, command: "k3s", containerd: "/var/lib/rancher/k3s/data/current/bin/containerd",
		config: "/var/lib/rancher/k3s/agent/etc/containerd/config.toml", socket: "/run/k3s/containerd/containerd.sock",
		units: []string{"k3s.service", "k3s-agent.service"},
		templates: []template{
			{"2.0.0", "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl"},
			{"1.0.0", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl"},
		},
	},
	{
		name: RKE2, command: "rke2", containerd: "/var/lib/rancher/rke2/bin/containerd",
		config: "/var/lib/rancher/rke2/agent/etc/containerd/config.toml", socket: "/run/k3s/containerd/containerd.sock",
		units: []string{"rke2-server.service", "rke2-agent.service"},
		templates: []template{
			{"2.0.0", "/var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.tmpl"},
			{"1.0.0", "/var/lib/rancher/rke2/agent/etc/containerd/config.toml.tmpl"},
		},
	},
	// The start of its containerd replaces some variables in the template.
	{
		name: MicroK8s, command: "microk8s", containerd: "/snap/microk8s/current/bin/containerd",
		config: "/var/snap/microk8s/current/args/containerd.toml", socket: "/var/snap/microk8s/common/run/containerd.sock",
		units:     []string{"snap.microk8s.daemon-containerd.service"},
		templates: []template{{"1.0.0", "/var/snap/microk8s/current/args/containerd-template.toml"}},
	},
	// Until 1.36, with containerd 1.7, it merges the drop-ins into the file that it imports itself.
	{
		name: K0s, command: "k0s", containerd: "/var/lib/k0s/bin/containerd",
		config: "/etc/k0s/containerd.toml", socket: "/run/k0s/containerd.sock",
		units: []string{"k0sworker.service", "k0scontroller.service"}, dropIns: "/etc/k0s/containerd.d/*.toml",
	},
}

// bundled returns a distribution by its name; nil: the engine is none.
func bundled(name Name) *bundle {
	if i := slices.IndexFunc(bundles, func(b bundle) bool { return b.name == name }); i >= 0 {
		return &bundles[i]
	}
	return nil
}

// Kind returns the engine that does the work: containerd for a distribution of Kubernetes.
func (n Name) Kind() Name {
	if bundled(n) != nil {
		return Containerd
	}
	return n
}

// unit returns the unit of systemd that is enabled, or else one that is installed.
func (s System) unit(b *bundle) string {
	for _, dir := range []string{"/etc/systemd/system/multi-user.target.wants", "/etc/systemd/system"} {
		for _, unit := range b.units {
			if s.exists(filepath.Join(dir, unit)) {
				return unit
			}
		}
	}
	return b.units[0]
}

// readBundle reads a template that is plain TOML in the place of what is made of it, or else
// the configuration itself, which is the distribution's.
func readBundle(s System, r Request) (configuration, error) {
	if r.Config != "" {
		return readContainerd(s, r)
	}
	b := bundled(r.Engine)
	c := newContainerdConfig(s, r.Version)
	c.bundle = b
	for _, t := range b.templates {
		if !AtLeast(r.Version, t.since) {
			continue
		}
		data, err := s.read(t.name)
		if err != nil {
			return nil, fileError(s.path(t.name), err)
		}
		switch {
		case data != nil && bytes.Contains(data, []byte("{{")):
			c.byHand = s.path(t.name) + " is a template with actions: add the setting to it by hand"
			return c, c.read(b.config)
		case data != nil:
			c.bundle = nil
			return c, c.read(t.name)
		case c.template == nil:
			c.template = &file{name: t.name}
		}
	}
	return c, c.read(b.config)
}

// unpacked is a directory with the programs of one version of k3s.
var unpacked = lazyregexp.New(`/data/[0-9a-f]{64}/`)

// current returns a configuration with the link that follows updates in the place of such a
// directory.
func current(text []byte) []byte { return unpacked().ReplaceAll(text, []byte("/data/current/")) }

// copyTo makes the template of a distribution, which does not exist, as a copy of what the
// distribution made without one.
func (b *bundle) copyTo(t, from *file) error {
	if bytes.Contains(from.old, []byte("{{")) {
		return from.Errorf(nil, "it has {{ in it, which has a meaning in %s", t.name)
	}
	text := fmt.Appendf(nil, "# A copy of %s, changed by cdigen runtime. Remove it when %s has a newer containerd.\n", filepath.Base(from.name), b.name)
	for line := range bytes.Lines(current(from.old)) {
		if !generated().Match(line) {
			text = append(text, line...)
		}
	}
	copied, err := configedit.ParseTOML(text)
	if err != nil {
		return err
	}
	copied.Name, t.File, t.version = t.Name, copied, from.version
	return nil
}

// generated is what a comment says in a file that another program writes.
var generated = lazyregexp.New(`(?i)^\s*(?:#|//|;).*(?:\b(?:generated|managed|maintained) (?:automatically )?by\b|\bansible managed\b|_managed=true|\bdo not (?:edit|modify)\b)`)

// ownerLines is how many lines at the beginning of a file are looked at.
const ownerLines = 30

// foreign returns why a file that begins like this is not for users to change; empty: it is.
func foreign(data []byte) string {
	n := 0
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if n++; n > ownerLines || len(line) > 0 && !bytes.ContainsAny(line[:1], "#;/") {
			break
		}
		if generated().Match(line) {
			return fmt.Sprintf("it says %q: change what it is made from", bytes.TrimLeft(line, "#;/ "))
		}
	}
	return ""
}
