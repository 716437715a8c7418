package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
	"gopkg.in/ini.v1"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/safefile"
)

// StyleVariable names the variable that says where an address names the bucket: "path", or
// "virtual" for the host.
const StyleVariable = "CLAYER_S3_STYLE"

// A Login says which service has a bucket, and as whom it is asked.
type Login struct {
	From string // where the credentials are from, in words; "" for none

	endpoint *url.URL
	style    string // "path" or "virtual"; "" for what the service is known to have
	region   string // "" for Amazon's where none is set
	secrets  []string
	missing  string // what a profile has that clayer does not use; "" for nothing
	source   *source
}

// Secrets returns what must not be printed or leave the machine. Credentials that a
// service gives out for a time are not among them: they are in the memory of this process
// alone.
func (l Login) Secrets() []string { return l.secrets }

// FindLogin finds the service and the credentials as Amazon's tools do: in the variables
// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the token of AWS_WEB_IDENTITY_TOKEN_FILE, the
// profile AWS_PROFILE of the shared files, and from the service that a container or a
// machine of Amazon's has for it. That is asked when the first request is sent. No program
// that a profile names is run.
func FindLogin(at Address, getenv func(string) string) (Login, error) {
	var l Login
	p, err := findProfile(getenv)
	if err != nil {
		return l, err
	}
	l.region = cmp.Or(getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION"), p.region)
	if strings.ContainsAny(l.region, "/:@?# ") {
		return l, errors.New("$AWS_REGION is no region")
	}
	if l.style = getenv(StyleVariable); l.style != "" && l.style != "path" && l.style != "virtual" {
		return l, fmt.Errorf("$%s is neither path nor virtual", StyleVariable)
	}
	for _, e := range []struct{ variable, value string }{
		{"AWS_ENDPOINT_URL_S3", getenv("AWS_ENDPOINT_URL_S3")},
		{"AWS_ENDPOINT_URL", getenv("AWS_ENDPOINT_URL")},
		{"AWS_PROFILE", p.endpoint},
	} {
		if e.value != "" && l.endpoint == nil {
			if l.endpoint, err = parseEndpoint(e.variable, e.value); err != nil {
				return l, err
			}
		}
	}
	if l.endpoint == nil {
		l.endpoint = amazonEndpoint(l.region)
	} else if host := l.endpoint.Hostname(); strings.HasSuffix(host, ".r2.cloudflarestorage.com") || strings.HasSuffix(host, "storage.googleapis.com") {
		l.region = "auto" // the only one
	} else if l.region == "" && !l.amazon() {
		l.region = "us-east-1" // what most services take whose buckets have none
	}
	err = l.findCredentials(p, getenv)
	return l, err
}

func (l *Login) findCredentials(p profile, getenv func(string) string) error {
	id, secret := getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY")
	switch {
	case id != "" && secret != "":
		l.static("$AWS_ACCESS_KEY_ID", id, secret, getenv("AWS_SESSION_TOKEN"))
		return nil
	case id != "" || secret != "":
		return errors.New("$AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY go together: one of them is not set")
	}
	if file := getenv("AWS_WEB_IDENTITY_TOKEN_FILE"); file != "" {
		token, err := safefile.Read(file, 64<<10)
		if err != nil {
			return fmt.Errorf("$AWS_WEB_IDENTITY_TOKEN_FILE: %w", err)
		}
		l.From = "$AWS_WEB_IDENTITY_TOKEN_FILE"
		l.secrets = []string{strings.TrimSpace(string(token))}
		l.source = &source{provider: &credentials.IAM{Endpoint: getenv("AWS_ENDPOINT_URL_STS"), Region: l.region}, client: remote, wait: 10 * time.Second}
		return nil
	}
	if p.id != "" {
		l.static(p.from, p.id, p.secret, p.token)
		return nil
	}
	if p.sso {
		l.From = p.from
		l.source = &source{provider: &credentials.FileAWSCredentials{Profile: p.name}, client: remote, wait: 10 * time.Second}
		return nil
	}
	l.missing = p.missing
	if getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != "" || getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") != "" {
		l.From = "the container's service for credentials"
		l.source = &source{provider: &credentials.IAM{}, client: nearby, wait: 5 * time.Second}
		return nil
	}
	// Nobody has said that this is a machine of Amazon's: on others nothing answers, or
	// something else does. Its credentials are of use at Amazon's services alone.
	service := getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT")
	if (l.amazon() || service != "") && !strings.EqualFold(getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		l.source = &source{provider: &credentials.IAM{Endpoint: strings.TrimRight(service, "/")}, client: nearby, wait: time.Second, guess: true}
	}
	return nil
}

func (l *Login) static(from, id, secret, token string) {
	l.From = from
	l.secrets = []string{secret}
	if token != "" {
		l.secrets = append(l.secrets, token)
	}
	l.source = &source{provider: &credentials.Static{Value: credentials.Value{AccessKeyID: id, SecretAccessKey: secret, SessionToken: token, SignerType: credentials.SignatureV4}}}
}

// hint says how credentials are given.
func (l *Login) hint() string {
	if l.missing != "" {
		return l.missing
	}
	return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
}

// ErrNoCredentials is cache.ErrReadOnly: a bucket is only read without credentials.
var ErrNoCredentials = fmt.Errorf("%w without credentials", cache.ErrReadOnly)

// readOnly returns ErrNoCredentials where it is known that there are no credentials.
func (l *Login) readOnly() error {
	if l.source == nil || l.source.none() {
		return fmt.Errorf("%w: %s", ErrNoCredentials, l.hint())
	}
	return nil
}

// A profile is what the shared files have under a name.
type profile struct {
	name, from        string
	region, endpoint  string
	id, secret, token string
	sso               bool
	missing           string
}

// findProfile reads the shared files as
// https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html describes them.
func findProfile(getenv func(string) string) (p profile, err error) {
	named := getenv("AWS_PROFILE")
	p.name = cmp.Or(named, "default")
	home := getenv("HOME")
	path := func(variable, file string) string {
		if v := getenv(variable); v != "" || home == "" {
			return v
		}
		return filepath.Join(home, ".aws", file)
	}
	section := "profile " + p.name
	if p.name == "default" {
		section = p.name
	}
	there := false
	for _, f := range []struct{ path, section string }{
		{path("AWS_CONFIG_FILE", "config"), section},
		{path("AWS_SHARED_CREDENTIALS_FILE", "credentials"), p.name},
	} {
		if f.path == "" {
			continue
		}
		data, err := safefile.Read(f.path, 1<<20)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return p, fmt.Errorf("credentials: %w", err)
		}
		// Nested settings, as those of s3, are indented lines.
		file, err := ini.LoadSources(ini.LoadOptions{AllowPythonMultilineValues: true, Loose: true, SkipUnrecognizableLines: true}, data)
		if err != nil {
			return p, fmt.Errorf("credentials: %s is not what aws configure writes", f.path) // the parser quotes it
		}
		if !file.HasSection(f.section) {
			continue
		}
		there = true
		get := func(name string) string { return strings.TrimSpace(file.Section(f.section).Key(name).Value()) }
		p.region = cmp.Or(get("region"), p.region)
		p.endpoint = cmp.Or(get("endpoint_url"), p.endpoint)
		p.sso = p.sso || get("sso_role_name") != ""
		if id, secret := get("aws_access_key_id"), get("aws_secret_access_key"); id != "" && secret != "" {
			p.from, p.id, p.secret, p.token = fmt.Sprintf("profile %s in %s", p.name, f.path), id, secret, get("aws_session_token")
		}
		for _, name := range []string{"credential_process", "role_arn", "login_session"} {
			if get(name) != "" {
				p.missing = fmt.Sprintf(`the profile %s has its credentials by %s, which clayer does not use: aws configure export-credentials prints them, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY hold them`, p.name, name)
			}
		}
	}
	if named != "" && !there {
		return p, fmt.Errorf("$AWS_PROFILE: there is no profile %s", named)
	}
	p.from = cmp.Or(p.from, "profile "+p.name)
	return p, nil
}

// nearby asks services on this machine and beside it. What is there answers at once.
var nearby = &http.Client{
	Transport:     &http.Transport{DialContext: (&net.Dialer{Timeout: time.Second}).DialContext, DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// remote asks services that give out credentials elsewhere.
var remote = &http.Client{
	Transport:     transfer.NewTransport(),
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// A source gives out credentials, and asks for others before they expire.
type source struct {
	provider credentials.Provider
	client   *http.Client
	wait     time.Duration // the most that is waited for them
	guess    bool          // nobody has said that it is there

	mu   sync.Mutex
	asks *credentials.Credentials
	last credentials.Value
	err  error // it failed, and is not asked again
}

// none reports whether it is known that there are no credentials.
func (s *source) none() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.guess && s.err != nil
}

// get returns the credentials; none if there are none, so that the request is anonymous.
func (s *source) get(ctx context.Context) (credentials.Value, error) {
	if s == nil {
		return credentials.Value{}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.failed()
	}
	if s.asks == nil {
		s.asks = credentials.New(s.provider)
	}
	wait := s.wait
	if wait == 0 {
		wait = time.Second // they are here
	}
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	v, err := s.asks.GetWithContext(&credentials.CredContext{Client: s.client, Context: bounded})
	switch {
	case err == nil:
		s.last = v
		return v, nil
	case ctx.Err() != nil:
		return v, context.Cause(ctx)
	case s.last.Expiration.After(time.Now()):
		return s.last, nil // they are renewed early
	}
	s.err = errors.New(transfer.RedactText(err.Error()))
	return s.failed()
}

func (s *source) failed() (credentials.Value, error) {
	if s.guess && s.last.AccessKeyID == "" {
		return credentials.Value{}, nil
	}
	return credentials.Value{}, &credentialsError{s.err}
}

// A credentialsError says that there are credentials, and that they could not be had.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "no credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }
