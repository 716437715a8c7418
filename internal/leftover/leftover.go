//go:build linux

// Package leftover reports which processes tests leave running. A mount that is left
// fails the removal of the temporary directory that it is in.
package leftover

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// patience is how long what was ended may take to be gone.
const patience = 20 * time.Second

// Check returns an error that lists the children of this process, unless there are
// none. It is for the end of the tests.
func Check() error {
	var left []string
	for start := time.Now(); time.Since(start) < patience; time.Sleep(20 * time.Millisecond) {
		if left = children(); len(left) == 0 {
			return nil
		}
	}
	return fmt.Errorf("tests leave running: %s", strings.Join(left, "; "))
}

// children lists the processes whose parent is this one. Process 1 of a container
// is given the orphans of others too: those that have ended, and that no init
// reaps, do not count.
func children() (list []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		data, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) && (fields[0] != "Z" || os.Getpid() != 1) {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(stat), "cmdline"))
			list = append(list, "process "+filepath.Base(filepath.Dir(stat))+" "+string(bytes.ReplaceAll(command, []byte{0}, []byte{' '})))
		}
	}
	return list
}
