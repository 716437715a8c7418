// Package predefined knows the ARGs that BuildKit sets, or takes, without an ARG of a file.
package predefined

import (
	"cmp"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// ofPlatform are what platform ARGs have after BUILD or TARGET.
var ofPlatform = []string{"PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT"}

const targetStage = "TARGETSTAGE"

// Value returns the value of an ARG that holds in FROM lines, and in a stage that names it.
// What is built is for the machine that builds it, of a platform such as "linux/arm/v7"; ""
// is unknown, and sets nothing. stage is the one that is built, "" if it has no name.
func Value(name, platform, stage string) (string, bool) {
	part, ok := platformPart(name)
	switch {
	case platform == "":
		return "", false
	case name == targetStage:
		return cmp.Or(stage, "default"), true
	case !ok:
		return "", false
	}
	platform = normal(platform)
	parts := append(strings.SplitN(platform, "/", 3), "", "")
	return map[string]string{"PLATFORM": platform, "OS": parts[0], "ARCH": parts[1], "VARIANT": parts[2]}[part], true
}

// Names returns the names of the ARGs that have a value without an ARG of a file.
func Names() (names []string) {
	for _, prefix := range []string{"BUILD", "TARGET"} {
		for _, part := range ofPlatform {
			names = append(names, prefix+part)
		}
	}
	return append(names, targetStage)
}

// normal returns a platform as BuildKit writes it, by the names that it has for the kinds of
// ARM: linux/arm is linux/arm/v7, and linux/arm64/v8 is linux/arm64.
func normal(platform string) string {
	parts := append(strings.Split(strings.ToLower(platform), "/"), "", "")
	arch, variant := parts[1], strings.TrimPrefix(parts[2], "v")
	switch arch {
	case "i386":
		arch, variant = "386", ""
	case "x86_64", "x86-64", "amd64":
		if arch = "amd64"; variant == "1" {
			variant = ""
		}
	case "aarch64", "arm64":
		if arch, variant = "arm64", strings.TrimSuffix(variant, ".0"); variant == "8" {
			variant = ""
		}
	case "armhf":
		arch, variant = "arm", "7"
	case "armel":
		arch, variant = "arm", "6"
	case "arm":
		variant = cmp.Or(variant, "7")
	}
	if variant != "" {
		variant = "v" + variant
	}
	return path.Join(parts[0], arch, variant)
}

// component is what a platform consists of; its first part can have a version.
var component = lazyregexp.New(`^[A-Za-z0-9_.-]+$`)

// systems and architectures are those that stand for a platform alone.
var (
	systems       = strings.Fields("aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos")
	architectures = strings.Fields("386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc riscv riscv64 s390 s390x sparc sparc64 wasm")
)

// Parse returns the system and the architecture of a platform as a user writes it: what is
// left out is this machine's. ok is false if it is none.
func Parse(word string) (system, architecture string, ok bool) {
	parts := strings.Split(word, "/")
	first, _, _ := strings.Cut(parts[0], "(")
	if len(parts) > 3 || !component().MatchString(first) || slices.ContainsFunc(parts[1:], func(p string) bool { return !component().MatchString(p) }) {
		return "", "", false
	}
	if system = strings.ToLower(first); system == "macos" {
		system = "darwin"
	}
	if len(parts) == 1 {
		if slices.Contains(systems, system) {
			return system, runtime.GOARCH, true
		}
		system, parts = runtime.GOOS, []string{"", parts[0]}
	}
	architecture = strings.Split(normal("x/"+parts[1]), "/")[1]
	return system, architecture, len(parts[0]) > 0 || slices.Contains(architectures, architecture)
}

func platformPart(name string) (part string, ok bool) {
	for _, prefix := range []string{"TARGET", "BUILD"} {
		if part, ok = strings.CutPrefix(name, prefix); ok && slices.Contains(ofPlatform, part) {
			return part, true
		}
	}
	return "", false
}

// Proxies are the variables by which programs find proxies. --build-arg sets them for all
// RUNs, whether or not an ARG names them, and is then no part of a key.
var Proxies = []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"}

// Is reports whether --build-arg can set a variable that no ARG names.
func Is(name string) bool {
	_, ofPlatform := platformPart(name)
	return ofPlatform || name == targetStage || name == "SOURCE_DATE_EPOCH" || strings.HasPrefix(name, "BUILDKIT_") ||
		slices.ContainsFunc(Proxies, func(p string) bool { return strings.EqualFold(p, name) })
}
