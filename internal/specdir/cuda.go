package specdir

import (
	"path"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/trust"
)

// HasCUDA reports whether a spec gives all containers CUDA's library.
func HasCUDA(s *specs.Spec) bool { return len(cudaFiles(s)) > 0 }

// cudaFiles are the files of the host that containers have as CUDA's library.
func cudaFiles(s *specs.Spec) (files []string) {
	for _, m := range s.ContainerEdits.Mounts {
		if path.Base(m.ContainerPath) == "libcuda.so.1" {
			files = append(files, m.HostPath)
		}
	}
	return files
}

// GivesCUDA reports whether the spec at a path is one with which CUDA works on a host with a
// driver version: it can be read, and the library that it mounts exists, is trusted and is not
// of another version by its name.
func GivesCUDA(file, driver string) bool {
	s, err := Read(file)
	if err != nil {
		return false
	}
	for _, source := range cudaFiles(s) {
		version, _ := driverfiles.Version(path.Base(source))
		if trust.Path(source, trust.Self()) != nil {
			continue
		}
		f, err := regular.Open(source)
		if err != nil {
			continue
		}
		_ = f.Close()
		if version == "" || version == driver {
			return true
		}
	}
	return false
}
