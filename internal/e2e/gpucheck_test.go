package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/gpucheck"
)

// gpuCheckFiles is the directory that make gpu-check puts together, with Debian's runc
// instead of one of its own.
var gpuCheckFiles = sync.OnceValues(func() (string, error) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(work, "gpu-check")
	return dir, command(repository(), "make", "gpu-check-files", "GPU_CHECK="+dir, "RUNC="+runc)
})

// gpuCheck runs gpu-check by a script, which has the program as $GPU_CHECK and its
// usual options as $OPTIONS, and reads the report.
func gpuCheck(t *testing.T, script string, env ...string) (r gpucheck.Report, dir string, status int) {
	t.Helper()
	requireNamespace(t)
	requireCommands(t, "runc", "make", "cc")
	files, err := gpuCheckFiles()
	check(t, err)
	at := workDir(t)
	temp := filepath.Join(at, "tmp")
	check(t, os.Mkdir(temp, 0o755))
	dir = filepath.Join(at, "report")
	cmd := exec.Command("bash", "-c", script)
	cmd.Env = slices.Concat(os.Environ(), []string{
		"TMPDIR=" + temp, "GPU_CHECK=" + filepath.Join(files, "gpu-check"), "OPTIONS=--output " + dir + " --runs 1 --watch-seconds 1",
	}, env)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatalf("no report: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	check(t, json.Unmarshal(data, &r))
	left, err := os.ReadDir(temp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	return r, dir, cmd.ProcessState.ExitCode()
}

// results are the checks with a status.
func results(r gpucheck.Report, status gpucheck.Status) (names []string) {
	for _, c := range r.Checks {
		if c.Status == status {
			names = append(names, c.Name)
		}
	}
	return names
}

// noIdentifiers looks into all files of a report for texts.
func noIdentifiers(t *testing.T, dir string, texts ...string) {
	t.Helper()
	uuid := regexp.MustCompile(`(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	check(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		for _, text := range texts {
			if strings.Contains(string(data), text) {
				t.Errorf("%s has %s in it", name, text)
			}
		}
		for _, id := range uuid.FindAllString(string(data), -1) {
			if !strings.HasPrefix(id, "00000000-") {
				t.Errorf("%s has %s in it", name, id)
			}
		}
		return err
	}))
}

// What other processes make on the machine meanwhile is not gpu-check's, what its own leave is.
func TestGPUCheckTellsItsOwnTracesFromOthers(t *testing.T) {
	requireNamespace(t)
	requireCommands(t, "crun", "setpriv")
	programs := t.TempDir()
	crun, err := exec.LookPath("crun")
	check(t, err)
	check(t, os.WriteFile(filepath.Join(programs, "crun"), []byte("#!/bin/sh\nmkdir -p /run/crun/left\nexec "+crun+" \"$@\"\n"), 0o755)) //nolint:gosec // a program
	r, dir, status := gpuCheck(t, `exec unshare -m --propagation private bash -c '
		mount -t tmpfs tmpfs /run || exit
		{ n=0; while kill -0 $$; do mkdir -p /run/cdi /run/cdigen /run/runc/$n; touch /run/cdi/$n.yaml; n=$((n + 1)); sleep 0.2; done; } 2>/dev/null >/dev/null &
		PATH=$PROGRAMS:$PATH exec "$GPU_CHECK" $OPTIONS --simulated "$HOST"'`, "HOST="+simulatedHost(t), "PROGRAMS="+programs)
	if failed := results(r, gpucheck.Failed); status != 1 || !slices.Equal(failed, []string{"machine as before"}) {
		t.Errorf("status %d, failed: %q", status, failed)
	}
	log, err := os.ReadFile(filepath.Join(dir, "logs/machine.log"))
	check(t, err)
	for line := range strings.Lines(string(log)) {
		if !strings.HasPrefix(line, "+/run/crun") {
			t.Errorf("another's: %s", line)
		}
	}
}

func TestGPUCheckGoesThroughASimulatedHost(t *testing.T) {
	requireNamespace(t)
	r, dir, status := gpuCheck(t, `"$GPU_CHECK" $OPTIONS --allow-mig --simulated "$HOST"`, "HOST="+simulatedHost(t))
	if failed := results(r, gpucheck.Failed); status != 0 || failed != nil {
		t.Errorf("status %d, failed: %q", status, failed)
	}
	passed := results(r, gpucheck.Passed)
	for _, want := range []string{
		"driver found", "generate", "generate without NVML", "NVML and procfs agree", "check", "capture is the host",
		"all, no hook: device nodes", "all, no hook: libcuda.so.1 loads", "all, hook ldcache: ldconfig -p", "index, no hook: device nodes",
		"UUID, no hook: device nodes", "without a device: nothing of the driver", "without a device: the GPU cannot be opened",
		"idle watch", "machine as before", "no process left", "no identifier in the report",
	} {
		if !slices.Contains(passed, want) {
			t.Errorf("%s has not passed", want)
		}
	}
	for _, c := range r.Checks {
		if c.Evidence == "" {
			t.Errorf("%s %s without evidence", c.Name, c.Status)
		}
	}
	noIdentifiers(t, dir, "buildhost")
}

func TestGPUCheckSaysWhatIsBroken(t *testing.T) {
	requireNamespace(t)
	d, err := simhost.Load(filepath.Join(repository(), "testdata/hosts/two-gpus.yaml"))
	check(t, err)
	host := workDir(t)
	// Its NVML has nothing in it.
	check(t, d.Build(filepath.Join(host, "host"), simhost.Options{}))
	r, _, status := gpuCheck(t, `"$GPU_CHECK" $OPTIONS --simulated "$HOST" --rootfs "$IMAGE"`, "HOST="+filepath.Join(host, "host"), "IMAGE="+requireDebian(t))
	if failed := results(r, gpucheck.Failed); status != 1 || !slices.Contains(failed, "generate") || slices.Contains(failed, "all, no hook: device nodes") {
		t.Errorf("status %d, failed: %q", status, failed)
	}
}

// onMachine runs commands where the machine of fakeMachine is the real one: a mount
// namespace with the driver's files in /usr, its procfs and its device nodes.
func onMachine(commands string) string {
	return `exec unshare -m --propagation private bash -euc '
		mount --bind "$M/proc/driver" /proc/driver
		mount --bind "$M/proc/devices" /proc/devices
		mkdir "$M/upper" "$M/scratch" "$M/image-upper" "$M/image-scratch" "$M/image"
		mount -t overlay overlay -o "lowerdir=/usr,upperdir=$M/upper,workdir=$M/scratch" /usr
		mount -t overlay overlay -o "lowerdir=$IMAGE,upperdir=$M/image-upper,workdir=$M/image-scratch" "$M/image"
		cp -a "$M"/usr/. /usr/
		cp -a "$M"/usr/. "$M/image/usr/"
		chroot "$M/image" ldconfig
		cp -a "$M"/off/dev/nvidia* /dev/
		trap "rm -rf /dev/nvidia*" EXIT
		` + commands + `'`
}

// What gpu-check does on a real machine it does here too, with a CUDA and an NVML that
// are made up, and an nvidia-smi that switches MIG mode.
func TestGPUCheckOnAMachine(t *testing.T) {
	requireNamespace(t)
	image := requireDebian(t)
	requireCommands(t, "runc", "cc")
	run := onMachine(`"$GPU_CHECK" $OPTIONS --rootfs "$M/image" $MORE`)
	t.Run("with MIG", func(t *testing.T) {
		m := fakeMachine(t)
		r, dir, status := gpuCheck(t, run, "M="+m.dir, "IMAGE="+image, "MORE=--allow-mig")
		if failed := results(r, gpucheck.Failed); status != 0 || failed != nil {
			t.Errorf("status %d, failed: %q", status, failed)
		}
		passed := results(r, gpucheck.Passed)
		for _, want := range []string{
			"all, no hook: CUDA", "all, no hook: nvidia-smi", "all, hook ldcache: CUDA", "index, no hook: CUDA", "index, no hook: nvidia-smi", "UUID, no hook: nvidia-smi",
			"without a device: nothing of the driver", "without a device: the GPU cannot be opened", "MIG: watch follows a device that was made", "MIG: CUDA in a container",
			"MIG: nvidia-smi in a container", "MIG: watch follows a device that was destroyed", "MIG: mode as before", "machine as before", "no identifier in the report",
		} {
			if !slices.Contains(passed, want) {
				t.Errorf("%s has not passed", want)
			}
		}
		noIdentifiers(t, dir, m.serial, m.pdi)
		asked, err := os.ReadFile(filepath.Join(m.dir, "asked"))
		if err != nil || strings.Contains(string(asked), "unknown") {
			t.Errorf("nvidia-smi was asked for what it does not know: %v\n%s", err, asked)
		}
	})
	t.Run("nothing is changed without leave", func(t *testing.T) {
		m := fakeMachine(t)
		r, _, _ := gpuCheck(t, run, "M="+m.dir, "IMAGE="+image, "MORE=")
		if !slices.Contains(results(r, gpucheck.Skipped), "MIG") {
			t.Error("MIG was not skipped")
		}
		asked, err := os.ReadFile(filepath.Join(m.dir, "asked"))
		if err != nil || regexp.MustCompile(`(?m)(-mig [01]|-cgi|-dgi|-dci)`).Match(asked) {
			t.Errorf("nvidia-smi was asked to change something: %v\n%s", err, asked)
		}
	})
	t.Run("wrong results", func(t *testing.T) {
		m := fakeMachine(t, "-DWRONG")
		r, _, status := gpuCheck(t, run, "M="+m.dir, "IMAGE="+image, "MORE=")
		if failed := results(r, gpucheck.Failed); status != 1 || !slices.Contains(failed, "all, no hook: CUDA") || slices.Contains(failed, "all, no hook: nvidia-smi") {
			t.Errorf("status %d, failed: %q", status, failed)
		}
	})
}

// Whoever ends gpu-check in the middle of MIG finds the GPU as it was.
func TestGPUCheckThatIsEndedRestoresTheGPU(t *testing.T) {
	requireNamespace(t)
	image := requireDebian(t)
	requireCommands(t, "runc", "cc")
	files, err := gpuCheckFiles()
	check(t, err)
	for _, at := range []string{"empty", "one"} {
		t.Run("in the state "+at, func(t *testing.T) {
			m, temp := fakeMachine(t), workDir(t)
			check(t, os.WriteFile(filepath.Join(m.dir, "stay-"+at), nil, 0o644))
			cmd := exec.Command("bash", "-c", onMachine(`
				"$GPU_CHECK" --output "$M/report" --runs 1 --watch-seconds 1 --rootfs "$M/image" --allow-mig &
				until grep -qx "$STATE" "$M/state"; do sleep 0.05; kill -0 $!; done 2>/dev/null
				kill -TERM $!
				rm "$M/stay-$STATE"
				status=0
				wait $! || status=$?
				ls /dev/nvidia-caps >"$M/caps"
				exit $status`))
			cmd.Env = append(os.Environ(), "M="+m.dir, "IMAGE="+image, "TMPDIR="+temp, "GPU_CHECK="+filepath.Join(files, "gpu-check"), "STATE="+at)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("%v\n%s", err, out)
			}
			for file, want := range map[string]string{"state": "off\n", "mode": "Disabled\n", "caps": "nvidia-cap0\nnvidia-cap1\nnvidia-cap2\n"} {
				if got, err := os.ReadFile(filepath.Join(m.dir, file)); err != nil || string(got) != want {
					t.Errorf("%s: %q, %v", file, got, err)
				}
			}
			if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if left, err := exec.Command("pgrep", "-f", temp).Output(); err == nil {
				t.Errorf("processes left: %s", left)
			}
		})
	}
}

// gpuMachine is what TestGPUCheckOnAMachine makes the machine of.
type gpuMachine struct {
	dir         string // usr and proc are put into place; off, empty and one are hosts
	serial, pdi string
}

// fakeMachine makes one with two GPUs. Its first can be switched to MIG mode.
func fakeMachine(t *testing.T, defines ...string) gpuMachine {
	t.Helper()
	m := gpuMachine{dir: workDir(t), serial: "1650522001234", pdi: "0x8adaed1e5a5ddb23"}
	nvml, err := fakenvml.Build()
	check(t, err)
	var uuids []string
	for state, mig := range map[string][]simhost.GPUInstance{"off": nil, "empty": {}, "one": {{Profile: "1g.10gb"}}} {
		d, err := simhost.Load(filepath.Join(repository(), "testdata/hosts/two-gpus.yaml"))
		check(t, err)
		d.GPUs[0].MIG = mig
		check(t, d.Build(filepath.Join(m.dir, state), simhost.Options{NVMLLibrary: nvml}))
	}
	const libraries = "usr/lib/x86_64-linux-gnu"
	check(t, command(m.dir, "bash", "-euc", `mkdir -p `+libraries+` usr/bin
		cp -a off/`+libraries+`/*nvidia* off/`+libraries+`/libcuda* off/`+libraries+`/fake-nvml.conf `+libraries+`
		cp -a off/proc proc
		echo Disabled >mode`))
	cc := append([]string{"-O2", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", filepath.Join(m.dir, libraries, "libcuda.so.550.54.15"),
		"internal/gpucheck/testdata/fakecuda.c"}, defines...)
	check(t, command(repository(), "cc", cc...))
	conf, err := os.ReadFile(filepath.Join(m.dir, libraries, "fake-nvml.conf"))
	check(t, err)
	for _, match := range regexp.MustCompile(`gpu uuid=(\S+)`).FindAllStringSubmatch(string(conf), -1) {
		uuids = append(uuids, match[1])
	}
	conf, err = os.ReadFile(filepath.Join(m.dir, "one", libraries, "fake-nvml.conf"))
	check(t, err)
	device := regexp.MustCompile(`uuid=(MIG-\S+)`).FindSubmatch(conf)
	if len(uuids) != 2 || device == nil {
		t.Fatalf("UUIDs %q in %s", uuids, conf)
	}
	text := fmt.Sprintf(nvidiaSMI, m.dir, strings.Join(uuids, " "), device[1], m.serial, m.pdi)
	check(t, os.WriteFile(filepath.Join(m.dir, "usr/bin/nvidia-smi"), []byte(text), 0o755))
	return m
}

// nvidiaSMI answers as NVIDIA's program does, as far as gpu-check asks it. In a container
// it knows of nothing but the nodes. Nodes of MIG devices stay when these are destroyed.
const nvidiaSMI = `#!/bin/bash
machine=%s uuids=(%s) device=%s serial=%s pdi=%s
[ ! -d "$machine" ] || echo "$*" >>"$machine/asked"
become() {
	rm -rf /proc/driver/nvidia
	cp -a "$machine/$1"/proc/driver/nvidia /proc/driver/
	mkdir -p /dev/nvidia-caps
	cp -an "$machine/$1"/dev/nvidia-caps/. /dev/nvidia-caps/
	cp -a "$machine/$1"/usr/lib/x86_64-linux-gnu/fake-nvml.conf /usr/lib/x86_64-linux-gnu/
	echo "$1" >"$machine/state"
	echo "$2" >"$machine/mode"
	while [ -e "$machine/stay-$1" ]; do sleep 0.05; done # until it is seen
}
instances() { [ "$(cat "$machine/state" 2>/dev/null)" = one ]; }
case $* in
-L)
	for node in /dev/nvidia[0-9]*; do
		i=${node#/dev/nvidia}
		echo "GPU $i: NVIDIA H100 80GB HBM3 (UUID: ${uuids[i]})"
		[ "$i$(ls /dev/nvidia-caps 2>/dev/null | wc -l)" != 02 ] || echo "  MIG 1g.10gb     Device  0: (UUID: $device)"
	done
	;;
"--query-gpu=index,persistence_mode,"*) echo "index, mode"; echo "0, $(cat "$machine/mode")" ;;
"-i 0 --query-gpu=mig.mode."*) cat "$machine/mode" ;;
"-i 0 --query-gpu=display_active "*) echo Disabled ;;
"-i 0 --query-compute-apps=pid "*) ;;
"--query-gpu=uuid "*) printf '%%s\n' "${uuids[@]}" ;;
"--query-gpu=serial,pdi "*) echo "$serial, $pdi" ;;
"-i 0 -mig 1") become empty Enabled && echo "Enabled MIG Mode for GPU" ;;
"-i 0 -mig 0")
	instances && echo "In use" && exit 19
	become off Disabled
	;;
"mig -i 0 -lgip")
	echo "|   0  MIG 1g.10gb+me    20     1/1        9.75       No     16     1     0   |"
	echo "|   0  MIG 1g.10gb       19     7/7        9.75       No     16     0     0   |"
	;;
"mig -i 0 -lgi")
	instances || { echo "No GPU instances found: Not Found" && exit 6; }
	echo "|   0  MIG 1g.10gb         19        7          0:1     |"
	;;
"mig -i 0 -cgi 19 -C") become one Enabled ;;
"mig -i 0 -dci") ;;
"mig -i 0 -dgi") become empty Enabled ;;
*)
	echo "unknown: $*" >>"$machine/asked"
	exit 2
	;;
esac
`
