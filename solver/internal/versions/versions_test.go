package versions

import "testing"

func TestVersionsOfPython(t *testing.T) {
	for _, tt := range []struct {
		version, specifier string
		want               bool
	}{
		{"3.7", ">=2.5,<4", true},
		{"3.7", "<3.7", false},
		{"3.7.0", "==3.7", true},
		{"3.10", ">=3.9", true},
		{"1.4.5", "~=1.4.2", true},
		{"1.5.0", "~=1.4.2", false},
		{"1.5", "~=1.4", true},
		{"2.0", "~=1.4", false},
		{"3.7.2", "==3.*", true},
		{"4.0", "==3.*", false},
		{"3.7.2", "!=3.7.*", false},
		{"1.0rc1", "<1.0", true},
		{"1.0.dev3", "<1.0a1", true},
		{"1.0.post1", ">1.0", true},
		{"1!1.0", ">2", true},
		{"1.0+local", "==1.0", true},
		{"unreadable", ">=5", true},
		{"1.0", "", true},
	} {
		if got := Python(tt.version, tt.specifier); got != tt.want {
			t.Errorf("%s satisfies %q: %t", tt.version, tt.specifier, got)
		}
	}
}

func TestMarkers(t *testing.T) {
	for _, tt := range []struct {
		marker, python, extra string
		want                  bool
	}{
		{`python_version < "3.8"`, "3.11", "", false},
		{`python_version >= "3.9"`, "3.11", "", true},
		{`extra == "http2"`, "3.11", "", false},
		{`extra == 'Http2'`, "3.11", "http2", true},
		{`(python_version < "3.8" or sys_platform == "linux") and os_name == 'posix'`, "3.11", "", true},
		{`sys_platform == "win32"`, "3.11", "", false},
		{`sys_platform in "linux darwin"`, "3.11", "", true},
		{`platform_machine not in "riscv64 s390x"`, "3.11", "", true},
		{`python_version < "4"`, "", "", false}, // nobody knows
		{`nonsense`, "3.11", "", false},
		{`python_version`, "3.11", "", false},
		{`(extra == "a"`, "3.11", "a", false},
	} {
		if got := Marker(tt.marker, tt.python, tt.extra); got != tt.want {
			t.Errorf("%s with Python %s and extra %q: %t", tt.marker, tt.python, tt.extra, got)
		}
	}
}

func TestVersionsOfDebian(t *testing.T) {
	ascending := []string{"1.0~rc1-1", "1.0-1", "1.0-1+b1", "1.0-2", "1.0a-1", "1.0+dfsg-1", "1.2-1", "1.10-1", "1:0.1"}
	for i, a := range ascending {
		for j, b := range ascending {
			got := debianOrder(a, b)
			if (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("%s to %s: %d", a, b, got)
			}
		}
	}
	if debianOrder("1.00", "1.0") != 0 || debianOrder("0:1", "1") != 0 {
		t.Error("zeros that say nothing count")
	}
}

func TestVersionsOfNPM(t *testing.T) {
	for _, tt := range []struct {
		version, want string
		ok            bool
	}{
		{"18.2.0", "^18.0.0", true},
		{"19.0.0", "^18.0.0", false},
		{"19.0.0", "^18 || ^19", true},
		{"0.2.5", "^0.2.3", true},
		{"0.3.0", "^0.2.3", false},
		{"1.2.9", "~1.2.3", true},
		{"1.3.0", "~1.2.3", false},
		{"1.3.0", ">= 1.2 <1.4", true},
		{"1.4.0", ">=1.2 < 1.4", false},
		{"2.5.0", "1 - 3", true},
		{"1.2.3", "1.x", true},
		{"2.0.0", "1.x", false},
		{"5.0.0", "*", true},
		{"5.0.0", "latest", true},
		{"5.0.0", "", true},
	} {
		if got := NPM(tt.version, tt.want); got != tt.ok {
			t.Errorf("%s satisfies %q: %t", tt.version, tt.want, got)
		}
	}
}
