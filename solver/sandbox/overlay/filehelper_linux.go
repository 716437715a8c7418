package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/beneath"
	"github.com/clayer/clayer/internal/clamp"
	"github.com/clayer/clayer/internal/inherited"
	"github.com/clayer/clayer/internal/tree"
	"github.com/clayer/clayer/internal/wire"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/helper"
	"github.com/clayer/clayer/solver/sandbox/internal/descriptor"
	"github.com/clayer/clayer/solver/sandbox/internal/treecopy"
	"github.com/clayer/clayer/solver/sandbox/internal/userns"
)

// files looks after the files of uppers, in the user namespace of RUN: what RUN makes as
// root of a user namespace (files of mode 0, directories that may not be entered)
// is closed to the very user that owns it, outside of a namespace.
type files interface {
	read(ctx context.Context, dir string, previous *tree.Reading) (*tree.Reading, error)
	open(dir, path string) (*os.File, error) // for reading
	copy(ctx context.Context, from, to string, skip []string) error
	remove(dir string) error

	// clamp gives what was written, as the last reading of dir has it, the time, and returns
	// what dir is then.
	clamp(ctx context.Context, dir string, last *tree.Reading, written []tree.Fresh, to time.Time) (*tree.Reading, error)

	close() error
}

// direct is for the machine's root.
type direct struct{ ownerless bool }

func (d direct) read(ctx context.Context, dir string, previous *tree.Reading) (*tree.Reading, error) {
	return tree.Read(ctx, dir, tree.Options{Ownerless: d.ownerless, Sums: tree.SumLinked, Previous: previous})
}

func (direct) open(dir, path string) (*os.File, error) {
	return beneath.Open(dir, path, unix.O_RDONLY)
}

func (direct) copy(ctx context.Context, from, to string, skip []string) error {
	return treecopy.Tree(ctx, from, to, tree.Hide(skip))
}

func (direct) clamp(_ context.Context, dir string, last *tree.Reading, written []tree.Fresh, to time.Time) (*tree.Reading, error) {
	if err := clamp.Set(dir, clamp.Plan(written), to); err != nil {
		return nil, err
	}
	return last, last.Restamped(dir, written)
}

func (direct) remove(dir string) error { return os.RemoveAll(dir) }
func (direct) close() error            { return nil }

// RemoveAll removes a directory with all that a RUN in a user namespace of this
// user left in it: directories that cannot be entered, and files of other users.
func RemoveAll(dir string) error {
	k, err := startFileHelper(userns.Subordinate())
	if err != nil {
		return err
	}
	return errors.Join(k.remove(dir), k.close())
}

// fileHelperName is argv[0] of a file helper: this program once more, as root of a user
// namespace, doing for its parent what direct does. Open files come back as
// descriptors.
const fileHelperName = "clayer-sandbox-files"

func init() { reexec.Register(fileHelperName, fileHelperMain) }

// fileHelper is the parent's end. It is used by one view, but contents are opened
// by the goroutine that packs them: the lock keeps question and answer together.
type fileHelper struct {
	mu   sync.Mutex
	cmd  *exec.Cmd
	conn *os.File
}

type request struct {
	Op   string
	Dir  string
	Path string
	To   string
	Skip []string

	Items []clamp.Item // of "clamp"
	Time  time.Time

	Ownerless bool // of "begin", which comes first
}

type reply struct {
	Err   string
	Errno syscall.Errno
	File  bool // a descriptor comes with it
}

// Both fit into one packet: a path is no longer than a process's arguments, and of items
// there are no more than half of that.
const packetSize = 128 << 10

func startFileHelper(ids *userns.IDs) (*fileHelper, error) {
	if err := sandbox.CheckMain(); err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "file helper"), os.NewFile(uintptr(fds[1]), "file helper")
	cmd := &exec.Cmd{
		Path: helper.Program, Args: []string{fileHelperName}, Env: []string{},
		Stderr: os.Stderr, ExtraFiles: []*os.File{theirs},
		// In a process group of its own: Ctrl-C ends this process, which needs the file helper
		// to clean up.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	ids.Attr(cmd.SysProcAttr)
	err = cmd.Start()
	// With this end open here, the death of the file helper would not end a receive.
	theirs.Close()
	if err != nil {
		mine.Close()
		return nil, fmt.Errorf("start a process in a user namespace: %w", err)
	}
	k := &fileHelper{cmd: cmd, conn: mine}
	err = ids.Assign(cmd.Process.Pid)
	if err == nil {
		_, err = k.ask(request{Op: "begin", Ownerless: ids == nil})
	}
	if err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

func (k *fileHelper) ask(q request) (*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := send(int(k.conn.Fd()), q, -1); err != nil {
		return nil, fmt.Errorf("ask the file helper: %w", err)
	}
	var a reply
	fd, err := receive(int(k.conn.Fd()), &a)
	if err != nil {
		return nil, fmt.Errorf("ask the file helper: %w", err)
	}
	switch {
	case a.Errno != 0:
		return nil, &helper.RemoteError{Text: a.Err, Errno: a.Errno}
	case a.Err != "":
		return nil, errors.New(a.Err)
	case !a.File:
		return nil, nil
	}
	return os.NewFile(uintptr(fd), q.Path), nil
}

func (k *fileHelper) read(_ context.Context, dir string, _ *tree.Reading) (*tree.Reading, error) {
	f, err := k.ask(request{Op: "read", Dir: dir})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		return nil, err
	}
	r := new(tree.Reading)
	return r, r.UnmarshalBinary(b.Bytes())
}

func (k *fileHelper) open(dir, path string) (*os.File, error) {
	return k.ask(request{Op: "open", Dir: dir, Path: path})
}

func (k *fileHelper) copy(_ context.Context, from, to string, skip []string) error {
	_, err := k.ask(request{Op: "copy", Dir: from, To: to, Skip: skip})
	return err
}

func (k *fileHelper) clamp(ctx context.Context, dir string, last *tree.Reading, written []tree.Fresh, to time.Time) (*tree.Reading, error) {
	for items := clamp.Plan(written); len(items) > 0; {
		n, size := 0, 0
		for n < len(items) && (n == 0 || size+len(items[n].Path) < packetSize/2) {
			size += len(items[n].Path) + 64
			n++
		}
		if _, err := k.ask(request{Op: "clamp", Dir: dir, Items: items[:n], Time: to}); err != nil {
			return nil, err
		}
		items = items[n:]
	}
	return k.read(ctx, dir, last)
}

func (k *fileHelper) remove(dir string) error {
	_, err := k.ask(request{Op: "remove", Dir: dir})
	return err
}

func (k *fileHelper) close() error {
	return errors.Join(k.conn.Close(), k.cmd.Wait())
}

// fileHelperMain answers until the parent closes its end, or is gone. A signal to all
// processes must not end it before its parent has removed its files.
func fileHelperMain() {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	const conn = 3
	inherited.Close(conn)
	inherited.CloseOnExec()
	d := &lastReadings{direct{}, make(map[string]*tree.Reading)}
	for {
		var q request
		if _, err := receive(conn, &q); err != nil {
			unix.Exit(0)
		}
		f, err := q.do(d)
		a, fd := reply{File: f != nil}, -1
		if err != nil {
			a.Err = err.Error()
			errors.As(err, &a.Errno)
		} else if f != nil {
			fd = int(f.Fd())
		}
		if err := send(conn, a, fd); err != nil {
			unix.Exit(1)
		}
		if f != nil {
			f.Close()
		}
	}
}

// lastReadings remembers the last reading of each directory, for the next one.
type lastReadings struct {
	direct
	last map[string]*tree.Reading
}

func (q request) do(d *lastReadings) (*os.File, error) {
	ctx := context.Background()
	switch q.Op {
	case "begin":
		d.ownerless = q.Ownerless
		return nil, userns.BecomeRoot()
	case "open":
		return d.open(q.Dir, q.Path)
	case "copy":
		return nil, d.copy(ctx, q.Dir, q.To, q.Skip)
	case "remove":
		return nil, d.remove(q.Dir)
	case "clamp":
		return nil, clamp.Set(q.Dir, q.Items, q.Time)
	case "read":
		r, err := d.read(ctx, q.Dir, d.last[q.Dir])
		if err != nil {
			return nil, err
		}
		d.last[q.Dir] = r
		b, err := r.MarshalBinary()
		if err != nil {
			return nil, err
		}
		return descriptor.Memory("reading", b, 0o600)
	}
	return nil, fmt.Errorf("unknown request %q", q.Op)
}

func send(conn int, v any, fd int) error {
	var b bytes.Buffer
	if err := wire.NewEncoder(&b).Encode(v); err != nil {
		return err
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	return unix.Sendmsg(conn, b.Bytes(), rights, nil, unix.MSG_NOSIGNAL)
}

func receive(conn int, v any) (fd int, err error) {
	b, oob := make([]byte, packetSize), make([]byte, unix.CmsgSpace(4))
	n, oobn := 0, 0
	for {
		n, oobn, _, _, err = unix.Recvmsg(conn, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return -1, err
	}
	if n == 0 {
		return -1, unix.EPIPE
	}
	fd = -1
	if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) > 0 {
		if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) > 0 {
			fd = fds[0]
		}
	}
	return fd, wire.NewDecoder(bytes.NewReader(b[:n])).Decode(v)
}
