package discover

import (
	"strings"
	"testing"
)

const migMinorsSample = "config 1\nmonitor 2\ngpu0/gi0/access 3\ngpu0/gi0/ci0/access 4\ngpu0/gi0/ci1/access 5\ngpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\ngpu3/gi3/ci3/access 439\ngpu6/gi11/ci5/access 918\n"

func TestMIGMinorsAreThoseOfInstances(t *testing.T) {
	table, err := parseMIGMinors([]byte(migMinorsSample))
	if err != nil || len(table) != 7 {
		t.Fatalf("%v, %v; want seven entries", table, err)
	}
	for i, minor := range table {
		if want := formulaMinor(i); minor != want {
			t.Errorf("%+v has minor %d, by the formula %d", i, minor, want)
		}
	}
	if table[instance{0, 1, -1}] != 12 || table[instance{0, 1, 0}] != 13 {
		t.Errorf("GPU instance 1 of GPU 0: %v", table)
	}
	if _, err := parseMIGMinors([]byte("config 1\nmonitor 2\n")); err == nil {
		t.Error("a table without instances: no error")
	}
}

func FuzzParseMIGMinors(f *testing.F) {
	f.Add([]byte(migMinorsSample))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := parseMIGMinors(data)
		if err == nil && len(table) > strings.Count(string(data), "\n")+1 {
			t.Errorf("%d entries of %q", len(table), data)
		}
		for i, minor := range table {
			if minor < 0 || i.gpu < 0 || i.gi < 0 || i.ci < -1 {
				t.Errorf("entry %+v: %d", i, minor)
			}
		}
	})
}

func TestCapabilityHasItsMinor(t *testing.T) {
	for _, c := range []struct {
		data string
		want int
		ok   bool
	}{
		{"DeviceFileMinor: 12\nDeviceFileMode: 292\nDeviceFileModify: 1\n", 12, true},
		{"DeviceFileMode: 292\n", 0, false},
		{"DeviceFileMinor: many\n", 0, false},
		{"DeviceFileMinor: 4294967295\n", 0, false},
		{"", 0, false},
	} {
		got, err := parseCapability([]byte(c.data))
		if (err == nil) != c.ok || c.ok && got.minor != c.want {
			t.Errorf("%q: %d, %v; want %d, %v", c.data, got.minor, err, c.want, c.ok)
		}
	}
}

func FuzzParseCapability(f *testing.F) {
	f.Add([]byte("DeviceFileMinor: 12\nDeviceFileMode: 292\nDeviceFileModify: 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseCapability(data)
		if err == nil && (c.minor < 0 || c.minor >= 1<<20 || c.mode&^0o777 != 0) {
			t.Errorf("accepted %+v", c)
		}
	})
}
