package predefined

import (
	"runtime"
	"testing"
)

// TestValue: the kinds of ARM have the names that BuildKit has for them.
func TestValue(t *testing.T) {
	for platform, want := range map[string]string{
		"linux/amd64":       "linux/amd64 linux amd64 ",
		"linux/amd64/v1":    "linux/amd64 linux amd64 ",
		"linux/amd64/v3":    "linux/amd64/v3 linux amd64 v3",
		"linux/x86_64":      "linux/amd64 linux amd64 ",
		"linux/arm64":       "linux/arm64 linux arm64 ",
		"linux/arm64/v8":    "linux/arm64 linux arm64 ",
		"linux/aarch64/8":   "linux/arm64 linux arm64 ",
		"linux/arm64/v9":    "linux/arm64/v9 linux arm64 v9",
		"linux/arm":         "linux/arm/v7 linux arm v7",
		"linux/arm/v7":      "linux/arm/v7 linux arm v7",
		"linux/arm/6":       "linux/arm/v6 linux arm v6",
		"linux/arm/v8":      "linux/arm/v8 linux arm v8",
		"linux/armhf":       "linux/arm/v7 linux arm v7",
		"linux/armel":       "linux/arm/v6 linux arm v6",
		"Linux/ARM64":       "linux/arm64 linux arm64 ",
		"linux/riscv64":     "linux/riscv64 linux riscv64 ",
		"linux/mips64le/v1": "linux/mips64le/v1 linux mips64le v1",
	} {
		for _, prefix := range []string{"BUILD", "TARGET"} {
			var got string
			for _, part := range []string{"PLATFORM", "OS", "ARCH", "VARIANT"} {
				value, ok := Value(prefix+part, platform, "")
				if !ok {
					t.Errorf("%s: no %s%s", platform, prefix, part)
				}
				got += value + " "
			}
			if got != want+" " {
				t.Errorf("%s: %s%q, want %q", platform, prefix, got, want)
			}
		}
	}
}

func TestParse(t *testing.T) {
	for word, want := range map[string]string{
		"linux/arm64":           "linux arm64",
		"linux/aarch64/v8":      "linux arm64",
		"LINUX/x86_64":          "linux amd64",
		"windows(10.0.1)/amd64": "windows amd64",
		"macos/arm64":           "darwin arm64",
		"linux":                 "linux " + runtime.GOARCH,
		"arm64":                 runtime.GOOS + " arm64",
		"foo/bar":               "foo bar",
		"foo":                   "",
		"":                      "",
		"linux/*":               "",
		"linux/arm/v7/x":        "",
		"linux/":                "",
	} {
		os, arch, ok := Parse(word)
		got := ""
		if ok {
			got = os + " " + arch
		}
		if got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
