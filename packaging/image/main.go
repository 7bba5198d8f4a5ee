// Command image makes an OCI image of one archive of files for each architecture, in the form
// of a directory (OCI image layout). It needs no daemon, and the same files make the same
// bytes:
//
//	image -name NAME -version VERSION -created SECONDS -output DIRECTORY amd64.tar arm64.tar
package main

import (
	"flag"
	"log"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// image is what all architectures have in common.
type image struct {
	name, version string
	created       time.Time
}

func main() {
	log.SetFlags(0)
	var i image
	flag.StringVar(&i.name, "name", "", "`name` of the image, without a tag")
	flag.StringVar(&i.version, "version", "", "`version`, which is also the tag")
	created := flag.Int64("created", 0, "`time` in seconds since 1970")
	output := flag.String("output", "", "`directory` to make")
	flag.Parse()
	i.created = time.Unix(*created, 0).UTC()
	if err := i.write(*output, flag.Args()); err != nil {
		log.Fatal("make an image: ", err)
	}
}

// write writes the layout with one index, which has an image for each archive ARCH.tar.
func (i *image) write(dir string, archives []string) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, archive := range archives {
		arch := strings.TrimSuffix(filepath.Base(archive), ".tar")
		one, err := i.of(arch, archive)
		if err != nil {
			return err
		}
		platform := &v1.Platform{OS: "linux", Architecture: arch}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: one, Descriptor: v1.Descriptor{Platform: platform}})
	}
	index = mutate.Annotations(index, i.annotations()).(v1.ImageIndex)
	written, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	tagged := i.name + ":" + i.version
	// podman load takes the name from the first, ctr image import from the second.
	return written.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tagged, "io.containerd.image.name": tagged}))
}

// of returns the image of an architecture.
func (i *image) of(arch, archive string) (v1.Image, error) {
	layer, err := tarball.LayerFromFile(archive, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	one, err := mutate.Append(base, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: i.created}, CreatedBy: "make image"}})
	if err != nil {
		return nil, err
	}
	config, err := one.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: i.created}
	config.Config = v1.Config{Entrypoint: []string{"/usr/bin/cdigen"}, Env: []string{"PATH=/usr/bin"}, Labels: i.annotations()}
	if one, err = mutate.ConfigFile(one, config); err != nil {
		return nil, err
	}
	return mutate.Annotations(one, i.annotations()).(v1.Image), nil
}

func (i *image) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "cdigen",
		"org.opencontainers.image.description": "NVIDIA GPUs in containers through CDI specs",
		"org.opencontainers.image.source":      "https://github.com/cdigen/cdigen",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     i.version,
		"org.opencontainers.image.created":     i.created.Format(time.RFC3339),
	}
}
