package runtimes_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/runtimes"
)

const (
	offJSON = "{\"features\": {\"cdi\": false}}\n"
	onJSON  = "{\"features\": {\"cdi\": true}}\n"
)

// dockerWith is a system with a daemon.json that switches CDI off, and systemctl, which
// does what restart says.
func dockerWith(t *testing.T, restart func(args []string) error) (s runtimes.System, file string) {
	t.Helper()
	s = installation{programs: map[string]string{"systemctl": ""}, files: map[string]string{"etc/docker/daemon.json": offJSON}}.system(t)
	s.Run = func(_ context.Context, program string, args ...string) ([]byte, error) {
		if filepath.Base(program) != "systemctl" || restart == nil {
			return nil, fmt.Errorf("%s is run with %v", program, args)
		}
		return nil, restart(args)
	}
	return s, filepath.Join(s.Root, "etc/docker/daemon.json")
}

func enableDocker(t *testing.T, s runtimes.System) *runtimes.Plan {
	t.Helper()
	p, err := s.Enable(runtimes.Request{Engine: runtimes.Docker, Version: "28.3.0", SpecDirs: []string{"/etc/cdi"}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// names of the files in a directory.
func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestModeOwnerAndAttributesStay(t *testing.T) {
	s, file := dockerWith(t, nil)
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = 61112, 61113
		if err := os.Chown(file, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	attributes := unix.Setxattr(file, "user.label", []byte("a label"), 0) == nil
	done, err := enableDocker(t, s).Apply(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if readFile(t, file) != onJSON || readFile(t, file+".cdigen-backup") != offJSON {
		t.Error("the file or its backup is not what it should be")
	}
	if !slices.Equal(done.Files, []string{file}) || !slices.Equal(done.Backups, []string{file + ".cdigen-backup"}) || done.Restarted != "" {
		t.Errorf("%+v", done)
	}
	for _, name := range []string{file, file + ".cdigen-backup"} {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil || st.Mode&0o7777 != 0o640 || int(st.Uid) != uid || int(st.Gid) != gid || st.Nlink != 1 {
			t.Errorf("%s: mode %o, owner %d:%d, %d names: %v", name, st.Mode, st.Uid, st.Gid, st.Nlink, err)
		}
		value := make([]byte, 100)
		if n, err := unix.Getxattr(name, "user.label", value); attributes && (err != nil || string(value[:n]) != "a label") {
			t.Errorf("%s: attribute %q: %v", name, value[:n], err)
		}
	}
	// The next change replaces the backup.
	p, err := s.Disable(runtimes.Request{Engine: runtimes.Docker, Version: "28.3.0"})
	if err == nil {
		_, err = p.Apply(t.Context(), false)
	}
	if err != nil || readFile(t, file) != offJSON || readFile(t, file+".cdigen-backup") != onJSON {
		t.Errorf("the second change: %v", err)
	}
	if list := names(t, filepath.Dir(file)); len(list) != 2 {
		t.Errorf("there are %v", list)
	}
}

func TestANewFileIsForAllToRead(t *testing.T) {
	s, file := dockerWith(t, nil)
	if err := os.RemoveAll(filepath.Dir(file)); err != nil {
		t.Fatal(err)
	}
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	p, err := s.Disable(runtimes.Request{Engine: runtimes.Docker, Version: "28.3.0"})
	if err == nil {
		_, err = p.Apply(t.Context(), false)
	}
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Dir(file)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("its directory: %v, %v", info, err)
	}
	if list := names(t, filepath.Dir(file)); !slices.Equal(list, []string{"daemon.json", "daemon.json.cdigen-backup"}) {
		t.Errorf("there are %v", list)
	}
}

func TestRestart(t *testing.T) {
	var calls []string
	s, file := dockerWith(t, func(args []string) error {
		calls = append(calls, strings.Join(args, " "))
		return nil
	})
	done, err := enableDocker(t, s).Apply(t.Context(), true)
	if err != nil || done.Restarted != "docker.service" || !slices.Equal(calls, []string{"restart docker.service"}) || readFile(t, file) != onJSON {
		t.Errorf("%+v, %v, %v", done, calls, err)
	}
	// Nothing to do, nothing to restart.
	if done, err = enableDocker(t, s).Apply(t.Context(), true); err != nil || done.Restarted != "" || len(calls) != 1 {
		t.Errorf("%+v, %v, %v", done, calls, err)
	}
	// A user has his own services.
	s.UID = 7
	if err := os.WriteFile(file, []byte(offJSON), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := enableDocker(t, s).Apply(t.Context(), true); err != nil || calls[1] != "--user restart docker.service" {
		t.Errorf("%v, %v", calls, err)
	}
}

func TestAFailedRestartIsUndone(t *testing.T) {
	for _, c := range []struct {
		name  string
		fails int
		want  string
	}{
		{"it starts with the old configuration", 1, "it does not start; the old configuration is back and docker.service is restarted with it"},
		{"it does not start with that either", 2, "it does not start; the old configuration is back, but with it docker.service does not start either"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var seen []string
			var s runtimes.System
			var file string
			s, file = dockerWith(t, func([]string) error {
				seen = append(seen, readFile(t, file))
				if len(seen) <= c.fails {
					return errors.New("it does not start")
				}
				return nil
			})
			var before, after unix.Stat_t
			if err := unix.Stat(file, &before); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // who interrupts us wants his service back all the same
			done, err := enableDocker(t, s).Apply(ctx, true)
			if done != nil || err == nil || err.Error() != c.want {
				t.Errorf("%+v, %v", done, err)
			}
			if !slices.Equal(seen, []string{onJSON, offJSON}) {
				t.Errorf("restarted with %q", seen)
			}
			// It is the very same file again, and there is no other.
			if err := unix.Stat(file, &after); err != nil || after.Ino != before.Ino || after.Mtim != before.Mtim {
				t.Errorf("the file is another one: %v", err)
			}
			if list := names(t, filepath.Dir(file)); !slices.Equal(list, []string{"daemon.json"}) {
				t.Errorf("there are %v", list)
			}
		})
	}
}

func TestAFailedRestartRemovesWhatWasMade(t *testing.T) {
	s, file := dockerWith(t, func([]string) error { return errors.New("it does not start") })
	if err := os.RemoveAll(filepath.Dir(file)); err != nil {
		t.Fatal(err)
	}
	p, err := s.Disable(runtimes.Request{Engine: runtimes.Docker, Version: "28.3.0"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(t.Context(), true); err == nil {
		t.Error("no error")
	}
	if list := names(t, filepath.Join(s.Root, "etc")); len(list) > 0 {
		t.Errorf("there is still %v", list)
	}
}

func TestWithoutSystemctlNothingIsChanged(t *testing.T) {
	s, file := dockerWith(t, nil)
	s.LookPath = func(string) (string, error) { return "", errors.New("not found") }
	if _, err := enableDocker(t, s).Apply(t.Context(), true); err == nil || !strings.Contains(err.Error(), "no systemctl") || readFile(t, file) != offJSON {
		t.Errorf("%v", err)
	}
}

func TestAFileThatChangedMeanwhileIsLeftAlone(t *testing.T) {
	s, file := dockerWith(t, nil)
	p := enableDocker(t, s)
	for _, text := range []string{"{}", ""} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Apply(t.Context(), false); err == nil || !strings.HasSuffix(err.Error(), "/daemon.json: file changed since it was read: try again; nothing was changed") || readFile(t, file) != text {
			t.Errorf("%v, %q", err, readFile(t, file))
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(t.Context(), false); err == nil {
		t.Error("a file that is gone is made again")
	}
	p, err := s.Disable(runtimes.Request{Engine: runtimes.Docker, Version: "28.3.0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(t.Context(), false); err == nil || readFile(t, file) != "" {
		t.Errorf("a file that somebody made meanwhile is replaced: %v", err)
	}
}

func TestAReadOnlyPlaceIsAnError(t *testing.T) {
	s, file := dockerWith(t, nil)
	p := enableDocker(t, s)
	dir := filepath.Dir(file)
	var err error
	if os.Geteuid() == 0 {
		// root may write to every directory, but not to this mount of it.
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			runtime.LockOSThread() // the thread ends with the goroutine, and the mounts with it
			if err = readOnly(dir); err == nil {
				_, err = p.Apply(t.Context(), false)
			}
		}()
		<-ended
	} else {
		if err := os.Chmod(dir, 0o555); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(dir, 0o755) //nolint:errcheck // else it cannot be removed
		_, err = p.Apply(t.Context(), false)
	}
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EACCES) || !strings.HasPrefix(err.Error(), "write "+file+": ") || !strings.HasSuffix(err.Error(), "; nothing was changed") {
		t.Errorf("%v", err)
	}
	if readFile(t, file) != offJSON || len(names(t, dir)) != 1 {
		t.Errorf("%q, %v", readFile(t, file), names(t, dir))
	}
}

// Of several files either all are changed or none.
func TestTheSecondOfTwoFilesFails(t *testing.T) {
	const section = "[plugins.'io.containerd.cri.v1.runtime']\n"
	before := map[string]string{
		"etc/containerd/config.toml":   "version = 3\nimports = ['conf.d/*.toml']\n" + section + "enable_cdi = false\n",
		"etc/containerd/conf.d/x.toml": "version = 3\n" + section + "cdi_spec_dirs = ['/x']\n",
	}
	s := installation{files: before}.system(t)
	p, err := s.Enable(runtimes.Request{Engine: runtimes.Containerd, Version: "2.1.9", SpecDirs: []string{"/etc/cdi"}})
	if err != nil || len(p.Changes) != 2 {
		t.Fatalf("%v, %+v", err, p)
	}
	before["etc/containerd/conf.d/x.toml"] = "version = 3\n"
	writeFile(t, filepath.Join(s.Root, "etc/containerd/conf.d/x.toml"), "version = 3\n")
	if _, err := p.Apply(t.Context(), false); err == nil || !strings.Contains(err.Error(), "x.toml: file changed since it was read") {
		t.Errorf("%v", err)
	}
	if after := tree(t, s.Root); !maps.Equal(after, before) {
		t.Errorf("there is %v", after)
	}
}

// A file that is mounted by itself, as into containers, cannot be replaced.
func TestAMountedFileIsAnError(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root, so no mounts")
	}
	s, file := dockerWith(t, nil)
	p := enableDocker(t, s)
	ended := make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		if err = ownMounts(); err == nil {
			err = unix.Mount(file, file, "", unix.MS_BIND, "")
		}
		if err == nil {
			_, err = p.Apply(t.Context(), false)
		}
	}()
	<-ended
	if err == nil || !strings.Contains(err.Error(), "it is a mount: change the file that is mounted there") {
		t.Errorf("%v", err)
	}
	if readFile(t, file) != offJSON || len(names(t, filepath.Dir(file))) != 1 {
		t.Errorf("%q, %v", readFile(t, file), names(t, filepath.Dir(file)))
	}
}

// ownMounts gives this thread mounts of its own.
func ownMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")
}

// readOnly mounts a directory read-only on itself, for this thread alone.
func readOnly(dir string) error {
	return errors.Join(ownMounts(), unix.Mount(dir, dir, "", unix.MS_BIND, ""), unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
}

func TestFilesOfNixOSAreNotChanged(t *testing.T) {
	s, file := dockerWith(t, nil)
	writeFile(t, filepath.Join(s.Root, "nix/store/abc-daemon.json"), offJSON)
	if err := errors.Join(os.Remove(file), os.Symlink("/nix/store/abc-daemon.json", file)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Enable(runtimes.Request{Engine: runtimes.Docker, Version: "28.3.0", SpecDirs: []string{"/etc/cdi"}}); err == nil || !strings.Contains(err.Error(), "is made by NixOS: change the system's configuration") {
		t.Errorf("%v", err)
	}
}

// What enable wrote disable removes, unless somebody has written more into it.
func TestDropInsAreTakenBack(t *testing.T) {
	for engine, dropIn := range map[runtimes.Name]string{
		runtimes.CRIO: "etc/crio/crio.conf.d/99-cdigen.conf", runtimes.Podman: "etc/containers/containers.conf.d/99-cdigen.conf",
	} {
		t.Run(string(engine), func(t *testing.T) {
			s := installation{}.system(t)
			request := runtimes.Request{Engine: engine, Version: map[runtimes.Name]string{runtimes.CRIO: "1.30.0", runtimes.Podman: "5.8.0"}[engine], SpecDirs: []string{"/opt/cdi"}}
			apply := func(verb string) {
				t.Helper()
				p, err := plan(s, verb, request)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := p.Apply(t.Context(), false); err != nil {
					t.Fatal(err)
				}
			}
			file := filepath.Join(s.Root, dropIn)
			apply("enable")
			request.SpecDirs = []string{"/opt/cdi", "/opt/more"}
			apply("enable")
			if got := s.Engine(engine, request.Version).SpecDirs; !slices.Equal(got, []string{"/opt/more", "/opt/cdi", "/etc/cdi", "/var/run/cdi"}) {
				t.Errorf("it searches %v", got)
			}
			if err := os.WriteFile(file, []byte(readFile(t, file)+"\n[network]\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Disable(request); err == nil || errors.Is(err, runtimes.ErrUnsupported) || !strings.Contains(err.Error(), "has more in it") {
				t.Errorf("somebody else's settings: %v", err)
			}
			if err := os.WriteFile(file, []byte(strings.TrimSuffix(readFile(t, file), "\n[network]\n")), 0o644); err != nil {
				t.Fatal(err)
			}
			apply("disable")
			if list := names(t, filepath.Dir(file)); slices.Contains(list, "99-cdigen.conf") {
				t.Errorf("there are %v", list)
			}
			if _, err := s.Disable(request); !errors.Is(err, runtimes.ErrUnsupported) {
				t.Errorf("there is nothing left to take back: %v", err)
			}
		})
	}
}

func TestWhatCannotBeSwitched(t *testing.T) {
	s := installation{}.system(t)
	for _, c := range []struct {
		engine        runtimes.Name
		version, want string
		unsupported   bool
	}{
		{runtimes.Docker, "24.0.7", "version 24.0.7 does not support CDI, which 25.0 added: cdigen inject --format docker-args prints options that give a container GPUs without it", true},
		{runtimes.Containerd, "1.6.20~ds1", "version 1.6.20~ds1 does not support CDI, which 1.7 added: update it", true},
		{runtimes.Nerdctl, "2.1.0", "its CDI configuration cannot be changed", true},
		{"lxc", "5.0.0", "its CDI configuration cannot be changed", true},
		{runtimes.Docker, "nightly", `"nightly" is not a version`, false},
	} {
		_, err := s.Enable(runtimes.Request{Engine: c.engine, Version: c.version})
		if err == nil || err.Error() != c.want || errors.Is(err, runtimes.ErrUnsupported) != c.unsupported {
			t.Errorf("%s %s: %v", c.engine, c.version, err)
		}
	}
}

// The engine's own check sees the new configuration before it is written.
func TestEnginesCheckWhatIsWritten(t *testing.T) {
	s, file := dockerWith(t, nil)
	request := runtimes.Request{Engine: runtimes.Docker, Version: "28.3.0", Program: "/usr/bin/dockerd", SpecDirs: []string{"/etc/cdi"}}
	var checked string
	s.Run = func(_ context.Context, program string, args ...string) ([]byte, error) {
		if program != request.Program || len(args) != 3 || args[0] != "--validate" || args[1] != "--config-file" {
			t.Fatalf("%s %v", program, args)
		}
		checked = readFile(t, args[2])
		return nil, fmt.Errorf("unable to configure with file %s: no", args[2])
	}
	p, err := s.Enable(request)
	if err != nil {
		t.Fatal(err)
	}
	want := "dockerd refuses the changed configuration: unable to configure with file " + file + ": no"
	if err := p.Check(t.Context()); err == nil || err.Error() != want || checked != onJSON {
		t.Errorf("%v of %q", err, checked)
	}
	if readFile(t, file) != offJSON {
		t.Error("a check changes the file")
	}
}

// containerd's dump has to show that nothing else changes.
func TestContainerdComparesWhatItMakesOfConfigurations(t *testing.T) {
	const config = "version = 2\nimports = [\"conf.d/*.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"p\"\n"
	for _, c := range []struct{ name, before, after, want string }{
		{"only the setting", "[plugins.'io.containerd.grpc.v1.cri']\nenable_cdi = false\nx = 1\n", "[plugins.'io.containerd.grpc.v1.cri']\nx = 1\nenable_cdi = true\n", ""},
		{"another one too", "[plugins.'io.containerd.grpc.v1.cri']\nenable_cdi = false\nx = 1\n", "[plugins.'io.containerd.grpc.v1.cri']\nenable_cdi = true\n", "would change more than the settings of CDI"},
		{"not the setting", "a = 1\n", "a = 1\n", "would change more than the settings of CDI, or these not"},
		{"broken before", "", "", "containerd refuses its configuration as it is: exit status 1"},
		{"broken after", "a = 1\n", "", "containerd refuses the changed configuration: exit status 1"},
		{"no TOML", "a = \n", "", "containerd config dump: line 1, column 5: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := installation{files: map[string]string{"etc/containerd/config.toml": config, "etc/containerd/conf.d/a.toml": "imports = [\"../b.toml\"]\n", "etc/containerd/b.toml": "oom_score = 1\n"}}.system(t)
			var seen []string
			s.Run = func(_ context.Context, _ string, args ...string) ([]byte, error) {
				if len(args) != 4 || args[0] != "--config" || args[2] != "config" || args[3] != "dump" {
					t.Fatal(args)
				}
				seen = append(seen, strings.ReplaceAll(readFile(t, args[1]), filepath.Dir(args[1]), "COPIES"))
				dump := []string{c.before, c.after}[len(seen)-1]
				if dump == "" {
					return nil, errors.New("exit status 1")
				}
				return []byte(dump), nil
			}
			p, err := s.Enable(runtimes.Request{Engine: runtimes.Containerd, Version: "1.7.24", Program: "containerd", SpecDirs: []string{"/etc/cdi"}})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Check(t.Context()); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			copies := strings.Replace(config, `"conf.d/*.toml"`, `"COPIES/001.toml", "COPIES/002.toml"`, 1)
			if seen[0] != copies || len(seen) > 1 && seen[1] != copies+"enable_cdi = true\n" {
				t.Errorf("it has seen %q", seen)
			}
		})
	}
}

// containerd 2.4 knows no enable_cdi, which files may still have.
func TestContainerdChecksWithoutASwitch(t *testing.T) {
	const section = "[plugins.'io.containerd.cri.v1.runtime']\n"
	s := installation{files: map[string]string{"etc/containerd/config.toml": "version = 3\n" + section + "enable_cdi = false\ncdi_spec_dirs = ['/x']\n"}}.system(t)
	s.Run = func(_ context.Context, _ string, args ...string) ([]byte, error) {
		return []byte(strings.Replace(readFile(t, args[1]), "enable_cdi = false\n", "", 1)), nil
	}
	p, err := s.Enable(runtimes.Request{Engine: runtimes.Containerd, Version: "2.4.2", Program: "containerd", SpecDirs: []string{"/etc/cdi"}})
	if err == nil {
		err = p.Check(t.Context())
	}
	if err != nil || len(p.Changes) != 1 {
		t.Errorf("%v", err)
	}
}

// A drop-in that does not exist yet is among the copies too.
func TestContainerdChecksANewDropIn(t *testing.T) {
	s := installation{files: map[string]string{"etc/containerd/config.toml": "version = 3\nimports = [\"conf.d/*.toml\"]\n"}}.system(t)
	var seen []string
	s.Run = func(_ context.Context, _ string, args ...string) ([]byte, error) {
		text := readFile(t, args[1])
		if dropIn, err := os.ReadFile(filepath.Join(filepath.Dir(args[1]), "001.toml")); err == nil {
			text += string(dropIn)
		}
		seen = append(seen, text)
		return fmt.Appendf(nil, "[plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = %v\n", len(seen) == 1), nil
	}
	p, err := s.Disable(runtimes.Request{Engine: runtimes.Containerd, Version: "2.1.9", Program: "containerd"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if len(seen) != 2 || strings.Contains(seen[0], "enable_cdi") || !strings.HasSuffix(seen[1], "\n[plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = false\n") {
		t.Errorf("it has seen %q", seen)
	}
}

// A link leads a write elsewhere only if nobody but root decides where.
func TestLinksThatOthersCanChangeAreNotFollowed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const uid = 12345
	for name, c := range map[string]struct {
		dir    string // of the file that the link leads to
		owned  string // by somebody else
		config bool   // the link is given with --config
		fails  bool
	}{
		"a link of root's to a file of root's":         {"srv", "", false, false},
		"to a file in a directory of somebody else's":  {"home/alice", "home/alice", false, true},
		"below such a directory":                       {"home/alice/sub", "home/alice", false, true},
		"a file that the user has named":               {"srv", "", true, false},
		"one in a directory of somebody else's":        {"home/alice", "home/alice", true, true},
		"a link of somebody else's":                    {"srv", "etc/docker/daemon.json", false, true},
		"a link in a directory that everybody changes": {"srv", "etc/docker", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, link := dockerWith(t, nil)
			target := filepath.Join(s.Root, c.dir, "victim.json")
			writeFile(t, target, offJSON)
			if err := errors.Join(os.Remove(link), os.Symlink("/"+c.dir+"/victim.json", link)); err != nil {
				t.Fatal(err)
			}
			if c.owned != "" {
				if err := os.Lchown(filepath.Join(s.Root, c.owned), uid, uid); err != nil {
					t.Fatal(err)
				}
			}
			request := runtimes.Request{Engine: runtimes.Docker, Version: "28.3.0", SpecDirs: []string{"/etc/cdi"}}
			if c.config {
				request.Config = "/etc/docker/daemon.json"
			}
			p, err := s.Enable(request)
			if err == nil {
				_, err = p.Apply(t.Context(), false)
			}
			if c.fails {
				if err == nil || !strings.Contains(err.Error(), filepath.Join(s.Root, c.owned)) || !strings.Contains(err.Error(), "uid 12345") {
					t.Errorf("%v; want an error that names %s and its owner", err, c.owned)
				}
				if readFile(t, target) != offJSON || len(names(t, filepath.Dir(target))) != 1 {
					t.Errorf("it was written to: %v", names(t, filepath.Dir(target)))
				}
				return
			}
			if err != nil || readFile(t, target) != onJSON {
				t.Errorf("%v, %q", err, readFile(t, target))
			}
			if text, err := os.Readlink(link); err != nil || text != "/"+c.dir+"/victim.json" {
				t.Errorf("the link leads to %q, %v", text, err)
			}
		})
	}
}

// A directory of somebody else's is no obstacle to a file that no link leads to: nothing
// is written but in that directory.
func TestAFileOfAnotherUserStaysTheirs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	s, file := dockerWith(t, nil)
	if err := errors.Join(os.Chown(file, 12345, 12345), os.Chown(filepath.Dir(file), 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	if _, err := enableDocker(t, s).Apply(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil || st.Uid != 12345 || readFile(t, file) != onJSON {
		t.Errorf("uid %d, %v, %q", st.Uid, err, readFile(t, file))
	}
}

func TestAConfigurationThatIsNoFileIsNotRead(t *testing.T) {
	s, file := dockerWith(t, nil)
	if err := errors.Join(os.Remove(file), unix.Mkfifo(file, 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Enable(runtimes.Request{Engine: runtimes.Docker, Version: "28.3.0"}); err == nil || !strings.Contains(err.Error(), "a FIFO") {
		t.Errorf("%v", err)
	}
}

// What a process that was killed has left goes with the next run, though nothing is left
// to be changed.
func TestCleanFinishesAnInterruptedChange(t *testing.T) {
	s, file := dockerWith(t, nil)
	if _, err := enableDocker(t, s).Apply(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	if err := os.Rename(file+".cdigen-backup", filepath.Join(dir, ".daemon.json.cdigen-old")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, ".daemon.json.cdigen-new"), "to")
	p := enableDocker(t, s)
	if err := p.Clean(t.Context()); err != nil || len(p.Changes) > 0 {
		t.Errorf("%v, %v", p.Changes, err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"daemon.json", "daemon.json.cdigen-backup"}) || readFile(t, file+".cdigen-backup") != offJSON {
		t.Errorf("there are %v", got)
	}
}
