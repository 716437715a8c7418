//go:build !linux

package durability

func kindOf(string) (memory, overlay bool) { return false, false }

func sameFileSystem(string, string) bool { return false }

// Boot is known on Linux alone.
func Boot() string { return "unknown" }
