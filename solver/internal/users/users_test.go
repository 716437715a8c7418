package users

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/environ"
	"github.com/clayer/clayer/solver/internal/names"
)

func rootWith(t *testing.T, files map[string]string) *names.View {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return names.New(root, "")
}

// TestResolve compares with what BuildKit's GetUser, and runc, make of the same.
func TestResolve(t *testing.T) {
	known := map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\n# a comment\nbroken\napp:x:1000:1001::/home/app:/bin/sh\nbare:x:7:7:::\nagain:x:1000:5::/again:/bin/sh\n5:x:55:56::/five:/bin/sh\n",
		"group":  "root:x:0:root,app\nstaff:x:50:other,app\ndev:x:51:app\napp:x:1001:\n",
	}
	for _, tt := range []struct{ spec, want, needs string }{
		{"app", "1000:1001 [0 50 51] /home/app", "user app with id 1000 group 1001 home /home/app"},
		{"app:staff", "1000:50 [] /home/app", "user app with id 1000 home /home/app, group staff with id 50"},
		{"app:77", "1000:77 [] /home/app", "user app with id 1000 home /home/app"},
		{"app:", "1000:1001 [0 50 51] /home/app", "user app with id 1000 group 1001 home /home/app"},
		{"1000", "1000:1001 [0 50 51] /home/app", "user app with id 1000 group 1001 home /home/app"},
		{"1000:50", "1000:50 [] /home/app", "user app with id 1000 home /home/app"},
		{"1000:staff", "1000:50 [] /home/app", "user app with id 1000 home /home/app, group staff with id 50"},
		{"again", "1000:5 [] /home/app", "user again with id 1000 group 5 home /home/app"},
		{"77", "77:0 [] /", "user 77 with id 77"},
		{"77:88", "77:88 [] /", "user 77 with id 77"},
		{"root", "0:0 [0] /root", "user root with id 0 group 0 home /root"},
		{"root:root", "0:0 [] /root", "user root with id 0 home /root"},
		{"0:0", "0:0 [] /root", "user root with id 0 home /root"},
		{"root:staff", "0:50 [] /root", "user root with id 0 home /root, group staff with id 50"},
		{":staff", "0:50 [] /root", "user root with id 0 home /root, group staff with id 50"},
		{"bare", "7:7 [] /", "user bare with id 7 group 7 home /"},
		{"5", "5:0 [] /", "user 5 with id 5"}, // a number is no name
		{"nosuch", "USER nosuch: user nosuch: not in /etc/passwd", ""},
		{"app:nosuch", "USER app:nosuch: group nosuch: not in /etc/group", ""},
		{"app two", "USER app two: user app two: not in /etc/passwd", ""},
		{"2147483647:2147483647", "2147483647:2147483647 [] /", "user 2147483647 with id 2147483647"},
		{"2147483648", "USER 2147483648: ids are at most 2147483647", ""},
		{"1:99999999999999999999", "USER 1:99999999999999999999: ids are at most 2147483647", ""},
		{"-1", "USER -1: uids and gids must be in range 0-2147483647", ""},
	} {
		check(t, rootWith(t, known), tt.spec, tt.want, tt.needs)
	}
	for _, tt := range []struct{ spec, want, needs string }{
		{"root", "USER root: user root: not in /etc/passwd", ""},
		{"0", "0:0 [] /", "user 0 with id 0"},
		{"5", "5:0 [] /", "user 5 with id 5"},
		{"5:6", "5:6 [] /", "user 5 with id 5"},
		{"5:x", "USER 5:x: group x: not in /etc/group", ""},
	} {
		check(t, rootWith(t, nil), tt.spec, tt.want, tt.needs)
	}
}

func check(t *testing.T, at *names.View, spec, want, needs string) {
	t.Helper()
	u, err := Resolve(at, spec)
	if err != nil {
		if got := err.Error(); got != want {
			t.Errorf("%s: error %s, want %s", spec, got, want)
		}
		return
	}
	if got := fmt.Sprintf("%d:%d %v %s", u.UID, u.GID, u.Groups, u.Home); got != want {
		t.Errorf("%s: %s, want %s", spec, got, want)
	}
	var all []string
	for _, n := range u.Needs {
		text := n.String()
		if n.Group != nil {
			text += fmt.Sprintf(" group %d", *n.Group)
		}
		if n.Home != "" {
			text += " home " + n.Home
		}
		all = append(all, text)
		if n.Existing == (n.Name == strconv.Itoa(n.ID)) {
			t.Errorf("%s: %s may be missing", spec, n)
		}
	}
	if got := strings.Join(all, ", "); got != needs {
		t.Errorf("%s: needs %s, want %s", spec, got, needs)
	}
}

// TestEnvironmentOfUser has HOME of the user, unless the file sets it.
func TestEnvironmentOfUser(t *testing.T) {
	session := []string{"PATH=/bin", "HOME=/root", "USER=root", "LOGNAME=root", "TMPDIR=/root/tmp", "LANG=C"}
	for _, tt := range []struct {
		file string
		want []string // beside PATH and LANG
	}{
		{"USER 7\nRUN true", []string{"HOME=/home/seven"}},
		{"ENV HOME=/x USER=me\nUSER 7\nRUN true", []string{"HOME=/x", "USER=me"}},
		{"ARG HOME=/x TMPDIR=/tmp\nUSER 7\nRUN true", []string{"HOME=/x", "TMPDIR=/tmp"}},
		{"ENV HOME=\nUSER 7\nRUN true", []string{"HOME=/home/seven"}},
	} {
		f, err := frontend.Parse("Containerfile", []byte(tt.file))
		if err != nil {
			t.Fatal(err)
		}
		e := environ.Session{Environ: session}
		g, err := dag.Build([]*frontend.File{f}, dag.Options{Session: e.Variables()})
		if err != nil {
			t.Fatal(err)
		}
		s := g.Layers[0].Last()
		run := s.Instr.(*frontend.Run)
		got := make(map[string]bool)
		for _, kv := range environ.OfUser(e.Of(s, run), s, run, "/home/seven") {
			got[kv] = true
		}
		for _, kv := range append(tt.want, "PATH=/bin", "LANG=C") {
			if !got[kv] {
				t.Errorf("%q: no %s in %v", tt.file, kv, got)
			}
			delete(got, kv)
		}
		for kv := range got {
			if name, _, _ := strings.Cut(kv, "="); name == "HOME" || name == "USER" || name == "LOGNAME" || name == "TMPDIR" {
				t.Errorf("%q: %s", tt.file, kv)
			}
		}
	}
}
