package redact

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Identifiers are what has to be told to be known. Each is replaced where it stands
// as a word of its own, in whatever capitals.
type Identifiers struct {
	// Hosts are names of machines, with and without a domain.
	Hosts []string
	// Users are names of people's accounts.
	Users []string
	// Serials are serial numbers and the like, of whatever form.
	Serials []string
	// MachineIDs are UUIDs without dashes (machine-id(5)).
	MachineIDs []string
	// Words are whatever else is not to be shown.
	Words []string
}

// Collect reads the identifiers of this machine as far as the caller may: an ordinary
// user cannot read serial numbers, nor get one into a text. root is where the
// machine's file system is, usually "/", and getenv [os.Getenv].
func Collect(root string, getenv func(string) string) Identifiers {
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(data))
	}
	var ids Identifiers
	for _, name := range []string{read("proc/sys/kernel/hostname"), read("etc/hostname"), getenv("HOSTNAME")} {
		short, _, _ := strings.Cut(name, ".")
		ids.Hosts = add(ids.Hosts, telling, name, short)
	}
	ids.Users = add(ids.Users, telling, getenv("SUDO_USER"), getenv("LOGNAME"), getenv("USER"))
	for line := range strings.Lines(read("etc/passwd")) {
		// Accounts of people begin at 1000; those of systemd and nobody come after
		// 60000 (login.defs(5)).
		fields := strings.Split(line, ":")
		if len(fields) < 3 {
			continue
		}
		if uid, err := strconv.Atoi(fields[2]); err == nil && uid >= 1000 && uid < 60000 {
			ids.Users = add(ids.Users, telling, fields[0])
		}
	}
	for _, name := range []string{"product_serial", "board_serial", "chassis_serial", "board_asset_tag", "chassis_asset_tag"} {
		ids.Serials = add(ids.Serials, serial, read("sys/class/dmi/id/"+name))
	}
	for _, name := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		ids.MachineIDs = add(ids.MachineIDs, machineID, read(name))
	}
	return ids
}

// Add has further names and serial numbers known.
func (ids *Identifiers) Add(hosts, users, serials []string) {
	ids.Hosts = add(ids.Hosts, telling, hosts...)
	ids.Users = add(ids.Users, telling, users...)
	ids.Serials = add(ids.Serials, serial, serials...)
}

// AddWord has a further word known, and says whether it can be one.
func (ids *Identifiers) AddWord(text string) bool {
	if len(text) < 2 || strings.TrimSpace(text) != text {
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
	nameForm      = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]*[0-9A-Za-z]$`)
	hasLetter     = regexp.MustCompile(`[A-Za-z]`)
	serialForm    = regexp.MustCompile(`^[!-~]*[0-9][!-~]*$`)
	machineIDForm = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// common are words that many machines and accounts are named after, and which are in
// every driver's files as well: there they tell nothing.
var common = strings.Fields(`
	admin alternatives amd64 arm64 bin boot builder buildhost card centos char class core cuda current data debian default dev
	device devices docker driver drivers etc fedora firmware gpu gpus graphics home host information kernel kubernetes lib lib32
	lib64 linux local localhost machine mig mnt module modules nobody none nvidia nvlink opt packages pci podman power proc
	redacted render root run serial server share socket src srv subsystem sys system test tmp ubuntu user users usr var vendor version video
	vulkan www x86_64 aarch64 xorg`)

// telling says whether a name can tell one machine or person from others.
func telling(name string) bool {
	return len(name) >= 3 && nameForm.MatchString(name) && hasLetter.MatchString(name) && !slices.Contains(common, strings.ToLower(name))
}

// serial says whether a text can be a serial number: not "None" and not "To be filled
// by O.E.M.".
func serial(text string) bool {
	return len(text) >= 5 && len(text) <= 128 && serialForm.MatchString(text)
}

func machineID(text string) bool { return machineIDForm.MatchString(text) }
