package git

import (
	"context"
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

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/git/remote"
)

// A program is git with what each of its repositories needs to reach the server.
type program struct {
	path    string
	where   string // the address, as it may be shown
	config  string // the text of a repository's configuration
	own     bool   // the repository is that which the working directory is a clone of
	stall   time.Duration
	address string // with a login, if one was given
	login   login

	certificates []byte // that git trusts; nil for its own

	sha256 atomic.Bool // the ids of its objects are of SHA-256

	mu      sync.Mutex
	secrets []string // that no error shows
}

// zero returns the id of no object.
func (p *program) zero() object {
	if p.sha256.Load() {
		return object(strings.Repeat("0", 64))
	}
	return object(strings.Repeat("0", 40))
}

// hide keeps a secret out of errors.
func (p *program) hide(secret string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(secret) > 3 {
		p.secrets = append(p.secrets, secret)
	}
}

// newProgram reads the configuration that applies in a directory.
func newProgram(path string, addr Address, opt Options) (*program, error) {
	ctx, cancel := context.WithTimeout(context.Background(), opt.Stall) // it reads files
	defer cancel()
	p := &program{path: path, address: addr.URL, where: strings.TrimPrefix(addr.String(), "git:"), stall: opt.Stall, secrets: addr.Secrets()}
	p.login.state, p.login.found = given(addr.URL)
	origin := remote.OriginOf(ctx, opt.Dir)
	p.own = remote.Same(origin, addr.URL)

	var b strings.Builder
	b.WriteString("[core]\n\trepositoryformatversion = 1\n\tbare = true\n")
	// Snapshots are compressed already, and no two are alike: looking for
	// differences takes ten times as long as sending them.
	b.WriteString("\tcompression = 0\n\tbigFileThreshold = 1m\n\tlogAllRefUpdates = false\n\tfsync = none\n")
	for _, kv := range remote.Settings(ctx, path, opt.Dir) {
		if name, ok := strings.CutPrefix(kv[0], "remote.origin."); ok {
			if p.own && (name == "pushurl" || name == "proxy") {
				remote.Write(&b, "remote.store."+name, kv[1])
			}
			continue
		}
		remote.Write(&b, kv[0], kv[1])
		p.secrets = append(p.secrets, remote.SecretsOf(kv[0], kv[1])...)
	}
	p.config, p.certificates = b.String(), remote.Certificates(ctx, path, opt.Dir)
	return p, nil
}

// overrides are settings that the session's can't change: no hook runs, nothing but
// what is asked for is sent or fetched, and git does not tidy up.
var overrides = []string{
	"core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false",
	"protocol.version=2", "fetch.recurseSubmodules=false", "fetch.writeCommitGraph=false", "fetch.prune=false", "fetch.output=full",
	"push.followTags=false", "push.recurseSubmodules=no", "push.gpgSign=false", "push.negotiate=false", "transfer.advertiseSID=false",
	"pack.compression=0", "pack.writeReverseIndex=false", "credential.interactive=false", "advice.graftFileDeprecated=false",
}

// A call is one run of git.
type call struct {
	args     []string
	env      []string
	settings []string // beside those of overrides
	stdin    io.Reader
	stdout   io.Writer
	network  bool // it works with a server: silence ends it, and so does too much
	limit    int64
	patient  bool // the server may work for a while, and say nothing, when it has all
}

// patience is how much longer a server may be silent that has got a push: it looks at all
// of it before it answers.
const patience = 5

const lowSpeedTime = "GIT_HTTP_LOW_SPEED_TIME"

var errStalled = errors.New("no progress")
var errLarge = errors.New("too large")

// run runs git in a repository.
func (r *repo) run(ctx context.Context, c call) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	args := make([]string, 0, 2*len(overrides)+len(c.args)+2)
	for _, o := range slices.Concat(overrides, c.settings) {
		args = append(args, "-c", o)
	}
	cmd := exec.CommandContext(ctx, r.git.path, append(append(args, "--git-dir="+r.dir), c.args...)...)
	cmd.Dir = r.dir
	cmd.Env = append(remote.Environ(), c.env...)
	if len(c.settings) > 0 {
		cmd.Env = append(cmd.Env, "GIT_ASKPASS=")
	}
	if !c.network {
		cmd.Env = append(cmd.Env, "GIT_ALLOW_PROTOCOL=none") // nothing is fetched that seems to be missing
	}
	// In a session of its own: no program of it asks at the terminal, and all of
	// them end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	quiet := r.git.stall
	if c.patient {
		quiet *= patience
		if os.Getenv(lowSpeedTime) == "" {
			cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", lowSpeedTime, 30*patience))
		}
	}
	said := &remote.Tail{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, c.stdout, said
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("git: %w", err)
	}
	if c.network {
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			r.watch(ctx, cancel, said, quiet, c.limit)
		}()
		defer func() { cancel(nil); <-watched }()
	}
	err := cmd.Wait()
	if c.network {
		cache.Answered(ctx) // or it says why there is no answer
	}
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
func (r *repo) watch(ctx context.Context, cancel context.CancelCauseFunc, said *remote.Tail, quiet time.Duration, limit int64) {
	tick := time.NewTicker(min(quiet/4, 250*time.Millisecond))
	defer tick.Stop()
	since, seen := time.Now(), int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if n := said.Total(); n != seen {
				since, seen = now, n
				cache.Answered(ctx)
			}
			if now.Sub(since) > quiet {
				cancel(fmt.Errorf("%w for %s", errStalled, quiet))
				return
			}
			if limit > 0 && r.size() > limit {
				cancel(errLarge)
				return
			}
		}
	}
}
