package hook

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkLDCache is the step ldcache on an image whose cache has 3,000 entries of
// its own, for the 40 libraries of a driver in two directories. Each time the cache
// is the image's again.
func BenchmarkLDCache(b *testing.B) {
	files := driverFiles(nil)
	var own []string
	for i := range 3000 {
		name := fmt.Sprintf("libimage%04d.so.1", i)
		own = append(own, name+" /lib/x86_64-linux-gnu/"+name)
	}
	files[cacheFile] = cacheOf(own...)
	q := &Request{Steps: []Step{LDCache}}
	for i := range 40 {
		name := fmt.Sprintf("libnvidia-part%02d.so.550.54.15", i)
		for _, dir := range []string{libDir, "/usr/lib64"} {
			files[dir+"/"+name] = testLibrary(name, nil)
			q.Libraries = append(q.Libraries, dir+"/"+name)
		}
	}
	root := newRoot(b, files)
	r, err := OpenRoot(root)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for b.Loop() {
		b.StopTimer()
		if err := os.WriteFile(filepath.Join(root, cacheFile), []byte(files[cacheFile]), 0o644); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if !q.Run(r, io.Discard) {
			b.Fatal("not done")
		}
	}
	b.StopTimer()
	if n := len(entries(b, root)); n != 3040 {
		b.Fatalf("%d entries", n)
	}
}
