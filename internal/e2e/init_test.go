package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// initSystem is an init system other than systemd, in Debian's packages, and how its users
// run services.
type initSystem struct {
	name     string
	packages []string
	// Commands that make it run, start the service and wait until it is ready, reload and
	// stop it.
	boot, start, reload, stop string
}

var initSystems = []initSystem{
	{
		name: "openrc", packages: []string{"openrc", "librc1", "libeinfo1"},
		// Debian's depends on insserv for this file, and knows no service for its runlevels here.
		boot:  "touch /etc/insserv.conf; rm -f /etc/runlevels/*/*; rc-update add cdigen default",
		start: "openrc default", reload: "rc-service cdigen reload", stop: "rc-service cdigen stop",
	},
	{
		name: "runit", packages: []string{"runit"},
		boot:  "mkdir /run/service; ln -s /etc/sv/cdigen /run/service/; runsvdir -P /run/service & export SVDIR=/run/service; until sv status cdigen; do sleep 0.1; done",
		start: "sv -w 60 start cdigen", reload: "sv hup cdigen", stop: "sv -w 60 stop cdigen",
	},
	{
		name: "s6", packages: []string{"s6", "libs6-2.11", "libskarnet2.13", "execline", "libexecline2.9"},
		boot:  "mkdir /run/service; cp -r /etc/s6/sv/cdigen /run/service/; s6-svscan /run/service & cd /run/service; until s6-svok cdigen; do sleep 0.1; done",
		start: "s6-svwait -U -t 60000 cdigen", reload: "s6-svc -h cdigen", stop: "s6-svc -wD -T 60000 -d cdigen",
	},
}

// initScenario is what each of them has to do: $1 to $4 are its commands. The service is
// started again when it is killed, and stopping it leaves the spec.
const initScenario = `set -e
pid() { for p in /proc/[0-9]*; do [ "$(cat "$p/comm" 2>/dev/null)" != cdigen ] || basename "$p"; done; }
within() { i=0; until eval "$1"; do i=$((i+1)); [ $i -lt 3000 ] || { echo "not within five minutes: $1"; cdigen status; exit 1; }; sleep 0.1; done; }
# A container has GPU 0 of a host whose numbers were others.
config=/srv/lxc/config allow="lxc.cgroup2.devices.allow = c 195:0 rwm"
mkdir /srv/lxc
echo lxc.uts.name = a >$config
. /etc/cdigen/cdigen.env
cdigen generate --output /tmp/cdi/nvidia.yaml --driver-root "$CDIGEN_DRIVER_ROOT" --dev-root "$CDIGEN_DEV_ROOT" --proc-root "$CDIGEN_PROC_ROOT" --sys-root "$CDIGEN_SYS_ROOT"
cdigen inject --spec-dir /tmp/cdi --format lxc --file $config --cgroup v2 0
stale() { grep -qxF "$allow" $config || { echo "no line $allow"; cat $config; exit 1; }; sed -i "s/195:0/195:9/" $config; }
stale
eval "$1"
eval "$2"
test -s /etc/cdi/nvidia.yaml || { echo no spec when it is ready; exit 1; }
stale # when the service is ready, a container can start
within "cdigen status -o json | grep -q '\"ready\": true'"
cdigen status --history | grep -q published || { echo no history; exit 1; }
reload=$3 # other events may have come just before it
within '$reload && sleep 0.5 && cdigen status | grep -q "^last look.* signal,"'
within 'grep -qxF "$allow" $config'
first=$(pid)
kill -9 $first
within '[ -n "$(pid)" ] && [ "$(pid)" != "$first" ]'
within "cdigen status -o json | grep -q '\"ready\": true'"
eval "$4"
[ -z "$(pid)" ] || { echo still there: $(pid); exit 1; }
test -s /etc/cdi/nvidia.yaml || { echo no spec when it is stopped; exit 1; }
echo passed
`

// The service files for OpenRC, runit and s6 do in Debian's versions of these what those for
// systemd do.
func TestOtherInitSystems(t *testing.T) {
	requireNamespace(t)
	requireCommands(t, "unshare", "dpkg-deb")
	base := requireDebian(t)
	bin, err := build()
	check(t, err)
	nvml, err := fakenvml.Build()
	check(t, err)
	for _, s := range initSystems {
		t.Run(s.name, func(t *testing.T) {
			debs := downloaded(t, "init", s.packages)
			layer := workDir(t)
			for _, dir := range []string{"upper", "work", "root"} {
				check(t, os.MkdirAll(filepath.Join(layer, dir), 0o755))
			}
			root := filepath.Join(layer, "root")
			check(t, mount("overlay", root, "overlay", 0, "lowerdir="+base+",upperdir="+layer+"/upper,workdir="+layer+"/work"))
			t.Cleanup(func() { check(t, unix.Unmount(root, 0)) })
			check(t, hosttest.Load(t, "demo").Build(filepath.Join(root, "srv/host"), simhost.Options{NVMLLibrary: nvml}))
			for _, name := range s.packages {
				check(t, command(debs, "sh", "-c", `dpkg-deb --fsys-tarfile "$0"_*.deb | tar -x --keep-directory-symlink -C "$1"`, name, root))
			}
			check(t, command(repository(), "make", "install-service", "INIT="+s.name, "DESTDIR="+root))
			settings := "CDIGEN_DRIVER_ROOT=/srv/host\nCDIGEN_DEV_ROOT=/srv/host\nCDIGEN_PROC_ROOT=/srv/host/proc\nCDIGEN_SYS_ROOT=/srv/host/sys\n"
			check(t, os.MkdirAll(filepath.Join(root, "etc/cdigen"), 0o755))
			check(t, os.WriteFile(filepath.Join(root, "etc/cdigen/cdigen.env"), []byte(settings), 0o644))

			// Its processes end with its process namespace.
			cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", `set -e
				root=$1; shift; cd "$root"
				mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev; mount -t tmpfs -o mode=0755 tmpfs run
				cp "$1"/cdigen "$1"/cdigen-nvml usr/local/bin; shift
				exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot . sh "$@"`,
				"sh", root, bin, "-c", initScenario, "sh", s.boot, s.start, s.reload, s.stop)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "passed\n") {
				log, _ := os.ReadFile(filepath.Join(root, "var/log/cdigen.log"))
				t.Errorf("%v\n%s\n%s", err, lastBytes(out, 3000), log)
			}
		})
	}
}
