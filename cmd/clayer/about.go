package main

import "runtime/debug"

// version is set by the linker in a release: -ldflags "-X main.version=v1.2.3".
var version string

// buildVersion is the version of this binary.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
