package metadata

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// signals are those of Linux, which an image is for.
var signals = strings.Fields("ABRT ALRM BUS CHLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX")

// Signal refuses a STOPSIGNAL that is none.
func Signal(word string) error {
	if n, err := strconv.Atoi(word); err == nil && n != 0 {
		return nil
	}
	name := strings.TrimPrefix(strings.ToUpper(word), "SIG")
	if slices.Contains(signals, name) || isRealTime(name) {
		return nil
	}
	return fmt.Errorf("%q is no signal", word)
}

// isRealTime reports whether a name is RTMIN+n or RTMAX-n.
func isRealTime(name string) bool {
	if text, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		n, err := strconv.Atoi(text)
		return err == nil && n >= 1 && n <= 15 && text[0] != '+'
	}
	text, ok := strings.CutPrefix(name, "RTMAX-")
	n, err := strconv.Atoi(text)
	return ok && err == nil && n >= 1 && n <= 14
}
