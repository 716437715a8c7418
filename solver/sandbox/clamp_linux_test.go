package sandbox_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/sandbox"
)

var testEpoch = time.Unix(315619200, 0)

// runAt runs a script in /w, whose files get the time, and returns what it changed.
func runAt(t *testing.T, v sandbox.View, epoch time.Time, script string) snapshot.Changes {
	t.Helper()
	var out bytes.Buffer
	ch, err := v.Run(context.Background(), sandbox.Command{
		Argv: []string{"/bin/sh", "-ec", script}, Env: testEnv, Dir: "/w", Epoch: epoch, Output: &out, Timeout: time.Minute,
	})
	if err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, out.String())
	}
	return ch
}

// times has the times of entries by their paths.
func times(t *testing.T, ch snapshot.Changes) map[string]time.Time {
	t.Helper()
	m := make(map[string]time.Time)
	for e, err := range ch {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != snapshot.Delete {
			m[e.Path] = e.ModTime
		}
	}
	return m
}

// What a RUN wrote gets the time of SOURCE_DATE_EPOCH, in the change and in the root that later
// RUNs see; what it gave a time of its own keeps that.
func TestWhatIsWrittenGetsTheEpoch(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		v, _ := b.view(t)
		got := times(t, runAt(t, v, testEpoch, `
			echo new >new; mkdir -p p/q; echo x >p/q/x; ln -s new link; ln new hard; mkfifo pipe
			echo more >>f; touch -d @86400 old; chmod 600 d/x; touch d/y; touch -d 2090-01-01 later`))
		for _, p := range []string{"w", "w/new", "w/p", "w/p/q", "w/p/q/x", "w/link", "w/hard", "w/pipe", "w/f", "w/d/y"} {
			if at, ok := got[p]; !ok || !at.Equal(testEpoch) {
				t.Errorf("%s: %v, %v", p, at, ok)
			}
		}
		if at := got["w/old"]; !at.Equal(time.Unix(86400, 0)) {
			t.Errorf("a time that the RUN set: %v", at)
		}
		if at := got["w/later"]; at.Year() < 2089 {
			t.Errorf("a time to come that the RUN set: %v", at)
		}
		if at, ok := got["w/d/x"]; !ok || at.Equal(testEpoch) {
			t.Errorf("a file of the root whose mode changed: %v, %v", at, ok)
		}

		// The next RUN finds these times, and what it does not change is no change of it.
		text, out := sh(t, v, `for f in new p hard f link; do test "$f" -ot d/x && echo old $f; done; cat f >/dev/null`)
		if text != "" || strings.Count(out, "old") != 5 {
			t.Errorf("the next RUN changed %q, and found %q", text, out)
		}
		// A file of the same size, with the time that the last one got, is a change all the same,
		// and so is the directory that something was made in.
		got = times(t, runAt(t, v, testEpoch, `echo neu >new; echo y >p/q/y`))
		for _, p := range []string{"w/new", "w/hard", "w/p/q", "w/p/q/y"} {
			if at, ok := got[p]; !ok || !at.Equal(testEpoch) {
				t.Errorf("in the second RUN: %s: %v, %v", p, at, ok)
			}
		}
		if len(got) != 4 {
			t.Errorf("in the second RUN: %v", got)
		}
		// Without a time, all stays.
		got = times(t, runAt(t, v, time.Time{}, `echo z >z`))
		if at := got["w/z"]; time.Since(at) > time.Minute {
			t.Errorf("without a time: %v", at)
		}
	})
}

// A compiled Python module whose source gets another time fits it afterwards, and one that did
// not fit, or goes by the content, stays as it is.
func TestCompiledModulesFollowTheirSources(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		v, root := b.view(t)
		// What Python would write, as octal: magic number, flags, time, size of the source.
		now := uint32(time.Now().Unix())
		module := func(flags, mtime, size uint32) string {
			head := []byte{0xa7, 0x0d, '\r', '\n'}
			for _, w := range []uint32{flags, mtime, size} {
				head = binary.LittleEndian.AppendUint32(head, w)
			}
			return octal(head) + "code"
		}
		script := fmt.Sprintf(`
			mkdir -p m/__pycache__
			for n in good stale hashed beside; do echo 'x = 1' >m/$n.py; touch -d @%[1]d m/$n.py; done
			printf '%[2]s' >m/__pycache__/good.cpython-311.pyc
			printf '%[2]s' >m/__pycache__/good.cpython-311.opt-1.pyc
			ln m/__pycache__/good.cpython-311.opt-1.pyc m/__pycache__/good.cpython-311.opt-2.pyc
			printf '%[3]s' >m/__pycache__/stale.cpython-311.pyc
			printf '%[4]s' >m/__pycache__/hashed.cpython-311.pyc
			printf '%[2]s' >m/beside.pyc; chmod 400 m/beside.pyc
			printf '%[2]s' >m/__pycache__/gone.cpython-311.pyc`,
			now, module(0, now, 6), module(0, now-7, 6), module(3, now, 6))
		want := map[string]uint32{
			"__pycache__/good.cpython-311.pyc": 315619200, "__pycache__/good.cpython-311.opt-1.pyc": 315619200, "__pycache__/good.cpython-311.opt-2.pyc": 315619200,
			"__pycache__/stale.cpython-311.pyc": now - 7, "__pycache__/hashed.cpython-311.pyc": now, "beside.pyc": 315619200, "__pycache__/gone.cpython-311.pyc": now,
		}
		found := make(map[string]string)
		for e, err := range runAt(t, v, testEpoch, script) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind == snapshot.Link {
				found[e.Path] = found[e.Target]
			}
			if e.Kind != snapshot.File {
				continue
			}
			if !e.ModTime.Equal(testEpoch) {
				t.Errorf("%s has the time %v", e.Path, e.ModTime)
			}
			f, err := e.Open()
			if err != nil {
				t.Fatal(err)
			}
			var content bytes.Buffer
			if _, err := content.ReadFrom(f); err != nil {
				t.Fatal(err)
			}
			f.Close()
			found[e.Path] = content.String()
		}
		for name, mtime := range want {
			content := found["w/m/"+name]
			if len(content) != 20 || content[16:] != "code" || binary.LittleEndian.Uint32([]byte(content[8:])) != mtime {
				t.Errorf("%s in the change: %x, want the time %d", name, content, mtime)
			}
			if b.direct {
				if onRoot, err := os.ReadFile(filepath.Join(root, "w/m", name)); err != nil || string(onRoot) != content {
					t.Errorf("%s on the root: %x, %v", name, onRoot, err)
				}
			}
		}
		if text, _ := sh(t, v, `cat m/*.pyc m/__pycache__/* >/dev/null`); text != "" {
			t.Errorf("the next RUN changed %q", text)
		}
	})
}

func octal(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, `\%03o`, c)
	}
	return s.String()
}

// The same random RUNs give the same bytes, in every sandbox, at any time.
func TestSameRunsSameBytes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	draw := func() string {
		names := []string{"a", "b", "d/a", "d/n", "f", "n/m/x", "n/y", "l", "h", "tree/q"}
		name := func() string { return names[rng.IntN(len(names))] }
		var s strings.Builder
		for range 2 + rng.IntN(6) {
			n := name()
			above := path.Dir(n)
			switch rng.IntN(9) {
			case 0, 1, 2:
				fmt.Fprintf(&s, "mkdir -p %[3]s && rm -rf %[1]s && echo %[2]d >%[1]s || true\n", n, rng.IntN(1000), above)
			case 3:
				fmt.Fprintf(&s, "mkdir -p %[3]s && rm -rf %[1]s && ln -s %[2]s %[1]s || true\n", n, name(), above)
			case 4:
				fmt.Fprintf(&s, "test ! -f %[2]s || test %[1]s = %[2]s || { mkdir -p %[3]s && rm -rf %[1]s && ln %[2]s %[1]s; } || true\n", n, name(), above)
			case 5:
				fmt.Fprintf(&s, "rm -rf %s\n", n)
			case 6: // before the test
				fmt.Fprintf(&s, "test ! -f %[1]s || touch -d @%[2]d %[1]s\n", n, rng.IntN(1.7e9))
			case 7:
				fmt.Fprintf(&s, "test ! -f %[1]s || { sleep 0.0%[2]d; echo again >>%[1]s; }\n", n, rng.IntN(10))
			default:
				fmt.Fprintf(&s, "test ! -e %[1]s || chmod 7%[2]d %[1]s\n", n, rng.IntN(8)*10+rng.IntN(8))
			}
		}
		return s.String()
	}
	rounds := 4
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		scripts := []string{draw(), draw(), draw()}
		var want []string
		sandboxes(t, func(t *testing.T, b testBox) {
			if !b.owners {
				return
			}
			v, _ := b.view(t)
			var got []string
			for _, s := range scripts {
				var of strings.Builder
				for e, err := range runAt(t, v, testEpoch, s) {
					if err != nil {
						t.Fatal(err)
					}
					if e.Kind != snapshot.Delete && time.Since(e.ModTime).Abs() < time.Hour {
						t.Errorf("%s has the time %v\n%s", e.Path, e.ModTime, s)
					}
					fmt.Fprintf(&of, "%s %d\n", line(t, e), e.ModTime.Unix())
				}
				got = append(got, of.String())
			}
			if want == nil {
				want = got
			}
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("RUN %d:\n%s\ngave\n%s\nand before\n%s", i+1, scripts[i], got[i], want[i])
				}
			}
		})
	}
}
