package mounts

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/mount"
	"github.com/clayer/clayer/internal/workdir"
	"github.com/clayer/clayer/solver/sandbox"
)

// An Agent is an SSH agent that RUNs may ask for signatures.
type Agent struct {
	Socket string // its path, which is absolute
}

// A MissingAgentError says that nobody gave an agent that a RUN requires.
type MissingAgentError struct{ ID string }

func (e *MissingAgentError) Error() string {
	return fmt.Sprintf("agent %q is required, and not given", e.ID)
}

// agent makes a socket that leads to an agent for as long as the RUN has it, and sets the variable
// that says where it is, as BuildKit does, unless the file of the RUN does.
func (rm *Mounts) agent(src *Source, run *frontend.Run, m *frontend.Mount, out *sandbox.Mount, env *[]string) (given bool, err error) {
	agent, ok := src.Agents[m.ID]
	if !ok && m.Required {
		return false, &MissingAgentError{ID: m.ID}
	}
	if !ok {
		return false, nil
	}
	f, err := forward(agent.Socket, m.Mount)
	if err != nil {
		return false, err
	}
	rm.agents = append(rm.agents, f)
	out.Source, out.Socket = f.path, true
	where := m.Target
	unnamed := strings.HasPrefix(m.Target, mount.AgentTarget)
	if src.OnRoot && unnamed {
		where = f.path // a plain user could make nothing at the target
	}
	isNamed := func(v frontend.Var) bool { return v.Name == mount.AgentVar }
	if !rm.hasAgent && !slices.ContainsFunc(slices.Concat(run.Env, run.Args), isNamed) {
		*env = append(slices.DeleteFunc(*env, func(kv string) bool { return strings.HasPrefix(kv, mount.AgentVar+"=") }), mount.AgentVar+"="+where)
	}
	rm.hasAgent = true
	return !src.OnRoot || !unnamed, nil
}

// A forwarder passes connections on to an agent.
type forwarder struct {
	path   string // of its socket
	dir    *workdir.Dir
	agent  string
	listen net.Listener

	mu     sync.Mutex
	closed bool
	conns  []net.Conn
	done   sync.WaitGroup
}

// forward listens at a socket with the mode and the owner of a mount. The agent itself sees this
// process, and it may allow this user alone.
func forward(agent string, m mount.Mount) (_ *forwarder, err error) {
	f := &forwarder{agent: agent}
	if f.dir, err = workdir.New(""); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.dir.Remove()
		}
	}()
	if err := os.Chmod(f.dir.Path, 0o711); err != nil { // the socket has a mode of its own
		return nil, err
	}
	f.path = filepath.Join(f.dir.Path, "agent")
	dir, err := os.Open(f.dir.Path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// By the descriptor: a socket's path has 107 bytes at most.
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/agent", dir.Fd()))
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	f.listen = l
	if os.Geteuid() == 0 {
		err = os.Chown(f.path, m.UID, m.GID)
	}
	if err == nil {
		err = os.Chmod(f.path, os.FileMode(m.Mode&0o777))
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	f.done.Go(f.serve)
	return f, nil
}

func (f *forwarder) serve() {
	for {
		in, err := f.listen.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("unix", f.agent)
		if err != nil || !f.add(in, out) {
			in.Close()
			continue
		}
		pass := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			_ = to.(*net.UnixConn).CloseWrite()
		}
		f.done.Go(func() { pass(out, in) })
		f.done.Go(func() { pass(in, out) })
	}
}

// add remembers connections, which close ends; it reports false after that.
func (f *forwarder) add(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.conns = append(f.conns, conns...)
	return true
}

func (f *forwarder) close() {
	f.listen.Close()
	f.mu.Lock()
	f.closed = true
	for _, c := range f.conns {
		c.Close()
	}
	f.mu.Unlock()
	f.done.Wait()
	f.dir.Remove()
}
