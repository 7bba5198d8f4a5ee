package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// The image of the matrix: busybox, a dynamic loader with its cache, and a program that
// loads libraries by name. It has an LD_LIBRARY_PATH of its own, as many images do, and
// sleeps when nothing else is asked, so that pods can be made of it too.
const (
	imageName       = "localhost/cdigen-e2e:1"
	imageLibrary    = "/opt/app/lib"
	imageArchive    = "image.tar"
	imageDirectory  = "image-layout"
	imageRootfs     = "image-root"
	imageRootfsFile = "image-root.tar"
)

//go:embed testdata/load.c
var loadSource []byte

// smallImage makes the image in all forms that engines take, in work: an archive that is a
// docker-archive and an OCI layout at once, that layout as a directory, and the root
// file system. It gives the digest of the manifest.
var smallImage = sync.OnceValues(func() (digest string, err error) {
	root := filepath.Join(work, imageRootfs)
	if err := makeImageRoot(root); err != nil {
		return "", err
	}
	layer := filepath.Join(work, imageRootfsFile)
	if err := command(root, "tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf", layer, "."); err != nil {
		return "", err
	}
	data, err := os.ReadFile(layer)
	if err != nil {
		return "", err
	}
	return writeImage(data)
})

func makeImageRoot(root string) error {
	for _, dir := range []string{"usr/bin", "usr/sbin", "usr/lib/x86_64-linux-gnu", "usr/lib64", "etc", "proc", "sys", "dev", "tmp", "run", "root", "var", imageLibrary} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return err
	}
	copyFile := func(from, to string) error {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(root, to), data, 0o755) //nolint:gosec // programs
	}
	if err := copyFile(busybox, "usr/bin/busybox"); err != nil {
		return err
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if err := os.Symlink("busybox", filepath.Join(root, "usr/bin", applet)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	// systemd-nspawn asks it for the container's user.
	getent := "#!/bin/sh\ncase $1 in\ninitgroups) echo \"$2\" ;;\n*) grep \"^$2:\" \"/etc/$1\" ;;\nesac\n"
	if err := os.WriteFile(filepath.Join(root, "usr/bin/getent"), []byte(getent), 0o755); err != nil { //nolint:gosec // a program
		return err
	}
	load := filepath.Join(root, "usr/bin/load")
	source := filepath.Join(work, "load.c")
	if err := os.WriteFile(source, loadSource, 0o644); err != nil {
		return err
	}
	if err := command(work, "cc", "-O2", "-o", load, source, "-ldl"); err != nil {
		return err
	}
	libraries, err := exec.Command("ldd", load).Output()
	if err != nil {
		return err
	}
	for _, path := range regexp.MustCompile(`/\S+`).FindAllString(string(libraries), -1) {
		dir := "usr/lib/x86_64-linux-gnu"
		if strings.HasPrefix(filepath.Base(path), "ld-") {
			dir = "usr/lib64"
		}
		if err := copyFile(path, filepath.Join(dir, filepath.Base(path))); err != nil {
			return err
		}
	}
	files := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n", "etc/group": "root:x:0:\nuser:x:1000:\n",
		"etc/ld.so.conf": "/usr/lib/x86_64-linux-gnu\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|fs.ModeSticky); err != nil {
		return err
	}
	// Debian's is a static program, in the image for its look at the cache.
	if err := copyFile("/sbin/ldconfig", "usr/sbin/ldconfig"); err != nil {
		return err
	}
	return command(work, "/sbin/ldconfig", "-r", root)
}

// descriptor is a reference within an image (image-spec, descriptor.md).
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// writeImage writes the image of one layer and gives the manifest's digest.
func writeImage(layer []byte) (string, error) {
	blobs := map[string][]byte{}
	add := func(mediaType string, data []byte) descriptor {
		sum := fmt.Sprintf("%x", sha256.Sum256(data))
		blobs["blobs/sha256/"+sum] = data
		return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(data)}
	}
	encode := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			panic(err) // maps of strings always can be
		}
		return data
	}
	type object map[string]any
	layerDescriptor := add("application/vnd.oci.image.layer.v1.tar", layer)
	config := add("application/vnd.oci.image.config.v1+json", encode(object{
		"architecture": "amd64", "os": "linux",
		"config": object{"Env": []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH=" + imageLibrary}, "Cmd": []string{"/bin/sleep", "1000000"}},
		"rootfs": object{"type": "layers", "diff_ids": []string{layerDescriptor.Digest}},
	}))
	manifest := add("application/vnd.oci.image.manifest.v1+json", encode(object{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []descriptor{layerDescriptor},
	}))
	digest := manifest.Digest
	manifest.Annotations = map[string]string{"io.containerd.image.name": imageName, "org.opencontainers.image.ref.name": "1"}
	path := func(d descriptor) string { return "blobs/sha256/" + strings.TrimPrefix(d.Digest, "sha256:") }
	blobs["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	blobs["index.json"] = encode(object{"schemaVersion": 2, "manifests": []descriptor{manifest}})
	// As `docker save` has written since Docker 25.
	blobs["manifest.json"] = encode([]object{{"Config": path(config), "RepoTags": []string{imageName}, "Layers": []string{path(layerDescriptor)}}})

	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, data := range blobs {
		file := filepath.Join(work, imageDirectory, name)
		err := os.MkdirAll(filepath.Dir(file), 0o755)
		if err == nil {
			err = os.WriteFile(file, data, 0o644)
		}
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))})
		}
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			return "", err
		}
	}
	return digest, errors.Join(w.Close(), os.WriteFile(filepath.Join(work, imageArchive), archive.Bytes(), 0o644))
}
