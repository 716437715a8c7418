package rebuild

import (
	"fmt"
	"testing"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
)

func TestDifferences(t *testing.T) {
	file := func(change func(e *entry)) entry {
		e := entry{Entry: snapshot.Entry{Path: "f", Kind: snapshot.File, Mode: 0o644, Size: 1, ModTime: time.Unix(1, 0)}}
		change(&e)
		return e
	}
	tests := []struct {
		change func(e *entry)
		want   string
	}{
		{func(*entry) {}, "[]"},
		{func(e *entry) { e.sum[0] = 1 }, "[{f [content]}]"},
		{func(e *entry) { e.Mode, e.UID = 0o600, 1 }, "[{f [mode owner]}]"},
		{func(e *entry) { e.ModTime = time.Unix(1, 1) }, "[{f [time]}]"},
		{func(e *entry) { e.Xattrs = map[string]string{"user.a": "b"} }, "[{f [attributes]}]"},
		{func(e *entry) { e.Kind, e.Target = snapshot.Symlink, "x" }, "[{f [kind target]}]"},
		{func(e *entry) { e.Data = []snapshot.Extent{{Length: 1}} }, "[{f [content]}]"},
	}
	for _, tt := range tests {
		was, is := map[string]entry{"f": file(func(*entry) {})}, map[string]entry{"f": file(tt.change)}
		if got := fmt.Sprint(differences(was, is)); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
	one := map[string]entry{"f": file(func(*entry) {})}
	if got := fmt.Sprint(differences(one, nil), differences(nil, one)); got != "[{f [gone]}] [{f [added]}]" {
		t.Error(got)
	}
}
