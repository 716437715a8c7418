// Package testexec writes programs that a test runs.
package testexec

import (
	"os"
	"syscall"
)

// WriteFile writes an executable file, mode 0755. While it is open for writing, no
// other test can fork: a child would hold the file for a moment, and whoever
// executed it then would fail with ETXTBSY (https://go.dev/issue/22315).
func WriteFile(name string, data []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(name, data, 0o755)
}
