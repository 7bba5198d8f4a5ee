package discover

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/trust"
)

// writable reports whether containers may write to files of the kind.
func writable(k driverfiles.Kind) bool { return k == driverfiles.Socket || k == driverfiles.Directory }

// daemonAccounts are the accounts that a daemon of the driver runs as, by the directory of
// its socket: the daemon's own name in NVIDIA's packages, nvpd in Debian's.
var daemonAccounts = map[string][]string{
	"nvidia-persistenced":  {"nvidia-persistenced", "nvpd"},
	"nvidia-fabricmanager": {"nvidia-fabricmanager"},
}

// checkWritable returns why containers must not be given a socket or a directory to write
// to. Besides being trusted, it has to be what it is taken for: a socket that is one and
// not a link to another one, and nothing that rules the host.
//
// Everybody may write to the directory itself: the pipes of CUDA's multi-process service
// serve clients of all users. Its entries do not change where its path leads.
func checkWritable(t hosttree.Tree, kind driverfiles.Kind, name string) error {
	if err := checkOwners(t, kind, name); err != nil {
		return err
	}
	info, err := t.Lstat(name)
	if err != nil {
		return err
	}
	real, err := t.Resolve(name)
	if err != nil {
		return err
	}
	if kind == driverfiles.Socket {
		if info.Mode()&fs.ModeSymlink != 0 {
			return errors.New("a symbolic link and not a socket")
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Nlink > 1 {
			return errors.New("a socket with other names, which may be another daemon's")
		}
	}
	// Of a driver container's root the host's own rule holds, and the same inside it.
	for _, p := range []string{t.HostPath(real), "/" + real} {
		if why := rulesHost(path.Clean(p)); why != "" {
			return errors.New(why)
		}
	}
	if kind == driverfiles.Directory {
		return withoutEngine(t, real)
	}
	return nil
}

// checkOwners checks a name by the rule of trust. The directory of a socket and the socket
// may belong to the daemon's account as well, which the driver's packages make for it.
func checkOwners(t hosttree.Tree, kind driverfiles.Kind, name string) error {
	err := t.Check(name)
	var refused *trust.Error
	if kind != driverfiles.Socket || !errors.As(err, &refused) {
		return err
	}
	account, ok := daemon(t, path.Base(path.Dir(name)))
	if !ok || refused.UID != account.UID {
		return err
	}
	dir, resolveErr := t.Resolve(path.Dir(name))
	if resolveErr != nil || t.Check(path.Dir(dir)) != nil || t.CheckFor(account, name) != nil {
		return err
	}
	return nil
}

// daemon returns the account of the driver's daemon whose socket is in a directory of that name.
func daemon(t hosttree.Tree, directory string) (caller trust.Caller, ok bool) {
	const passwd = "etc/passwd"
	accounts := daemonAccounts[directory]
	if accounts == nil || t.Check(passwd) != nil {
		return trust.Caller{}, false
	}
	data, err := t.ReadFile(passwd)
	if err != nil {
		return trust.Caller{}, false
	}
	for line := range bytes.Lines(data) {
		fields := strings.Split(string(bytes.TrimSpace(line)), ":") // passwd(5)
		if len(fields) < 4 || !slices.Contains(accounts, fields[0]) {
			continue
		}
		uid, err1 := strconv.ParseUint(fields[2], 10, 32)
		gid, err2 := strconv.ParseUint(fields[3], 10, 32)
		if errors.Join(err1, err2) == nil {
			return trust.Caller{UID: uint32(uid), GID: uint32(gid)}, true
		}
	}
	return trust.Caller{}, false
}

// systemDirectories are those that no container may write to, nor to one above them.
var systemDirectories = []string{
	"/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/mnt", "/media", "/opt", "/proc", "/root", "/run", "/sbin", "/srv",
	"/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/run", "/var/spool", "/var/tmp",
}

// enginePlaces are the sockets of container engines and service managers, and the
// directories that they have to themselves. Who can ask one to start a program has the
// rights of root, or of the user it runs for.
var enginePlaces = []string{
	"/run/docker.sock", "/run/docker", "/run/podman", "/run/containerd", "/run/crio", "/run/buildkit*", "/run/cri-dockerd.sock",
	"/run/dockershim.sock", "/run/k3s", "/run/k0s", "/run/host-containerd", "/run/snapd.socket", "/run/systemd", "/run/dbus",
	"/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/incus", "/var/lib/kubelet", "/var/lib/lxd", "/var/lib/rancher",
	"/var/snap",
	"/run/user/*/docker*", "/run/user/*/podman", "/run/user/*/containerd*", "/run/user/*/buildkit*", "/run/user/*/bus", "/run/user/*/systemd",
	"/home/*/.docker", "/root/.docker",
}

// engineNames are the names that such sockets have elsewhere.
var engineNames = []string{
	"docker*.sock", "podman*.sock", "containerd*.sock", "containerd*.sock.ttrpc", "crio*.sock", "cri-dockerd*.sock", "buildkitd*.sock", "snapd*.socket",
}

// engineSocket reports whether a socket is one of a container engine by its name.
func engineSocket(name string) bool {
	return slices.ContainsFunc(engineNames, func(p string) bool { return driverfiles.Matches(p, path.Base(name)) })
}

// rulesHost returns why who writes to a path rules the host; empty when that is not so.
// The path is absolute and clean.
func rulesHost(file string) string {
	if engineSocket(file) {
		return "a socket of a container engine"
	}
	if rest, ok := strings.CutPrefix(file, "/var/run/"); ok {
		file = "/run/" + rest // two names of one directory
	}
	for _, dir := range systemDirectories {
		if file == "/" || dir == file || strings.HasPrefix(dir, file+"/") {
			return "it is or contains " + dir
		}
	}
	for _, place := range enginePlaces {
		if overlap(place, file) {
			return place + " has the sockets of a container engine or a service manager"
		}
	}
	return ""
}

// overlap reports whether one of two paths is the other or is below it. The components of
// the first may be patterns.
func overlap(pattern, file string) bool {
	parts, names := strings.Split(pattern, "/"), strings.Split(file, "/")
	for i := range min(len(parts), len(names)) {
		if !driverfiles.Matches(parts[i], names[i]) {
			return false
		}
	}
	return true
}

// maxEntries bounds how many files of a directory are looked at. That of CUDA's
// multi-process service has a few for each client.
const maxEntries = 10000

// withoutEngine returns an error for a directory with a socket of a container engine below
// it. Other names are not recorded for a watcher, as they come and go with the clients.
func withoutEngine(t hosttree.Tree, dir string) error {
	entries := 0
	return t.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil // gone meanwhile, or not to be seen by the user of this process
		}
		if err != nil {
			return err
		}
		if entries++; entries > maxEntries {
			return fmt.Errorf("a directory with more than %d files", maxEntries)
		}
		if !engineSocket(name) {
			return nil
		}
		if info, err := t.Lstat(name); err == nil && info.Mode()&fs.ModeSocket != 0 {
			return fmt.Errorf("it contains %s, a socket of a container engine", t.HostPath(name))
		}
		return nil
	})
}
