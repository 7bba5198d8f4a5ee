package hook

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const compatText = `{"Format": 1, "CUDA Version": "12.9", "Driver": [535, 550, 575], "Device": [1, 7]}`

func TestChoiceOfTheImagesCUDALibraries(t *testing.T) {
	note := &compatNote{CUDA: "12.9", Drivers: []int{535, 550, 575}}
	for _, c := range []struct {
		name  string
		host  Compat
		image string
		note  *compatNote
		want  bool
	}{
		{"the host's driver is listed and older", Compat{Driver: "550.163.01"}, "575.57.08", note, true},
		{"older by the last number", Compat{Driver: "575.57.07"}, "575.57.08", note, true},
		{"the same driver", Compat{Driver: "575.57.08"}, "575.57.08", note, false},
		{"a newer driver", Compat{Driver: "575.64"}, "575.57.08", note, false},
		{"not listed", Compat{Driver: "545.29.06", CUDA: "12.3"}, "575.57.08", note, false},
		{"no driver version, older CUDA", Compat{CUDA: "12.4"}, "575.57.08", note, true},
		{"10 is more than 9", Compat{CUDA: "12.10"}, "575.57.08", note, false},
		{"no driver version, the same CUDA", Compat{CUDA: "12.9.0"}, "575.57.08", note, false},
		{"a version that is none", Compat{Driver: "five"}, "575.57.08", note, false},
		{"no note, later major version", Compat{Driver: "550.163.01"}, "575.57.08", nil, true},
		{"no note, same major version", Compat{Driver: "575.10"}, "575.57.08", nil, false},
		{"no note, earlier major version", Compat{Driver: "580.10"}, "575.57.08", nil, false},
		{"no note, CUDA alone", Compat{CUDA: "12.4"}, "575.57.08", nil, false},
		{"nothing known", Compat{}, "575.57.08", note, false},
		{"a note without CUDA", Compat{CUDA: "12.4"}, "575.57.08", &compatNote{}, false},
	} {
		if got := c.host.choosesImage(c.image, c.note); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestCompatNote(t *testing.T) {
	for _, c := range []struct {
		name string
		data []byte
		want *compatNote
		bad  bool
	}{
		{"the note", testNote(compatOwner, compatText), &compatNote{"12.9", []int{535, 550, 575}}, false},
		{"none", nil, nil, false},
		{"of somebody else", testNote("GNU", compatText), nil, false},
		{"cut off", testNote(compatOwner, compatText)[:40], nil, false},
		{"not JSON", testNote(compatOwner, "CUDA"), nil, true},
		{"of another shape", testNote(compatOwner, `{"Driver": "all"}`), nil, true},
	} {
		got, err := readCompatNote(strings.NewReader(testLibrary("libcuda.so.1", c.data)))
		if (err != nil) != c.bad || (got == nil) != (c.want == nil) || got != nil && (got.CUDA != c.want.CUDA || !slices.Equal(got.Drivers, c.want.Drivers)) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
	if _, err := readCompatNote(strings.NewReader("no ELF")); err == nil {
		t.Error("a file that is not ELF has no error")
	}
}

// compatImage has libraries for forward compatibility where images made from
// nvidia/cuda have them.
func compatImage() map[string]string {
	const dir = "/usr/local/cuda-12.9/compat"
	return driverFiles(map[string]string{
		"/usr/local/cuda":                      "-> /etc/alternatives/cuda",
		"/etc/alternatives/cuda":               "-> ../../usr/local/cuda-12.9",
		dir + "/libcuda.so.575.57.08":          testLibrary("libcuda.so.1", testNote(compatOwner, compatText)),
		dir + "/libcuda.so.1":                  "-> libcuda.so.575.57.08",
		dir + "/libcuda.so":                    "-> libcuda.so.1",
		dir + "/libnvidia-ptxjitcompiler.so.1": testLibrary("libnvidia-ptxjitcompiler.so.1", nil),
		dir + "/README":                        "",
		cacheFile:                              cacheOf("libc.so.6 /lib/x86_64-linux-gnu/libc.so.6"),
		"/etc/ld.so.conf":                      "include /etc/ld.so.conf.d/*.conf\n",
	})
}

func TestImagesCUDALibrariesGoBeforeTheHosts(t *testing.T) {
	want := []string{
		"libnvidia-ptxjitcompiler.so.1 " + CompatDir + "/libnvidia-ptxjitcompiler.so.1",
		"libnvidia-ml.so.1 /lib/x86_64-linux-gnu/libnvidia-ml.so.1",
		"libcuda.so.1 " + CompatDir + "/libcuda.so.1",
		"libcuda.so.1 /lib/x86_64-linux-gnu/libcuda.so.1",
		"libc.so.6 /lib/x86_64-linux-gnu/libc.so.6",
	}
	older := []string{"--host-driver-version=550.163.01", "--host-cuda-version=12.4"}
	for name, calls := range map[string][][]string{
		"one call": {slices.Concat([]string{"apply", "--steps=ldcache,cuda-compat"}, older, []string{"--library", libDir + "/libcuda.so.1", "--library", libDir + "/libnvidia-ml.so.1"})},
		// The second call has to know what the first has chosen.
		"two calls": {
			slices.Concat([]string{"enable-cuda-compat"}, older),
			{"apply", "--steps=ldcache", "--library", libDir + "/libcuda.so.1", "--library", libDir + "/libnvidia-ml.so.1"},
		},
	} {
		root := newRoot(t, compatImage())
		for _, args := range calls {
			q, warnings := Parse(args)
			if warnings != nil {
				t.Fatal(warnings)
			}
			runQuietly(t, root, q)
		}
		if got := entries(t, root); !slices.Equal(got, want) {
			t.Errorf("%s: the cache has\n%q, want\n%q", name, got, want)
		}
		if got := contents(t, root, confDir, compatConf); got != CompatDir+"\n" {
			t.Errorf("%s: %s is %q", name, compatConf, got)
		}
	}
}

func TestHostsCUDALibrariesStayFirstWhenNewer(t *testing.T) {
	for name, change := range map[string]func(root string, q *Request){
		"newer driver":      func(_ string, q *Request) { q.Compat.Driver = "580.65.06" },
		"no versions":       func(_ string, q *Request) { q.Compat = Compat{} },
		"no such directory": func(_ string, q *Request) { q.Compat.Dir = "/opt/compat" },
		"only the link there": func(root string, _ *Request) {
			_ = os.Remove(filepath.Join(root, "usr/local/cuda-12.9/compat/libcuda.so.575.57.08"))
		},
	} {
		root := newRoot(t, compatImage())
		q := &Request{Steps: []Step{CUDACompat}, Compat: Compat{Driver: "550.163.01", CUDA: "12.4"}}
		change(root, q)
		before := contents(t, root, cacheFile)
		runQuietly(t, root, q)
		if contents(t, root, cacheFile) != before {
			t.Errorf("%s: the cache was changed", name)
		}
	}
}

func TestSeveralVersionsOfCUDALibrariesAreTold(t *testing.T) {
	root := newRoot(t, compatImage())
	writeFile(t, filepath.Join(root, "usr/local/cuda-12.9/compat/libcuda.so.570.1.1"), "")
	ok, told := run(t, root, &Request{Steps: []Step{CUDACompat}, Compat: Compat{Driver: "550.163.01"}})
	if ok || !strings.Contains(told, "has 2 versions of libcuda.so, want one: libcuda.so.570.1.1, libcuda.so.575.57.08") {
		t.Error(ok, told)
	}
}

func FuzzCompatNote(f *testing.F) {
	for _, note := range [][]byte{nil, testNote(compatOwner, compatText), testNote("GNU", "{}"), {255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0}} {
		f.Add([]byte(testLibrary("libcuda.so.1", note)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		counted := &limitedReader{bytes.NewReader(data), maxHeaders}
		note, err := readCompatNote(counted)
		if note != nil && err != nil {
			t.Error("a note and an error", err)
		}
	})
}
