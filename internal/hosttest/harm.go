package hosttest

// Harm is what others do to a directory of specs, for a shell: the directory is $1, which has
// nvidia.yaml. A watcher is to bring the spec back each time.
type Harm struct{ Name, Script string }

// The watcher may make the spec again before its directory is removed, and have a file open when
// that is unmounted.
const (
	remove  = `i=0; until rm -rf "$1" || [ $((i += 1)) = 600 ]; do :; done`
	unmount = `i=0; until umount "$1" || [ $((i += 1)) = 600 ]; do sleep 0.1; done`
)

// HarmToSpecs are done one after another. The last one leaves a directory as it was.
var HarmToSpecs = []Harm{
	{"chown of the spec", `chown 65534:65534 "$1/nvidia.yaml"`},
	{"chmod of the spec", `chmod 0600 "$1/nvidia.yaml"`},
	{"chmod of the directory", `chmod 0700 "$1"`},
	{"directory removed", remove},
	{"directory removed and made again", remove + `; mkdir -p "$1"`},
	{"directory moved away", `mv "$1" "$1.old"; rm -rf "$1.old"`},
	{"directory replaced by a link", `mkdir -p "$1.v1/cdi" "$1.v2/cdi"; ln -s "$1.v1" "$1.now"; ln -s "$1.now/cdi" "$1.link"
		until rm -rf "$1"; mv -T "$1.link" "$1" 2>/dev/null; do :; done`}, // the watcher makes a directory at once
	{"link on the way to the directory swapped", `ln -s "$1.v2" "$1.next"; mv -T "$1.next" "$1.now"`},
	{"link replaced by a directory", `rm "$1"; mkdir -p "$1"; rm -rf "$1.v1" "$1.v2" "$1.now"`},
	{"tmpfs mounted", `mount -t tmpfs -o mode=0755 tmpfs "$1"`},
	{"tmpfs unmounted", unmount + `; rm "$1/nvidia.yaml"`},
	{"overlay mounted", `mkdir "$1.lower" "$1.layer"; mount -t tmpfs tmpfs "$1.layer"; mkdir "$1.layer/upper" "$1.layer/work"
		mount -t overlay -o "lowerdir=$1.lower,upperdir=$1.layer/upper,workdir=$1.layer/work" overlay "$1"`},
	{"overlay unmounted", unmount + `; umount "$1.layer"; rm -r "$1.layer" "$1.lower"`},
}
