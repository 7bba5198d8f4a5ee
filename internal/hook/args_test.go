package hook

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	compat := Compat{Driver: "550.163.01", CUDA: "12.4", Dir: "/compat"}
	for _, c := range []struct {
		args     string
		want     Request
		warnings int
	}{
		{"apply --steps ldcache,symlinks --strict --library /a --library=/b --link a::/b", Request{Steps: []Step{LDCache, Symlinks}, Strict: true, Libraries: []string{"/a", "/b"}, Links: []Link{{Target: "a", Path: "/b"}}}, 0},
		{"apply --steps=cuda-compat --host-driver-version=550.163.01 --host-cuda-version=12.4 --cuda-compat-container-root=/compat", Request{Steps: []Step{CUDACompat}, Compat: compat}, 0},
		{"create-symlinks --link a::/b --link=c::/d", Request{Steps: []Step{Symlinks}, Links: []Link{{"a", "/b", true}, {"c", "/d", true}}}, 0},
		{"hook update-ldcache --folder /a --ldconfig-path /sbin/ldconfig --folder=/b", Request{Steps: []Step{LDCache}, Folders: []string{"/a", "/b"}}, 0},
		{"enable-cuda-compat --host-driver-version 550.163.01 --host-cuda-version 12.4 --cuda-compat-container-root /compat", Request{Steps: []Step{CUDACompat}, Compat: compat}, 0},
		{"disable-device-node-modification", Request{Steps: []Step{DeviceParams}}, 0},
		{"noop", Request{}, 0},
		// What is unknown is reported, and the rest is done.
		{"", Request{}, 1},
		{"update-application-profile", Request{}, 0},
		{"update-application-profile --x y", Request{}, 1},
		{"apply-cuda-memory-limits --driver-root / --gpu-id GPU-1", Request{}, 0},
		{"hook apply-cuda-memory-limits --driver-root=/ --gpu-id=GPU-1 --later x", Request{}, 1},
		{"chmod --mode 755 --path /dev/dri", Request{}, 1},
		{"apply --steps=ldcache,later --library /a", Request{Steps: []Step{LDCache}, Libraries: []string{"/a"}}, 1},
		{"update-ldcache --later value --folder /a", Request{Steps: []Step{LDCache}, Folders: []string{"/a"}}, 1},
		{"update-ldcache --later=value --also --folder /a", Request{Steps: []Step{LDCache}, Folders: []string{"/a"}}, 2},
		{"update-ldcache word --folder", Request{Steps: []Step{LDCache}}, 2},
		{"update-ldcache --link a::/b --folder /a", Request{Steps: []Step{LDCache}, Folders: []string{"/a"}}, 1},
		{"create-symlinks --link a:/b --link c::/d", Request{Steps: []Step{Symlinks}, Links: []Link{{"c", "/d", true}}}, 1},
	} {
		q, warnings := Parse(strings.Fields(c.args))
		if !reflect.DeepEqual(*q, c.want) || len(warnings) != c.warnings {
			t.Errorf("%s: %+v, warnings %q", c.args, *q, warnings)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("apply --steps ldcache --link a::/b --x y")
	f.Add("hook create-symlinks --link=::")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, " ")
		q, warnings := Parse(args)
		if len(q.Links)+len(q.Libraries)+len(q.Folders)+len(warnings) > 2*len(line)+1 {
			t.Errorf("%d links, %d libraries, %d folders, %d warnings of %d bytes", len(q.Links), len(q.Libraries), len(q.Folders), len(warnings), len(line))
		}
	})
}
