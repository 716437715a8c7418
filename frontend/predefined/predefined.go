// Package predefined knows the ARGs that BuildKit sets, or takes, without an ARG of a file.
package predefined

import (
	"cmp"
	"slices"
	"strings"
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
	parts := append(strings.SplitN(platform, "/", 3), "", "")
	return map[string]string{"PLATFORM": platform, "OS": parts[0], "ARCH": parts[1], "VARIANT": parts[2]}[part], true
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
