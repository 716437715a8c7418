// Package doctor finds out what a machine can do, and what will be used: each
// thing by trying it, and with what would mend it.
package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/machine"
	"github.com/clayer/clayer/solver/rootfs"
)

// A Finding is one thing that was looked at.
type Finding struct {
	Area   string `json:"area"` // "machine", "sandbox", "space", "network", "github", "stores"
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Text   string `json:"text"`             // how it stands
	Remedy string `json:"remedy,omitempty"` // what to do, where it is not OK
	Store  string `json:"store,omitempty"`  // its location, where a store was tried

	Milliseconds int64 `json:"milliseconds,omitempty"`
	Rate         int64 `json:"bytesPerSecond,omitempty"`

	Cause Cause `json:"-"` // for programs that know a remedy of their own; "" for most
}

// A Cause is what a finding comes from.
type Cause string

// The causes for which a program may have a remedy of its own.
const (
	NotEphemeral Cause = "not ephemeral" // nothing says that the machine is given up after the session
	Unprivileged Cause = "unprivileged"  // the process has no capabilities
	LittleSpace  Cause = "little space"
	ReadOnly     Cause = "read-only"   // the file system can't be written
	NoCTime      Cause = "no ctime"    // ctime does not show every change
	Refused      Cause = "refused"     // by a proxy
	Unreachable  Cause = "unreachable" // the host, by the network
	StoreFailed  Cause = "store failed"
)

// A Target is what is looked at.
type Target struct {
	Root    string // the root that would be made
	Cache   string // the directory for snapshots and downloads
	Environ []string
	Token   string // the name of the variable or flag that has the token; "" for none

	GitHub *github.Client // nil: the network is not asked
	Repo   github.Repo    // of --repo; zero for none
	Stores []cache.Store

	Network *transfer.Network // that the stores use, for Stores; nil: hosts are not listed

	RootCAs func() (*x509.CertPool, error) // nil: x509.SystemCertPool
}

// limit bounds what is asked of the network.
const limit = 8 * time.Second

// Examine looks at everything, the network side by side. What is not OK is no
// error: it may not be needed.
func Examine(ctx context.Context, t Target) []Finding {
	var wg sync.WaitGroup
	parts := make([][]Finding, 5)
	for i, look := range []func(context.Context) []Finding{t.machine, t.sandbox, t.space, t.network, t.stores} {
		wg.Go(func() { parts[i] = look(ctx) })
	}
	wg.Wait()
	return slices.Concat(parts...)
}

func (t *Target) variable(name string) string {
	for _, kv := range t.Environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

func (t *Target) machine(ctx context.Context) []Finding {
	ephemeral := Finding{Area: "machine", Name: "ephemeral", OK: true}
	if sign := machine.Ephemeral(t.Environ); sign != "" {
		ephemeral.Text = "yes, by " + sign + ": solve changes / without being asked"
	} else {
		ephemeral.Text, ephemeral.Cause = "no sign of it", NotEphemeral
	}
	base := Finding{Area: "machine", Name: "base", OK: true, Text: machine.Platform(ctx, t.Root, t.variable("PATH")) + ": enters every key"}
	state := Finding{Area: "machine", Name: "state", OK: true}
	root, err := rootfs.Open(t.Root, rootfs.Options{Durability: machine.Durability(t.Environ, durability.Auto)})
	var st *record.State
	if err == nil {
		st, err = root.State()
	}
	var cut bool
	if err == nil {
		cut, err = root.CutOff(st)
	}
	switch {
	case err != nil:
		state.OK, state.Text, state.Remedy = false, err.Error(), "clayer status says more"
	case cut:
		state.OK, state.Text, state.Remedy = false, "a command is changing the root, or was cut off", "clayer verify rolls back what is half done"
	case len(st.Layers) == 0:
		state.Text = "nothing applied, " + root.StateDir().String()
	default:
		var names []string
		for _, l := range st.Layers {
			names = append(names, l.Name)
		}
		state.Text = strings.Join(names, ", ") + " applied, " + root.StateDir().String()
		if st.Platform != "" {
			base.Text = st.Platform + ": enters every key, as it was before the first solve"
		}
	}
	power := Finding{Area: "machine", Name: "durability", OK: true}
	if root != nil {
		for i, place := range root.Durability() {
			if i > 0 {
				power.Text += "; the state is "
			}
			power.Text += place.String()
		}
	}
	return []Finding{ephemeral, base, state, power}
}

// little is how much free space is little, in bytes.
const little = 2 << 30

func (t *Target) space(context.Context) []Finding {
	var list []Finding
	for _, place := range []struct{ name, path, remedy string }{
		{"root", t.Root, "a smaller environment, or a root on another disk"},
		{"cache", t.Cache, "a cache directory on another disk, or fewer snapshots in it"},
		{"temporary files", os.TempDir(), "TMPDIR on another disk"},
	} {
		if place.path == "" {
			continue // why, the stores say
		}
		f := Finding{Area: "space", Name: place.name}
		kind, free, readOnly, err := fileSystem(existing(place.path))
		switch {
		case err != nil:
			f.Text = err.Error()
		case readOnly:
			f.Text, f.Remedy, f.Cause = place.path+": "+kind+", read-only", "another one, on a disk that can be written", ReadOnly
		case free < little:
			f.Text, f.Remedy, f.Cause = fmt.Sprintf("%s: %s, only %s free", place.path, kind, sizes.Format(free)), place.remedy, LittleSpace
		default:
			f.OK, f.Text = true, fmt.Sprintf("%s: %s, %s free", place.path, kind, sizes.Format(free))
		}
		list = append(list, f)
	}
	return list
}

// existing returns the nearest directory above a path that is there.
func existing(path string) string {
	for p := path; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); err == nil || p == filepath.Dir(p) {
			return p
		}
	}
}

func (t *Target) network(ctx context.Context) []Finding {
	var list []Finding
	proxy := ""
	for _, name := range []string{"HTTPS_PROXY", "https_proxy"} {
		proxy = cmp.Or(proxy, t.variable(name))
	}
	way := Finding{Area: "network", Name: "proxy", OK: true, Text: "none"}
	if proxy != "" {
		way.Text = transfer.Redact(proxy)
		if u, err := url.Parse(proxy); err != nil || u.Host == "" {
			way.OK, way.Text, way.Remedy = false, "HTTPS_PROXY is no URL", "HTTPS_PROXY=http://HOST:PORT"
		}
	}
	ca := Finding{Area: "network", Name: "certificates", OK: true, Text: "the system's"}
	rootCAs := t.RootCAs
	if rootCAs == nil {
		rootCAs = x509.SystemCertPool
	}
	if pool, err := rootCAs(); err != nil || pool.Equal(x509.NewCertPool()) {
		ca.OK, ca.Text, ca.Remedy = false, "none: every HTTPS server is refused", "install ca-certificates, or SSL_CERT_FILE=FILE.pem"
	}
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if path := t.variable(name); path != "" {
			ca.Text = name + "=" + path
			if _, err := os.Stat(path); err != nil {
				ca.OK, ca.Text, ca.Remedy = false, err.Error(), "unset "+name+", or the path of the certificates"
			}
		}
	}
	list = append(list, way, ca)
	if t.GitHub == nil {
		return list
	}
	return append(list, t.github(ctx)...)
}

func (t *Target) github(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	reached := make(map[string]Finding)
	var access github.Access
	var accessErr error
	hosts := t.GitHub.Hosts()
	for what, u := range hosts {
		wg.Go(func() {
			f := Finding{Area: "github", Name: what, OK: true}
			start := time.Now()
			err := t.GitHub.Reach(ctx, u)
			f.Text = fmt.Sprintf("%s answers in %d ms", u.Host, time.Since(start).Milliseconds())
			if err != nil {
				f.OK, f.Text = false, u.Host+": "+t.refusal(err)
				f.Remedy, f.Cause = t.remedy(err)
			}
			mu.Lock()
			reached[what] = f
			mu.Unlock()
		})
	}
	wg.Go(func() { access, accessErr = t.GitHub.Access(ctx) })
	wg.Wait()
	var list []Finding
	reasons := make(map[string]bool)
	for _, what := range slices.Sorted(maps.Keys(reached)) {
		f := reached[what]
		list = append(list, f)
		_, why, _ := strings.Cut(f.Text, ": ")
		reasons[fmt.Sprint(f.OK, why)] = true
	}
	if api := reached["API"]; !api.OK {
		if len(list) > 1 && len(reasons) == 1 { // one cause, reported once
			_, why, _ := strings.Cut(api.Text, ": ")
			api.Name, api.Text = "hosts", fmt.Sprintf("none of %d: %s", len(list), why)
			return []Finding{api}
		}
		return list
	}
	return append(list, t.clock(access, accessErr), t.token(access, accessErr), limits(access))
}

// reason is an error on one line, without what the line says already.
func reason(err error) string {
	var dns *net.DNSError
	var request *url.Error
	switch {
	case errors.As(err, &dns):
		return "its name can't be looked up: " + dns.Err
	case errors.As(err, &request):
		err = request.Err
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

// refusal is the reason why one of GitHub's hosts does not answer, of which the line has the
// name already.
func (t *Target) refusal(err error) string {
	var proxy *transfer.ProxyError
	switch {
	case errors.As(err, &proxy):
		return refused(proxy)
	case github.Is(err, github.Blocked) && t.GitHub.Proxied():
		return ownOnly
	case github.Is(err, github.Blocked):
		return "a proxy or firewall answers 403 Forbidden in its place"
	}
	return reason(err)
}

// refused says what a proxy answers instead of connecting to a host.
func refused(e *transfer.ProxyError) string {
	return fmt.Sprintf("refused by the proxy: %d %s", e.Code, http.StatusText(e.Code))
}

// remedy says what to do where one of GitHub's hosts does not answer.
func (t *Target) remedy(err error) (string, Cause) {
	switch {
	case github.Is(err, github.Blocked) && t.GitHub.Proxied():
		return ownOnlyRemedy, ""
	case github.Is(err, github.Blocked):
		err = &transfer.ProxyError{}
	}
	return unreachable(err)
}

// unreachable says what to do where a host does not answer.
func unreachable(err error) (remedy string, cause Cause) {
	var authority x509.UnknownAuthorityError
	var proxy *transfer.ProxyError
	switch {
	case errors.As(err, &authority), strings.Contains(err.Error(), "x509"):
		return "SSL_CERT_FILE=FILE.pem with the proxy's certificate, and the system's too", ""
	case errors.As(err, &proxy):
		return "have the proxy allow this host; until then a store in a directory", Refused
	}
	return "a network, or HTTPS_PROXY; without it, a store in a directory", Unreachable
}

// skew is how far clocks may differ.
const skew = 5 * time.Minute

func (t *Target) clock(a github.Access, err error) Finding {
	f := Finding{Area: "github", Name: "clock", OK: true, Text: "as GitHub's"}
	if err != nil {
		f.Text = "not compared"
		return f
	}
	if off := a.Ahead.Abs(); off > 2*time.Second {
		way := "earlier than"
		if a.Ahead < 0 {
			way = "later than"
		}
		f.Text = fmt.Sprintf("%s %s GitHub's", off, way)
		if off > skew {
			f.OK, f.Remedy = false, "set the clock: certificates and signed addresses are refused by it"
		}
	}
	return f
}

func (t *Target) token(a github.Access, err error) Finding {
	f := Finding{Area: "github", Name: "token"}
	var ge *github.Error
	switch {
	case t.Token == "":
		f.OK, f.Text = true, "none: public repositories can be read, nothing is stored there"
		if t.Repo != (github.Repo{}) {
			f.OK, f.Remedy = false, "GH_TOKEN, with contents: write, to store in "+t.Repo.String()
		}
	case errors.As(err, &ge) && ge.Kind == github.BadToken:
		f.Text, f.Remedy = t.Token+" is not accepted", "a new token in "+t.Token
	case err != nil:
		f.Text, f.Remedy = t.Token+": "+reason(err), "see above"
	case len(a.Scopes) > 0:
		f.OK, f.Text = true, t.Token+", scopes "+strings.Join(a.Scopes, ", ")
	default:
		f.OK, f.Text = true, t.Token+" is accepted; it reports no scopes, as fine-grained ones do"
	}
	return f
}

func limits(a github.Access) Finding {
	f := Finding{Area: "github", Name: "rate limit", OK: true, Text: "none reported"}
	if a.Limit > 0 {
		f.Text = fmt.Sprintf("%d of %d API requests left", a.Remaining, a.Limit)
		if a.Remaining == 0 {
			f.OK, f.Remedy = false, "wait until "+a.Reset.Local().Format("15:04")+", or a token: it has 5000 an hour"
		}
	}
	return f
}

func (t *Target) stores(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	list := make([]Finding, len(t.Stores))
	var wg sync.WaitGroup
	for i, s := range t.Stores {
		wg.Go(func() {
			f := Finding{Area: "stores", Name: s.Name(), OK: true}
			text, _, err := read(ctx, s)
			if err != nil {
				f.OK, f.Text, f.Remedy, f.Cause = false, reason(err), "a build goes on without a store that fails, unless it requires one", StoreFailed
			} else {
				f.Text = text
			}
			list[i] = f
		})
	}
	wg.Wait()
	if t.GitHub != nil && t.Token != "" && t.Repo != (github.Repo{}) {
		f := Finding{Area: "stores", Name: "push", OK: true, Text: t.Token + " may write to " + t.Repo.String()}
		may, err := t.GitHub.MayPush(ctx, t.Repo)
		switch {
		case err != nil:
			f.OK, f.Text, f.Remedy = false, reason(err), "see above"
		case !may:
			f.OK, f.Text, f.Remedy = false, t.Token+" may not write to "+t.Repo.String(), "a token with contents: write"
		}
		list = append(list, f)
	}
	return list
}

func contents(ms []cache.Manifest) string {
	if len(ms) == 0 {
		return "no layers yet"
	}
	var size int64
	for _, m := range ms {
		for _, d := range m.Steps {
			size += d.Size
		}
	}
	return fmt.Sprintf("%s, %s at most", sizes.Count(len(ms), "layer"), sizes.Format(size))
}
