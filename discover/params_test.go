package discover

import (
	"io/fs"
	"testing"
)

// As nv_procfs_read_params writes it.
const paramsSample = `ResmanDebugLevel: 4294967295
RmLogonRC: 1
ModifyDeviceFiles: 1
DeviceFileUID: 0
DeviceFileGID: 44
DeviceFileMode: 432
InitializeSystemMemoryAllocations: 1
ImexChannelCount: 2048
CreateImexChannel0: 1
CoherentGPUMemoryMode: ""
RegistryDwords: "DeviceFileMode: 511"
ExcludedGpus: ""
`

func TestParamsAreThoseOfDeviceNodes(t *testing.T) {
	usual := params{mode: 0o666, modify: true, minor: -1, imexChannels: -1}
	with := func(change func(p *params)) params {
		p := usual
		change(&p)
		return p
	}
	for name, c := range map[string]struct {
		data string
		want params
	}{
		"all that matters is read": {paramsSample, params{mode: 0o660, gid: 44, modify: true, minor: -1, imexChannels: 2048, imexChannel0: true}},
		"an old driver without IMEX has the defaults": {
			"ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\n", usual,
		},
		"what is missing has its default":           {"", usual},
		"any value but 1 leaves nodes alone":        {"ModifyDeviceFiles: 2\n", with(func(p *params) { p.modify = false })},
		"a mode has permission bits only":           {"DeviceFileMode: 2559\n", with(func(p *params) { p.mode = 0o777 })},
		"an owner may be the last number there is":  {"DeviceFileUID: 4294967295\n", with(func(p *params) { p.uid = 1<<32 - 1 })},
		"IMEX may have been switched off":           {"ImexChannelCount: 0\n", with(func(p *params) { p.imexChannels = 0 })},
		"there may be as many channels as minors":   {"ImexChannelCount: 1048576\n", with(func(p *params) { p.imexChannels = 1 << 20 })},
		"a text is no parameter, whatever it says":  {"RmMsg: \"x\"\nDeviceFileModes: 1\n", usual},
		"the rest of a text may look like a number": {"RegistryDwords: \"a\nDeviceFileGIDs: 7\"\n", usual},
	} {
		got, err := parseParams([]byte(c.data))
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	for _, bad := range []string{"DeviceFileMode: rw\n", "DeviceFileUID: -1\n", "DeviceFileGID: 4294967296\n", "ImexChannelCount: 99999999\n", "ModifyDeviceFiles:\n"} {
		if got, err := parseParams([]byte(bad)); err == nil {
			t.Errorf("%q: %+v; want an error", bad, got)
		}
	}
}

func FuzzParseParams(f *testing.F) {
	f.Add([]byte(paramsSample))
	f.Add([]byte("DeviceFileMode: 438\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseParams(data)
		if err == nil && (p.mode&^fs.ModePerm != 0 || p.imexChannels < -1 || p.imexChannels >= 1<<21) {
			t.Errorf("accepted %+v", p)
		}
	})
}
