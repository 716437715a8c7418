package helper

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	var l tail
	for i := range 3000 {
		fmt.Fprintf(&l, "%d\n", i)
	}
	if got := string(l.last()); !strings.HasPrefix(got, "2980\n") || !strings.HasSuffix(got, "2999\n") {
		t.Errorf("%q", got)
	}
	l.Write(bytes.Repeat([]byte("x"), 100<<10))
	if n := len(l.last()); n != tailBytes {
		t.Errorf("%d bytes", n)
	}
	if n := len(l.end); n > 2*tailBytes {
		t.Errorf("%d bytes held", n)
	}
}
