package redact

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/cdigen/cdigen/internal/lazyregexp"
)

// Identifiers are identifiers without a known form. They are replaced where they are
// words, regardless of case.
type Identifiers struct {
	Hosts   []string // names of machines, with and without a domain
	Users   []string // names of people's accounts
	Serials []string // serial numbers and similar, of any form
	Words   []string // other words to replace
}

// Collect reads the identifiers of this machine that the caller can read: an ordinary user
// cannot read serial numbers, so they are in no text either. root is the root of the
// machine's file system, usually "/", and getenv [os.Getenv].
func Collect(root string, getenv func(string) string) Identifiers {
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(data))
	}
	var ids Identifiers
	hosts := []string{read("proc/sys/kernel/hostname"), read("etc/hostname"), getenv("HOSTNAME")}
	for line := range strings.Lines(read("etc/hosts")) {
		line, _, _ = strings.Cut(line, "#")
		if fields := strings.Fields(line); len(fields) > 1 {
			hosts = append(hosts, fields[1:]...)
		}
	}
	for _, name := range hosts {
		short, _, _ := strings.Cut(name, ".")
		ids.Hosts = add(ids.Hosts, telling, name, short)
	}
	ids.Users = add(ids.Users, telling, getenv("SUDO_USER"), getenv("LOGNAME"), getenv("USER"))
	ids.Users = add(ids.Users, telling, people(read("etc/passwd"))...)
	// Accounts of a directory service are in no file, but may have home directories.
	homes, _ := os.ReadDir(filepath.Join(root, "home"))
	for _, home := range homes {
		ids.Users = add(ids.Users, telling, home.Name())
	}
	for _, name := range []string{"product_serial", "board_serial", "chassis_serial", "board_asset_tag", "chassis_asset_tag"} {
		ids.Serials = add(ids.Serials, serial, read("sys/class/dmi/id/"+name))
	}
	return ids
}

// isPerson reports whether an account belongs to a person. Their numbers begin at 1000, or
// at 65537 for directory services; systemd's and nobody are after 60000 (login.defs(5)).
func isPerson(uid uint64) bool { return uid >= 1000 && uid < 60000 || uid > 65536 }

// people returns the names of people's accounts in passwd(5).
func people(passwd string) (list []string) {
	for line := range strings.Lines(passwd) {
		fields := strings.Split(line, ":")
		if len(fields) < 3 {
			continue
		}
		if uid, err := strconv.ParseUint(fields[2], 10, 32); err == nil && isPerson(uid) {
			list = append(list, fields[0])
		}
	}
	return list
}

// Owners returns the names of people's accounts by their numbers, also those of directory
// services, from getent(1). Unknown numbers are left out.
func Owners(ctx context.Context, uids []uint32) Identifiers {
	args := []string{"passwd"}
	for _, uid := range uids {
		if isPerson(uint64(uid)) {
			args = append(args, strconv.FormatUint(uint64(uid), 10))
		}
	}
	if len(args) == 1 {
		return Identifiers{}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	lines, _ := exec.CommandContext(ctx, "getent", args...).Output() // an error where one account has no name
	return Identifiers{Users: add(nil, telling, people(string(lines))...)}
}

// Add adds valid names and serial numbers.
func (ids *Identifiers) Add(hosts, users, serials []string) {
	ids.Hosts = add(ids.Hosts, telling, hosts...)
	ids.Users = add(ids.Users, telling, users...)
	ids.Serials = add(ids.Serials, serial, serials...)
}

// AddWord adds a word, and reports whether it is valid.
func (ids *Identifiers) AddWord(text string) bool {
	if len(text) < 2 || strings.TrimSpace(text) != text || !utf8.ValidString(text) {
		return false
	}
	ids.Words = append(ids.Words, text)
	return true
}

func add(list []string, accept func(string) bool, texts ...string) []string {
	for _, text := range texts {
		if accept(text) && !slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, text) }) {
			list = append(list, text)
		}
	}
	return list
}

var (
	nameForm   = lazyregexp.New(`^[0-9A-Za-z][0-9A-Za-z._-]*[0-9A-Za-z]$`)
	hasLetter  = lazyregexp.New(`[A-Za-z]`)
	serialForm = lazyregexp.New(`^[!-~]*[0-9][!-~]*$`)
)

// common are names of machines and accounts that are also names of files of every system
// or driver, and so identify nobody.
var common = sync.OnceValue(func() []string { return strings.Fields(commonWords) })

const commonWords = `
	aarch64 access active admin alternatives amd64 arm64 auto bin boot builder buildhost bus by-path cache capabilities card centos char
	class compat compatible config containers control core cuda current current-system data debian default dev device device-tree devices directory docker dri
	driver drivers drm dxg egl etc extensions fedora files firmware firmware_class gbm glvnd gpu gpus graphics hardware home host
	information initstate kernel kubernetes ld.so.cache lib lib32 lib64 libexec library libx32 linux live local localhost machine media
	merged mig mnt mode modeset module modules monitor mps new nix nobody none numa_node nvidia nvlink off old on opengl-driver
	opengl-driver-32 opt osrelease overlay overlay2 packages params path parameters pci permissions physfn podman power private proc redacted
	registry render root rootfs run runtime_status sbin serial server share snap snapshots socket src srv store subsystem suspended sw
	sys system test tls tmp type ubuntu updates user users usr uvm var vdpau vendor version video vulkan wine www x11 x86_64 xorg
	x86_64-linux-gnu aarch64-linux-gnu i386-linux-gnu`

// numbered matches names of the driver's nodes and directories.
var numbered = lazyregexp.New(`^(?:nvidia|gpu|gi|ci|card|renderD|controlD|channel)\d{1,7}$`)

// Common reports whether a name identifies nobody, because most systems have accounts,
// directories or files of that name.
func Common(name string) bool {
	return slices.Contains(common(), strings.ToLower(name)) || numbered().MatchString(name)
}

// telling reports whether a name can identify a machine or person.
func telling(name string) bool {
	return len(name) >= 3 && nameForm().MatchString(name) && hasLetter().MatchString(name) && !Common(name) && !strings.HasPrefix(name, "ip6-")
}

// serial reports whether a text can be a serial number: not "None" and not "To be filled
// by O.E.M.".
func serial(text string) bool {
	return len(text) >= 5 && len(text) <= 128 && serialForm().MatchString(text)
}
