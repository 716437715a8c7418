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
}

// A Patient is what is looked at.
type Patient struct {
	Root    string // the root that would be made
	Cache   string // the directory for snapshots and downloads
	Environ []string
	Token   string // the name of the variable or flag that has the token; "" for none

	GitHub *github.Client // nil: the network is not asked
	Repo   github.Repo    // of --repo; zero for none
	Stores []cache.Store

	RootCAs func() (*x509.CertPool, error) // nil: x509.SystemCertPool
}

// limit bounds what is asked of the network.
const limit = 8 * time.Second

// Examine looks at everything, the network side by side. What is not OK is no
// error: it may not be needed.
func Examine(ctx context.Context, p Patient) []Finding {
	var wg sync.WaitGroup
	parts := make([][]Finding, 5)
	for i, look := range []func(context.Context) []Finding{p.machine, p.sandbox, p.space, p.network, p.stores} {
		wg.Go(func() { parts[i] = look(ctx) })
	}
	wg.Wait()
	return slices.Concat(parts...)
}

func (p *Patient) variable(name string) string {
	for _, kv := range p.Environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

func (p *Patient) machine(ctx context.Context) []Finding {
	ephemeral := Finding{Area: "machine", Name: "ephemeral", OK: true}
	if sign := machine.Ephemeral(p.Environ); sign != "" {
		ephemeral.Text = "yes, by " + sign + ": solve changes / without being asked"
	} else {
		ephemeral.Text = "no sign of it: solve changes / only with --yes"
	}
	base := Finding{Area: "machine", Name: "base", OK: true, Text: machine.Platform(ctx, p.Root, p.variable("PATH")) + ": enters every key"}
	state := Finding{Area: "machine", Name: "state", OK: true}
	root, err := rootfs.Open(p.Root, rootfs.Options{})
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
	return []Finding{ephemeral, base, state}
}

// little is how much free space is little, in bytes.
const little = 2 << 30

func (p *Patient) space(context.Context) []Finding {
	var list []Finding
	for _, place := range []struct{ name, path, remedy string }{
		{"root", p.Root, "a smaller environment, or --dest on another disk"},
		{"cache", p.Cache, "--cache-dir on another disk, or a smaller --cache-size"},
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
			f.Text, f.Remedy = place.path+": "+kind+", read-only", "--dest DIR, or --root DIR, on a disk that can be written"
		case free < little:
			f.Text, f.Remedy = fmt.Sprintf("%s: %s, only %s free", place.path, kind, sizes.Format(free)), place.remedy
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

func (p *Patient) network(ctx context.Context) []Finding {
	var list []Finding
	proxy := ""
	for _, name := range []string{"HTTPS_PROXY", "https_proxy"} {
		proxy = cmp.Or(proxy, p.variable(name))
	}
	way := Finding{Area: "network", Name: "proxy", OK: true, Text: "none"}
	if proxy != "" {
		way.Text = transfer.Redact(proxy)
		if u, err := url.Parse(proxy); err != nil || u.Host == "" {
			way.OK, way.Text, way.Remedy = false, "HTTPS_PROXY is no URL", "HTTPS_PROXY=http://HOST:PORT"
		}
	}
	ca := Finding{Area: "network", Name: "certificates", OK: true, Text: "the system's"}
	rootCAs := p.RootCAs
	if rootCAs == nil {
		rootCAs = x509.SystemCertPool
	}
	if pool, err := rootCAs(); err != nil || pool.Equal(x509.NewCertPool()) {
		ca.OK, ca.Text, ca.Remedy = false, "none: every HTTPS server is refused", "install ca-certificates, or SSL_CERT_FILE=FILE.pem"
	}
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if path := p.variable(name); path != "" {
			ca.Text = name + "=" + path
			if _, err := os.Stat(path); err != nil {
				ca.OK, ca.Text, ca.Remedy = false, err.Error(), "unset "+name+", or the path of the certificates"
			}
		}
	}
	list = append(list, way, ca)
	if p.GitHub == nil {
		return list
	}
	return append(list, p.github(ctx)...)
}

func (p *Patient) github(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	reached := make(map[string]Finding)
	var access github.Access
	var accessErr error
	hosts := p.GitHub.Hosts()
	for what, u := range hosts {
		wg.Go(func() {
			f := Finding{Area: "github", Name: what, OK: true}
			start := time.Now()
			err := p.GitHub.Reach(ctx, u)
			f.Text = fmt.Sprintf("%s answers in %d ms", u.Host, time.Since(start).Milliseconds())
			if err != nil {
				f.OK, f.Text, f.Remedy = false, u.Host+": "+reason(err), unreachable(err)
			}
			mu.Lock()
			reached[what] = f
			mu.Unlock()
		})
	}
	wg.Go(func() { access, accessErr = p.GitHub.Access(ctx) })
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
			return []Finding{{"github", "hosts", false, fmt.Sprintf("none of %d: %s", len(list), why), api.Remedy}}
		}
		return list
	}
	return append(list, p.clock(access, accessErr), p.token(access, accessErr), limits(access))
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

// unreachable says what to do where a host does not answer.
func unreachable(err error) string {
	var authority x509.UnknownAuthorityError
	var proxy *transfer.ProxyError
	switch {
	case errors.As(err, &authority), strings.Contains(err.Error(), "x509"):
		return "SSL_CERT_FILE=FILE.pem with the proxy's certificate, and the system's too"
	case errors.As(err, &proxy):
		return "have the proxy allow this host; until then --store dir:PATH"
	}
	return "a network, or HTTPS_PROXY; without it, --store dir:PATH"
}

// skew is how far clocks may differ.
const skew = 5 * time.Minute

func (p *Patient) clock(a github.Access, err error) Finding {
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

func (p *Patient) token(a github.Access, err error) Finding {
	f := Finding{Area: "github", Name: "token"}
	var ge *github.Error
	switch {
	case p.Token == "":
		f.OK, f.Text = true, "none: public repositories can be read, nothing is stored there"
		if p.Repo != (github.Repo{}) {
			f.OK, f.Remedy = false, "GH_TOKEN, with contents: write, to store in "+p.Repo.String()
		}
	case errors.As(err, &ge) && ge.Kind == github.BadToken:
		f.Text, f.Remedy = p.Token+" is not accepted", "a new token in "+p.Token
	case err != nil:
		f.Text, f.Remedy = p.Token+": "+reason(err), "see above"
	case len(a.Scopes) > 0:
		f.OK, f.Text = true, p.Token+", scopes "+strings.Join(a.Scopes, ", ")
	default:
		f.OK, f.Text = true, p.Token+" is accepted; it reports no scopes, as fine-grained ones do"
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

func (p *Patient) stores(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	list := make([]Finding, len(p.Stores))
	var wg sync.WaitGroup
	for i, s := range p.Stores {
		wg.Go(func() {
			f := Finding{Area: "stores", Name: s.Name(), OK: true}
			ms, err := s.List(ctx)
			if err != nil {
				f.OK, f.Text, f.Remedy = false, reason(err), "a store that fails fails no build; --require-cache makes it one"
			} else {
				f.Text = contents(ms)
			}
			list[i] = f
		})
	}
	wg.Wait()
	if p.GitHub != nil && p.Token != "" && p.Repo != (github.Repo{}) {
		f := Finding{Area: "stores", Name: "push", OK: true, Text: p.Token + " may write to " + p.Repo.String()}
		may, err := p.GitHub.MayPush(ctx, p.Repo)
		switch {
		case err != nil:
			f.OK, f.Text, f.Remedy = false, reason(err), "see above"
		case !may:
			f.OK, f.Text, f.Remedy = false, p.Token+" may not write to "+p.Repo.String(), "a token with contents: write"
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
