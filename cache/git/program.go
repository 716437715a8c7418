package git

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A program is git with what each of its repositories needs to reach the server.
type program struct {
	path    string
	where   string // the address, as it may be shown
	config  string // the text of a repository's configuration
	own     bool   // the repository is that which the working directory is a clone of
	stall   time.Duration
	secrets []string // that no error shows
}

// newProgram reads the configuration that applies in a directory.
func newProgram(path string, addr Address, opt Options) (*program, error) {
	ctx, cancel := context.WithTimeout(context.Background(), opt.Stall) // it reads files
	defer cancel()
	p := &program{path: path, where: strings.TrimPrefix(addr.String(), "git:"), stall: opt.Stall, secrets: addr.Secrets()}
	origin := originOf(ctx, opt.Dir)
	p.own = same(origin, addr.url)

	var b strings.Builder
	b.WriteString("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
	// Snapshots are compressed already, and no two are alike: looking for
	// differences takes ten times as long as sending them.
	b.WriteString("\tcompression = 0\n\tbigFileThreshold = 1m\n\tlogAllRefUpdates = false\n\tfsync = none\n")
	setting(&b, "remote.store.url", addr.url)
	for _, kv := range settings(ctx, path, opt.Dir) {
		if name, ok := strings.CutPrefix(kv[0], "remote.origin."); ok {
			if p.own && (name == "pushurl" || name == "proxy") {
				setting(&b, "remote.store."+name, kv[1])
			}
			continue
		}
		setting(&b, kv[0], kv[1])
		p.secrets = append(p.secrets, secretsOf(kv[0], kv[1])...)
	}
	p.config = b.String()
	return p, nil
}

// settings returns what the configuration of the repository around dir says about
// reaching servers. What the user and the system have configured applies anyway.
// What git does not read, as in a directory of another user, is not taken.
func settings(ctx context.Context, path, dir string) (all [][2]string) {
	for _, scope := range []string{"--local", "--worktree"} {
		cmd := exec.CommandContext(ctx, path, "config", "--includes", scope, "--list", "-z")
		cmd.Dir, cmd.Env = dir, environ()
		out, err := cmd.Output()
		if err != nil {
			continue
		}
		for entry := range strings.SplitSeq(string(out), "\x00") {
			name, value, ok := strings.Cut(entry, "\n")
			if !ok {
				value = "true" // a name alone
			}
			kv := [2]string{name, value}
			if name != "" && reaches(name) && !slices.Contains(all, kv) { // --worktree may be the same file
				all = append(all, kv)
			}
		}
	}
	return all
}

// reaches reports whether a setting says how a server is reached.
func reaches(name string) bool {
	section, _, _ := strings.Cut(name, ".")
	switch section {
	case "http", "url", "credential":
		return true
	}
	return slices.Contains([]string{"core.sshcommand", "core.gitproxy", "core.askpass", "ssh.variant", "remote.origin.pushurl", "remote.origin.proxy"}, name)
}

// secretsOf returns the credentials in a setting: those of a header, and of a URL.
func secretsOf(name, value string) (all []string) {
	if strings.HasSuffix(name, ".extraheader") {
		words := strings.Fields(value)
		if len(words) < 2 {
			return nil
		}
		last := words[len(words)-1]
		all = append(all, last)
		if plain, err := base64.StdEncoding.DecodeString(last); err == nil {
			if _, password, ok := strings.Cut(string(plain), ":"); ok && len(password) > 3 {
				all = append(all, password)
			}
		}
		return all
	}
	if rest, ok := strings.CutPrefix(name, "url."); ok {
		if base, _, ok := strings.Cut(rest, ".insteadof"); ok {
			return Address{url: base}.Secrets()
		}
	}
	return Address{url: value}.Secrets()
}

// setting writes a setting as a configuration file has it.
func setting(b *strings.Builder, name, value string) {
	section, rest, _ := strings.Cut(name, ".")
	key := rest
	if at := strings.LastIndexByte(rest, '.'); at >= 0 {
		sub := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(rest[:at])
		section, key = section+` "`+sub+`"`, rest[at+1:]
	}
	value = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(value)
	fmt.Fprintf(b, "[%s]\n\t%s = \"%s\"\n", section, key, value)
}

// overrides are settings that the session's can't change: no hook runs, nothing but
// what is asked for is sent or fetched, and git does not tidy up.
var overrides = []string{
	"core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false",
	"protocol.version=2", "fetch.recurseSubmodules=false", "fetch.writeCommitGraph=false", "fetch.prune=false", "fetch.output=full",
	"push.followTags=false", "push.recurseSubmodules=no", "push.gpgSign=false", "push.negotiate=false", "transfer.advertiseSID=false",
	"pack.compression=0", "pack.writeReverseIndex=false", "credential.interactive=false",
}

// redirecting are the variables that would lead git to another repository, or have it
// print what it should not.
func redirecting(name string) bool {
	switch name {
	case "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR",
		"GIT_NAMESPACE", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE", "GIT_QUARANTINE_PATH", "GIT_CONFIG", "GIT_PREFIX",
		"GIT_DEFAULT_HASH", "GIT_CURL_VERBOSE", "GIT_LITERAL_PATHSPECS", "GIT_PROTOCOL", "LC_ALL", "LANGUAGE":
		return true
	}
	return strings.HasPrefix(name, "GIT_TRACE") || strings.HasPrefix(name, "GIT_AUTHOR_") || strings.HasPrefix(name, "GIT_COMMITTER_")
}

// environ returns the session's environment, as git gets it.
func environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return redirecting(name)
	})
	env = append(env, "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "SSH_ASKPASS_REQUIRE=never", "GIT_NO_REPLACE_OBJECTS=1", "GIT_ADVICE=0",
		"GIT_AUTHOR_NAME=clayer", "GIT_AUTHOR_EMAIL=clayer@localhost", "GIT_COMMITTER_NAME=clayer", "GIT_COMMITTER_EMAIL=clayer@localhost")
	for name, value := range map[string]string{
		"GIT_ALLOW_PROTOCOL":       "http:https:ssh:git:file",
		"GIT_HTTP_LOW_SPEED_LIMIT": "1000",
		"GIT_HTTP_LOW_SPEED_TIME":  "30",
	} {
		if os.Getenv(name) == "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// A call is one run of git.
type call struct {
	args    []string
	env     []string
	stdin   io.Reader
	stdout  io.Writer
	network bool // it works with a server: silence ends it, and so does too much
	limit   int64
}

var errStalled = errors.New("no progress")
var errLarge = errors.New("too large")

// run runs git in a repository.
func (r *repo) run(ctx context.Context, c call) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	args := make([]string, 0, 2*len(overrides)+len(c.args)+2)
	for _, o := range overrides {
		args = append(args, "-c", o)
	}
	cmd := exec.CommandContext(ctx, r.git.path, append(append(args, "--git-dir="+r.dir), c.args...)...)
	cmd.Dir = r.dir
	cmd.Env = append(environ(), c.env...)
	if !c.network {
		cmd.Env = append(cmd.Env, "GIT_ALLOW_PROTOCOL=none") // nothing is fetched that seems to be missing
	}
	// In a session of its own: no program of it asks at the terminal, and all of
	// them end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	said := &tail{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, c.stdout, said
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("git: %w", err)
	}
	if c.network {
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			r.watch(ctx, cancel, said, c.limit)
		}()
		defer func() { cancel(nil); <-watched }()
	}
	err := cmd.Wait()
	if err == nil {
		return nil
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errStalled), errors.Is(cause, errLarge):
		err = cause
	case cause != nil:
		return cause
	}
	return r.git.explain(c.args[0], err, said.String())
}

// watch ends git when it is silent for too long, or has fetched too much; 0: there is
// no limit.
func (r *repo) watch(ctx context.Context, cancel context.CancelCauseFunc, said *tail, limit int64) {
	tick := time.NewTicker(min(r.git.stall/4, 250*time.Millisecond))
	defer tick.Stop()
	since, seen := time.Now(), int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if n := said.n.Load(); n != seen {
				since, seen = now, n
			}
			if now.Sub(since) > r.git.stall {
				cancel(fmt.Errorf("%w for %s", errStalled, r.git.stall))
				return
			}
			if limit > 0 && r.size() > limit {
				cancel(errLarge)
				return
			}
		}
	}
}

// A tail has the end of what git prints.
type tail struct {
	n  atomic.Int64
	mu sync.Mutex
	b  bytes.Buffer
}

const tailSize = 32 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.n.Add(int64(len(p)))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b.Len() > tailSize {
		t.b.Next(t.b.Len() - tailSize/2)
	}
	t.b.Write(p[max(0, len(p)-tailSize):])
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
