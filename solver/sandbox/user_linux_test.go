package sandbox_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/clayer/clayer/solver/sandbox"
)

// someone is a user whom no machine knows.
func someone(groups ...uint32) *sandbox.User {
	return &sandbox.User{UID: 1234, GID: 2345, Groups: groups, Env: append([]string{"WHO=someone"}, testEnv...)}
}

// asUser runs a script as a user, in a directory that is root's alone, and returns what it
// prints, without what it says of being refused.
func asUser(t *testing.T, v sandbox.View, u *sandbox.User, script string) (changes, output string, refused bool) {
	t.Helper()
	changes, output, err := try(t, v, sandbox.Command{
		Argv: []string{"/bin/sh", "-c", script}, Env: append([]string{"WHO=own"}, testEnv...), Dir: "/closed", User: u, Refused: func(string) { refused = true },
	})
	if err != nil {
		t.Errorf("%v: %s", err, output)
	}
	return changes, output, refused
}

// TestUser runs commands as another user. Where that can't be, as in a user namespace of one
// id, they run as the one that is there, and the caller hears of it.
func TestUser(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		v, _ := b.view(t)
		sh(t, v, `mkdir -m 700 /closed; mkdir -m 777 /open; echo 'echo denied' >/closed/x; chmod 755 /closed/x`)
		for _, tt := range []struct {
			name, script, want string
			user               *sandbox.User
		}{
			{"ids", `echo $WHO; id -u; id -g; id -G; pwd`, "someone\n1234\n2345\n2345\n/closed\n", someone()},
			{"groups", `id -G`, "2345 5 6\n", someone(5, 6)},
			{"its own group among them", `id -G`, "2345 5\n", someone(5, 2345)},
			{"no privilege", `while read -r k v; do case $k in CapEff:|CapPrm:|CapAmb:|NoNewPrivs:) echo $v;; esac; done </proc/self/status`,
				"0000000000000000\n0000000000000000\n0000000000000000\n0\n", someone()},
			{"nothing of root's", `(echo x >/closed/y) 2>&- || echo denied; (cat x) 2>&- || echo denied`, "denied\ndenied\n", someone()},
			{"what it prints to", `echo out >/dev/stdout; echo err >/dev/stderr`, "out\nerr\n", someone()},
			{"root", `id -u; id -G`, "0\n0\n", &sandbox.User{Env: testEnv}},
		} {
			if b.direct && (strings.Contains(tt.script, "/proc/") || strings.Contains(tt.script, "/dev/")) {
				continue // a chroot has neither
			}
			_, out, refused := asUser(t, v, tt.user, tt.script)
			if want := !b.owners && tt.user.UID != 0; refused != want {
				t.Errorf("%s: refused: %v, want %v", tt.name, refused, want)
			}
			if b.owners && out != tt.want {
				t.Errorf("%s: %q, want %q", tt.name, out, tt.want)
			}
			if refused && tt.name == "ids" && !strings.HasPrefix(out, "own\n0\n0\n") {
				t.Errorf("refused: %q", out)
			}
		}
		if !b.owners {
			return
		}
		changes, out, _ := asUser(t, v, someone(), `umask; cd /open && echo 1 >f && mkdir d && ln -s f l`)
		if want := "dir open 0777\ndir open/d 0755 1234:2345\nfile open/f 0644 2 1234:2345\nsymlink open/l -> f 1234:2345\n"; changes != want || out != "0022\n" {
			t.Errorf("it prints %q, and changes\n%s\nwant\n%s", out, changes, want)
		}
	})
}

// TestUserFindsPrograms has the user's PATH lead by a directory that is root's alone, and a
// script of the job itself.
func TestUserFindsPrograms(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		if !b.owners {
			t.Skip("it takes other users")
		}
		v, root := b.view(t)
		sh(t, v, `mkdir -m 700 /closed; mkdir /open; for d in closed open; do printf "#!/bin/sh\necho $d\n" >/$d/prog; chmod 755 /$d/prog; done; echo >/open/data; chmod 700 /open/data`)
		u := someone()
		u.Env = []string{"PATH=/closed:/open:/bin"}
		c := sandbox.Command{Argv: []string{"prog"}, User: u}
		if _, out, err := try(t, v, c); out != "open\n" || err != nil {
			t.Errorf("%q, error %v", out, err)
		}
		c.Argv = []string{"data"}
		var exit *sandbox.ExitError
		if _, _, err := try(t, v, c); !errors.As(err, &exit) || exit.Code != 126 {
			t.Errorf("what is root's alone: error %v", err)
		}
		v, _ = b.view(t)
		if b.direct && root != "/" {
			return // a script takes a /proc
		}
		c.Argv, c.Script = nil, []byte("#!/bin/sh\nid -u\n")
		if _, out, err := try(t, v, c); out != "1234\n" || err != nil {
			t.Errorf("a script: %q, error %v", out, err)
		}
	})
}

// TestCancelUser ends what another user has started, in sessions of its own too.
func TestCancelUser(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		if !b.owners {
			t.Skip("it takes other users")
		}
		v, _ := b.view(t)
		word := unique()
		out := &sawLine{want: "ready", seen: make(chan struct{})}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() { <-out.seen; cancel() }()
		_, err := v.Run(ctx, sandbox.Command{
			Argv: []string{"/bin/sh", "-c", `trap "" TERM; setsid sleep ` + word + ` & echo ready; sleep ` + word}, User: someone(), Output: out,
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		awaitDeath(t, word)

		v, _ = b.view(t)
		if _, _, err := try(t, v, sandbox.Command{Argv: []string{"/bin/sh", "-c", "setsid sleep " + word + " & :"}, User: someone()}); err != nil {
			t.Error(err)
		}
		awaitDeath(t, word)
	})
}

// TestUserSeesMounts mounts what is the user's, and what is root's.
func TestUserSeesMounts(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		if !b.owners {
			t.Skip("it takes other users")
		}
		v, _ := b.view(t)
		c := sandbox.Command{
			Argv: []string{"/bin/sh", "-c", `cat /own /all; cat /closed 2>&- || echo denied; echo 1 >/t/x && echo written; stat -c %u:%g:%a /t`}, User: someone(),
			Mounts: []sandbox.Mount{
				{Target: "/own", Content: []byte("own\n"), UID: 1234}, {Target: "/all", Content: []byte("all\n"), Mode: 0o444},
				{Target: "/closed", Content: []byte("closed\n")}, {Target: "/t", Tmpfs: true},
			},
		}
		if _, out, err := try(t, v, c); out != "own\nall\ndenied\nwritten\n0:0:1777\n" || err != nil {
			t.Errorf("%q, error %v", out, err)
		}
	})
}
