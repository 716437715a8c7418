package rootfs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/rounds"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
)

// node is a file as the model knows it. Hard links are not modelled: whole trees
// are compared with them where nothing was changed by hand.
type node struct {
	kind  record.Kind
	mode  uint32
	mtime time.Time
	data  string // content, or target
	xattr string
}

// same reports whether a file is as applied: of a directory its time is not asked.
func (n *node) same(m *node) bool {
	x, y := *n, *m
	if x.kind == record.KindDir {
		x.mtime = y.mtime
	}
	return x.equal(&y)
}

func (n *node) equal(m *node) bool {
	return n.kind == m.kind && n.mode == m.mode && n.mtime.Equal(m.mtime) && n.data == m.data && n.xattr == m.xattr
}

type tree map[string]node

// read reads a real tree.
func readTree(t *testing.T, root string) tree {
	t.Helper()
	all := make(tree)
	var walk func(at string)
	walk = func(at string) {
		entries, err := os.ReadDir(filepath.Join(root, at))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			p := path.Join(at, e.Name())
			if notOwn(p) {
				continue
			}
			n, leave := readNode(t, filepath.Join(root, p))
			all[p] = n
			if e.IsDir() {
				walk(p)
			}
			leave()
		}
	}
	walk(".")
	return all
}

func readNode(t *testing.T, file string) (_ node, leave func()) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		t.Fatal(err)
	}
	leave, err := treetest.Enter(file, &st)
	if err != nil {
		t.Fatal(err)
	}
	n := node{kind: record.TypeOf(&st), mode: st.Mode & 0o7777, mtime: time.Unix(st.Mtim.Unix())}
	switch n.kind {
	case record.KindFile:
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n.data = string(data)
		fallthrough
	case record.KindDir:
		var buf [64]byte
		if k, err := unix.Lgetxattr(file, "user.m", buf[:]); err == nil {
			n.xattr = string(buf[:k])
		}
	case record.KindSymlink:
		n.data, _ = os.Readlink(file)
	}
	return n, leave
}

func (m tree) isDir(p string) bool {
	for d := p; d != "."; d = path.Dir(d) {
		if m[d].kind != record.KindDir {
			return false
		}
	}
	return true
}

// take removes a path with all below it.
func (m tree) take(p string) tree {
	gone := make(tree)
	for q, n := range m {
		if q == p || strings.HasPrefix(q, p+"/") {
			gone[q] = n
			delete(m, q)
		}
	}
	return gone
}

// mChange is a change as the model records it.
type mChange struct {
	p         string
	kind      record.Kind // "gone", "dir", or another
	now, was  *node       // was: of a directory that was there
	before    tree        // what stood there
	preserved bool
	lost      bool // what stood there is not known: the step was adopted
	unread    bool // the content is not known, of a step that was adopted
}

// asApplied reports whether a file is as the change made it, as far as that is known.
func (c *mChange) asApplied(n *node) bool {
	x := *c.now
	if c.unread && x.kind == record.KindFile && len(x.data) == len(n.data) {
		x.data = n.data
	}
	return n.same(&x)
}

type mEvent struct {
	seq        int
	key        key.Key
	changes    []mChange
	incomplete bool
}

// model is a root as it should be.
type model struct {
	files tree
	log   []mEvent
	left  []mEvent
	seq   int
}

func (m *model) clone() *model {
	return &model{maps.Clone(m.files), slices.Clone(m.log), slices.Clone(m.left), m.seq}
}

// mStep is a step: a key and what it does.
type mStep struct {
	name    string
	entries []*snapshot.Entry
}

func (m *model) apply(s mStep, preserve map[string]bool) {
	m.seq++
	ev := mEvent{seq: m.seq, key: keyOf(s.name)}
	for _, e := range s.entries {
		p := e.Path
		cur, there := m.files[p]
		if e.Kind == snapshot.Opaque {
			if !m.files.isDir(p) {
				continue
			}
			for q := range maps.Clone(m.files) {
				if path.Dir(q) == p {
					c := mChange{p: q, kind: record.KindGone, preserved: preserve[q]}
					if !c.preserved {
						c.before = m.files.take(q)
					}
					ev.changes = append(ev.changes, c)
				}
			}
			continue
		}
		if !m.files.isDir(path.Dir(p)) {
			ev.incomplete = ev.incomplete || e.Kind != snapshot.Delete
			continue
		}
		switch {
		case e.Kind == snapshot.Delete && !there:
			continue
		case e.Kind == snapshot.Dir && e.Implied && cur.kind == record.KindDir:
			continue
		}
		c := mChange{p: p, kind: record.KindOf(e.Kind), preserved: preserve[p]}
		if e.Kind != snapshot.Delete {
			n := nodeOf(e, s.entries)
			c.now = &n
		}
		switch {
		case c.preserved:
		case e.Kind == snapshot.Delete:
			c.before = m.files.take(p)
		case e.Kind == snapshot.Dir && cur.kind == record.KindDir:
			c.was = &cur
			m.files[p] = *c.now
		default:
			c.before = m.files.take(p)
			m.files[p] = *c.now
		}
		ev.changes = append(ev.changes, c)
	}
	m.log = append(m.log, ev)
}

// adopt is apply for a step that ran on the root itself. It returns what of it can
// be done, and what there was before.
func (m *model) adopt(s mStep) (ev mEvent, es []*snapshot.Entry) {
	ev = mEvent{key: keyOf(s.name)}
	for _, e := range s.entries {
		p := e.Path
		cur, there := m.files[p]
		if e.Kind == snapshot.Symlink && slices.Contains(modelDirs, p) {
			continue // it would stay, and the model follows no links
		}
		if e.Kind == snapshot.Opaque || !m.files.isDir(path.Dir(p)) || e.Kind == snapshot.Delete && !there || e.Implied && there ||
			e.Kind == snapshot.Link && !slices.ContainsFunc(es, func(x *snapshot.Entry) bool { return x.Path == e.Target && x.Kind == snapshot.File }) {
			continue
		}
		whole := *e
		whole.Implied = false
		es = append(es, &whole)
		c := mChange{p: p, kind: record.KindOf(e.Kind), lost: there, unread: true}
		if e.Kind == snapshot.Delete {
			m.files.take(p)
			ev.changes = append(ev.changes, c)
			continue
		}
		n := nodeOf(e, s.entries)
		c.now = &n
		if e.Kind == snapshot.Dir && cur.kind == record.KindDir {
			c.was, c.lost = &cur, false
		} else {
			m.files.take(p)
		}
		m.files[p] = n
		ev.changes = append(ev.changes, c)
	}
	return ev, es
}

func nodeOf(e *snapshot.Entry, all []*snapshot.Entry) node {
	switch e.Kind {
	case snapshot.Link:
		for _, x := range all {
			if x.Path == e.Target && x.Kind != snapshot.Opaque {
				return nodeOf(x, all)
			}
		}
	case snapshot.File:
		r, _ := e.Open()
		data := make([]byte, e.Size)
		r.Read(data)
		return node{record.KindFile, e.Mode, e.ModTime, string(data), e.Xattrs["user.m"]}
	case snapshot.Symlink:
		return node{record.KindSymlink, 0o777, e.ModTime, e.Target, ""}
	case snapshot.Fifo:
		return node{record.KindFifo, e.Mode, e.ModTime, "", ""}
	}
	return node{record.KindDir, e.Mode, e.ModTime, "", e.Xattrs["user.m"]}
}

// undo undoes all but the first n events, as the rules of docs/root.md say.
func (m *model) undo(n int, force bool, preserve map[string]bool) {
	old := slices.Clone(m.left)
	m.left = nil
	for len(m.log) > n {
		ev := m.log[len(m.log)-1]
		m.log = m.log[:len(m.log)-1]
		m.undoEvent(ev, force, preserve)
	}
	if n > 0 {
		m.left = append(m.left, old...)
		return
	}
	slices.SortFunc(old, func(x, y mEvent) int { return y.seq - x.seq })
	for _, ev := range old {
		m.undoEvent(ev, force, preserve)
	}
}

func (m *model) undoEvent(ev mEvent, force bool, preserve map[string]bool) {
	var left []mChange
	for _, c := range slices.Backward(ev.changes) {
		stay := func(why bool) {
			left = append(left, c)
			preserve[c.p] = preserve[c.p] || why
		}
		cur, there := m.files[c.p]
		in := len(c.before) > 0
		switch {
		case c.preserved:
			preserve[c.p] = preserve[c.p] || !force
			continue
		case c.lost:
			continue
		case !m.files.isDir(path.Dir(c.p)):
			if in {
				stay(true)
			}
			continue
		case c.was != nil:
			if cur.kind != record.KindDir || !c.asApplied(&cur) && !force {
				stay(true)
				continue
			}
			was := *c.was
			if !cur.mtime.Equal(c.now.mtime) {
				was.mtime = cur.mtime
			}
			m.files[c.p] = was
			continue
		case !there && !in:
			continue
		case force || !there && c.kind == record.KindGone:
		case !there || c.kind == record.KindGone:
			stay(true)
			continue
		case c.kind == record.KindDir && cur.kind == record.KindDir:
			empty := true
			for q := range m.files {
				empty = empty && path.Dir(q) != c.p
			}
			if !empty {
				stay(false)
				continue
			}
		case !c.asApplied(&cur):
			stay(true)
			continue
		}
		m.files.take(c.p)
		maps.Copy(m.files, c.before)
	}
	if len(left) > 0 {
		slices.Reverse(left)
		m.left = append(m.left, mEvent{seq: ev.seq, key: ev.key, changes: left})
	}
}

var modelDirs = []string{"a", "b", "a/x", "a/y", "b/x", "a/x/q"}

// randomStep makes a step whose entries can be applied to any tree.
func randomStep(r *rand.Rand, name string, links bool) mStep {
	s := mStep{name: name}
	used := make(map[string]bool)
	var files []string
	at := func() time.Time { return time.Unix(1_500_000_000+int64(r.IntN(5)), int64(r.IntN(3))*123456789) }
	mode := func() uint32 { return []uint32{0o644, 0o600, 0o755, 0o4755, 0o444}[r.IntN(5)] }
	var dir func(p string) bool
	dir = func(p string) bool {
		if p == "." {
			return true
		}
		if !dir(path.Dir(p)) {
			return false
		}
		if used[p] {
			return slices.Contains(modelDirs, p) && !used["nodir:"+p]
		}
		used[p] = true
		e := with(dirEntry(p), func(e *snapshot.Entry) {
			e.ModTime, e.Mode = at(), []uint32{0o755, 0o700, 0o1777, 0o555, 0, 0o300, 0o600}[r.IntN(7)]
			e.Implied = r.IntN(4) == 0
			if r.IntN(4) == 0 && !e.Implied && os.Geteuid() == 0 { // of others they are not compared
				e.Xattrs = map[string]string{"user.m": strconv.Itoa(r.IntN(3))}
			}
		})
		s.entries = append(s.entries, e)
		if r.IntN(8) == 0 {
			s.entries = append(s.entries, &snapshot.Entry{Path: p, Kind: snapshot.Opaque})
		}
		return true
	}
	for range 1 + r.IntN(4) {
		d := append([]string{"."}, modelDirs...)[r.IntN(len(modelDirs)+1)]
		if !dir(d) {
			continue
		}
		for range 1 + r.IntN(3) {
			p := path.Join(d, fmt.Sprintf("f%d", r.IntN(4)))
			if r.IntN(8) == 0 { // in place of a directory
				p = modelDirs[r.IntN(len(modelDirs))]
				if path.Dir(p) != d {
					continue
				}
			}
			if used[p] {
				continue
			}
			used[p], used["nodir:"+p] = true, true
			switch r.IntN(8) {
			case 0:
				s.entries = append(s.entries, gone(p))
			case 1:
				s.entries = append(s.entries, with(symlink(p, "nowhere"+strconv.Itoa(r.IntN(3))), func(e *snapshot.Entry) { e.ModTime = at() }))
			case 2:
				s.entries = append(s.entries, &snapshot.Entry{Path: p, Kind: snapshot.Fifo, Mode: mode(), UID: os.Geteuid(), GID: os.Getegid(), ModTime: at()})
			case 3:
				if len(files) > 0 && links {
					s.entries = append(s.entries, &snapshot.Entry{Path: p, Kind: snapshot.Link, Target: files[r.IntN(len(files))]})
					break
				}
				fallthrough
			default:
				s.entries = append(s.entries, with(file(p, strconv.Itoa(r.IntN(1000))), func(e *snapshot.Entry) {
					e.Mode, e.ModTime = mode(), at()
					if r.IntN(4) == 0 {
						e.Xattrs = map[string]string{"user.m": strconv.Itoa(r.IntN(3))}
					}
				}))
				files = append(files, p)
			}
		}
	}
	return s
}

// world is a root with its model.
type world struct {
	t      *testing.T
	r      *rand.Rand
	dir    string
	model  *model
	pool   []mStep
	next   int
	edited bool // something was changed by hand since the root was made

	// byHand is a root in which things are changed by hand. It has no hard links:
	// what is written into one of two names changes the other too, which may be an
	// original, and the model doesn't know that.
	byHand bool
	base   string
	did    []string
}

func (w *world) fresh() {
	if w.dir != "" {
		removeAllModes(w.dir)
	}
	w.dir = fastDir(w.t)
	root := filepath.Join(w.dir, "root")
	shell(w.t, w.dir, `mkdir -p root/var/lib root/a/x root/b; cd root; echo 1 > a/f0; echo 2 > a/x/f1; `+map[bool]string{false: "ln", true: "cp"}[w.byHand]+` a/f0 b/f0; ln -s nowhere b/f2; echo 3 > f3; chmod 600 f3
		[ $(id -u) != 0 ] || setfattr -n user.m -v base b 2>/dev/null || true; touch -h -d @1000000000.5 a/f0 b/f0 a/x/f1 b/f2 f3; touch -d @1000000000 a/x a b var/lib var .`)
	w.model = &model{files: readTree(w.t, root)}
	w.base = treetest.Describe(w.t, root, nil)
	w.edited, w.did = false, nil
}

func (w *world) note(format string, args ...any) { w.did = append(w.did, fmt.Sprintf(format, args...)) }

// check compares the root with the model.
func (w *world) check() {
	w.t.Helper()
	got := readTree(w.t, filepath.Join(w.dir, "root"))
	var diff []string
	for p := range got {
		if n, ok := w.model.files[p]; !ok || !n.equal(new(node(got[p]))) {
			diff = append(diff, fmt.Sprintf("%s: is %+v, want %+v", p, got[p], w.model.files[p]))
		}
	}
	for p := range w.model.files {
		if _, ok := got[p]; !ok {
			diff = append(diff, fmt.Sprintf("%s: is missing, want %+v", p, w.model.files[p]))
		}
	}
	if len(diff) > 0 {
		slices.Sort(diff)
		w.t.Fatalf("%s\nafter:\n%s", strings.Join(diff, "\n"), strings.Join(w.did, "\n"))
	}
}

// change does something to the real root, now and then with a kill in the middle,
// and to the model.
func (w *world) change(real func(l *Lock) error, ideal func(m *model)) {
	w.t.Helper()
	l := lockOf(w.t, w.dir)
	tx, pristine := l.state.Tx, l.state.Pristine()
	was := w.model.clone()
	ideal(w.model)
	if w.r.IntN(4) > 0 {
		if err := errors.Join(real(l), l.Unlock()); err != nil {
			w.t.Fatalf("%v\nafter:\n%s", err, strings.Join(w.did, "\n"))
		}
		return
	}
	n := 1 + w.r.IntN(200)
	w.note("killed at call %d", n)
	err := hooked(l.root, killedAt(n), func() error { return real(l) })
	if l.tx != nil {
		l.tx.journal.Close()
	}
	l.close()
	l = lockOf(w.t, w.dir)
	if l.state.Tx == tx {
		nothing := pristine && len(w.model.log) == 0 // nothing was applied, and is: no transaction is needed
		w.model = was
		if err == nil && !nothing {
			w.t.Fatalf("it is said to be done, and is not, after:\n%s", strings.Join(w.did, "\n"))
		}
	}
	if err := l.Unlock(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) solve() {
	var steps []mStep
	for range w.r.IntN(5) {
		s := w.pool[w.r.IntN(len(w.pool))]
		if !slices.ContainsFunc(steps, func(x mStep) bool { return x.name == s.name }) {
			steps = append(steps, s)
		}
	}
	stay := 0
	for stay < len(steps) && stay < len(w.model.log) && w.model.log[stay].key == keyOf(steps[stay].name) && !w.model.log[stay].incomplete {
		stay++
	}
	force := w.r.IntN(6) == 0
	for _, s := range steps {
		w.note("solve %s, force %t: %s", s.name, force, entryTexts(s.entries))
	}
	layer := record.LayerKeys{Name: "base"}
	for _, s := range steps {
		layer.Steps = append(layer.Steps, keyOf(s.name))
	}
	w.change(func(l *Lock) error {
		undone, err := l.Undo(context.Background(), stay, force)
		if err != nil {
			return err
		}
		w.noteUndone(undone)
		for _, s := range steps[stay:] {
			res, err := l.Apply(context.Background(), step(s.name), stream(s.entries...))
			if err != nil {
				return err
			}
			for _, p := range res.Problems {
				w.note("problem %s: %v", p.Path, p.Err)
			}
		}
		return l.Commit("test", []record.LayerKeys{layer}, nil)
	}, func(m *model) {
		preserved := make(map[string]bool)
		m.undo(stay, force, preserved)
		for _, s := range steps[stay:] {
			m.apply(s, preserved)
		}
	})
}

// inPlace does a step to the root itself, as a RUN without a sandbox does, and then
// lets clayer record it.
func (w *world) inPlace() {
	w.next++
	s := randomStep(w.r, fmt.Sprint("s", w.next), !w.byHand)
	was := maps.Clone(w.model.files)
	ev, es := w.model.adopt(s)
	w.note("in place %s: %s", s.name, entryTexts(es))
	if w.r.IntN(2) == 0 {
		w.pool[w.r.IntN(len(w.pool))] = s
	}
	if res, err := unpack.Unpack(context.Background(), filepath.Join(w.dir, "root"), stream(es...), unpack.Options{}); err != nil || len(res.Problems) > 0 {
		w.t.Fatalf("%v %v\nafter:\n%s", err, res.Problems, strings.Join(w.did, "\n"))
	}
	adopted := step(s.name)
	adopted.Before = func(p string) (*snapshot.Entry, bool) {
		n, there := was[p]
		if n.kind != record.KindDir {
			return nil, there
		}
		e := with(dirEntry(p), func(e *snapshot.Entry) { e.Mode, e.ModTime = n.mode, n.mtime })
		if n.xattr != "" {
			e.Xattrs = map[string]string{"user.m": n.xattr}
		}
		return e, true
	}
	// What is overwritten doesn't come back; and of what a kill prevented from being
	// recorded, nothing is known.
	w.edited = w.edited || slices.ContainsFunc(ev.changes, func(c mChange) bool { return c.lost })
	log := len(w.model.log)
	w.change(func(l *Lock) error {
		_, err := l.Adopt(context.Background(), adopted, stream(es...))
		return err
	}, func(m *model) {
		m.seq++
		ev.seq = m.seq
		m.log = append(m.log, ev)
	})
	w.edited = w.edited || len(w.model.log) == log
}

func entryTexts(es []*snapshot.Entry) string {
	var b strings.Builder
	for _, e := range es {
		kind := record.KindOf(e.Kind)
		if e.Kind == snapshot.Opaque {
			kind = "opaque"
		}
		fmt.Fprintf(&b, " %s:%s", e.Path, kind)
	}
	return b.String()
}

func (w *world) noteUndone(undone *Undone) {
	for _, k := range undone.Preserved {
		w.note("preserved %s: %s", k.Path, k.Why)
	}
	for _, p := range undone.Problems {
		w.note("problem %s: %v", p.Path, p.Err)
	}
}

func (w *world) undo() {
	force := w.r.IntN(3) == 0
	w.note("undo, force %t", force)
	w.change(func(l *Lock) error {
		undone, err := l.Undo(context.Background(), 0, force)
		if err != nil {
			return err
		}
		w.noteUndone(undone)
		return l.Commit("test", nil, nil)
	}, func(m *model) { m.undo(0, force, make(map[string]bool)) })
	if r, err := Open(filepath.Join(w.dir, "root"), Options{}); err != nil {
		w.t.Fatal(err)
	} else if s, err := r.State(); err != nil {
		w.t.Fatal(err)
	} else if !w.edited && s.Pristine() {
		if got := treetest.Describe(w.t, filepath.Join(w.dir, "root"), nil); got != w.base {
			w.note("and the tree is not the original one")
			treetest.Diff(w.t, w.base, got)
			w.t.Fatal(strings.Join(w.did, "\n"))
		}
	}
}

// edit changes something by hand.
func (w *world) edit() {
	var files, dirs []string
	for p, n := range w.model.files {
		switch {
		case strings.HasPrefix(p, "var"):
		case n.kind == record.KindFile:
			files = append(files, p)
		case n.kind == record.KindDir:
			dirs = append(dirs, p)
		}
	}
	slices.Sort(files)
	slices.Sort(dirs)
	if len(files) == 0 || len(dirs) == 0 {
		return
	}
	for _, d := range dirs {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(w.dir, "root", d), &st); err != nil {
			w.t.Fatal(err)
		}
		leave, err := treetest.Enter(filepath.Join(w.dir, "root", d), &st)
		if err != nil {
			w.t.Fatal(err)
		}
		defer leave()
	}
	p, d := files[w.r.IntN(len(files))], dirs[w.r.IntN(len(dirs))]
	in := func(p string) string { return filepath.Join(w.dir, "root", p) }
	w.edited = true
	w.note("by hand:")
	time.Sleep(5 * time.Millisecond) // the clock of ctimes must tick: a person is slower
	var err error
	k := w.r.IntN(7)
	if k < 2 && w.model.files[p].mode&0o200 == 0 {
		k = 2 // only root may write it
	}
	switch k {
	case 0:
		w.note("append to %s", p)
		err = os.WriteFile(in(p), []byte(w.model.files[p].data+"!"), 0o644)
	case 1: // of the same size, and time
		w.note("overwrite %s", p)
		data := strings.Repeat("x", len(w.model.files[p].data))
		err = os.WriteFile(in(p), []byte(data), 0o644)
		err = errors.Join(err, os.Chtimes(in(p), time.Time{}, w.model.files[p].mtime))
	case 2:
		w.note("chmod %s", p)
		err = os.Chmod(in(p), 0o640)
	case 3:
		w.note("rm %s", p)
		err = os.Remove(in(p))
	case 4:
		w.note("new file in %s", d)
		name := path.Join(d, fmt.Sprintf("f%d", w.r.IntN(6)))
		if _, there := w.model.files[name]; !there {
			err = os.WriteFile(in(name), []byte("mine"), 0o644)
		}
	case 5:
		w.note("chmod %s", d)
		err = os.Chmod(in(d), 0o711)
	case 6:
		w.note("rm -r %s", d)
		err = os.RemoveAll(in(d))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// Whatever is solved, edited, composed, undone, changed by hand and killed, and in
// whatever order, the root is after each step what the model says; and what undo
// gives back, where nothing was changed by hand, is the original tree.
func TestAnySequence(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("ROOTFS_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("ROOTFS_TEST_SEED=%d", seed)
	for _, user := range users {
		t.Run(user.name, func(t *testing.T) {
			alone(t, &user.attr, func() { anySequence(t, seed) })
		})
	}
}

// users are those whom a root may belong to: what root may do anyway, such as enter a
// directory of mode 0, another user has to make possible first.
var users = []struct {
	name string
	attr syscall.SysProcAttr
}{
	{name: "this user"},
	{name: "nobody", attr: syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}},
}

func anySequence(t *testing.T, seed uint64) {
	steps := rounds.Of(300, 500, 3_000)
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 1))}
	for i := range steps {
		if i%100 == 0 {
			w.byHand = i%200 > 0
			w.fresh()
			w.pool = nil
			for range 6 {
				w.next++
				w.pool = append(w.pool, randomStep(w.r, fmt.Sprint("s", w.next), !w.byHand))
			}
		}
		switch k := w.r.IntN(20); {
		case k < 10:
			w.solve()
		case k < 13:
			w.next++
			w.pool[w.r.IntN(len(w.pool))] = randomStep(w.r, fmt.Sprint("s", w.next), !w.byHand)
		case k < 15:
			w.undo()
		case k < 17:
			w.inPlace()
		case !w.byHand:
			w.undo()
		default:
			w.edit()
			w.model.files = readTree(t, filepath.Join(w.dir, "root"))
		}
		w.check()
	}
}
