package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/s3"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/s3test"
)

func TestParseAddress(t *testing.T) {
	for s, want := range map[string]string{
		"s3://bucket": "s3://bucket", "s3://bucket/": "s3://bucket", "s3://my-bucket/a/b/": "s3://my-bucket/a/b",
		"s3:bucket": "", "s3://": "", "s3:///a": "", "s3://bucket/../a": "", "s3://bucket/a//b": "", "s3://bucket?x=y": "", "s3://u:p@bucket/a": "", "s3://bucket:80/a": "", "s3://b\x00": "",
	} {
		a, err := s3.ParseAddress(s)
		if want == "" {
			if err == nil || strings.Contains(err.Error(), "u:p@") {
				t.Errorf("%q: %v, %v", s, a, err)
			}
		} else if err != nil || a.String() != want {
			t.Errorf("%q: %v, %v", s, a, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(r *http.Request, code int, header http.Header, body string) *http.Response {
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

// Where requests go, and for which region they are signed.
func TestServices(t *testing.T) {
	files := t.TempDir()
	config := filepath.Join(files, "config")
	if err := os.WriteFile(config, []byte("[default]\nregion = eu-west-3\n[profile r2]\nregion=eu-west-3\nendpoint_url = https://id.r2.cloudflarestorage.com\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		environ         map[string]string
		address, region string
	}{
		{map[string]string{}, "https://my-bucket.s3.amazonaws.com/env/layers/", "us-east-1"},
		{map[string]string{"AWS_REGION": "eu-central-1"}, "https://my-bucket.s3.eu-central-1.amazonaws.com/env/layers/", "eu-central-1"},
		{map[string]string{"AWS_DEFAULT_REGION": "cn-north-1"}, "https://my-bucket.s3.cn-north-1.amazonaws.com.cn/env/layers/", "cn-north-1"},
		{map[string]string{"AWS_REGION": "eu-central-1", "CLAYER_S3_STYLE": "path"}, "https://s3.eu-central-1.amazonaws.com/my-bucket/env/layers/", "eu-central-1"},
		{map[string]string{"AWS_CONFIG_FILE": config}, "https://my-bucket.s3.eu-west-3.amazonaws.com/env/layers/", "eu-west-3"},
		{map[string]string{"AWS_CONFIG_FILE": config, "AWS_PROFILE": "r2"}, "https://id.r2.cloudflarestorage.com/my-bucket/env/layers/", "auto"},
		{map[string]string{"AWS_ENDPOINT_URL": "https://storage.googleapis.com", "AWS_REGION": "eu"}, "https://storage.googleapis.com/my-bucket/env/layers/", "auto"},
		{map[string]string{"AWS_ENDPOINT_URL": "https://nowhere.example.com", "AWS_ENDPOINT_URL_S3": "https://minio.example.com:9000/s3/"}, "https://minio.example.com:9000/s3/my-bucket/env/layers/", "us-east-1"},
		{map[string]string{"AWS_ENDPOINT_URL_S3": "https://ceph.example.com", "CLAYER_S3_STYLE": "virtual"}, "https://my-bucket.ceph.example.com/env/layers/", "us-east-1"},
	} {
		test.environ["AWS_ACCESS_KEY_ID"], test.environ["AWS_SECRET_ACCESS_KEY"] = "ID", "secret-word"
		var got, auth string
		opt := s3.Options{Transfer: transfer.Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if got == "" {
				got, auth = r.URL.String(), r.Header.Get("Authorization")
			}
			return answer(r, http.StatusNotFound, http.Header{}, "<Error><Code>NoSuchKey</Code></Error>"), nil
		})}}
		if found, err := openWith(t, "s3://my-bucket/env", test.environ, opt).Find(t.Context(), "layer-base-0123456789abcdef", nil); err != nil || len(found) > 0 {
			t.Errorf("%v: %v, %v", test.environ, found, err)
		}
		if !strings.HasPrefix(got, test.address) || !strings.Contains(auth, "/"+test.region+"/s3/aws4_request") {
			t.Errorf("%v:\n%s\n%s\nwant %s in %s", test.environ, got, auth, test.address, test.region)
		}
	}
}

// Amazon says which region has a bucket: it is asked there, and from then on only there.
func TestRegionOfTheBucket(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	opt := s3.Options{Transfer: transfer.Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.Host)
		if r.URL.Host != "my-bucket.s3.eu-west-1.amazonaws.com" || !strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/") {
			return answer(r, http.StatusBadRequest, http.Header{"X-Amz-Bucket-Region": {"eu-west-1"}}, "<Error><Code>AuthorizationHeaderMalformed</Code></Error>"), nil
		}
		return answer(r, http.StatusNotFound, http.Header{}, "<Error><Code>NoSuchKey</Code></Error>"), nil
	})}}
	s := openWith(t, "s3://my-bucket", map[string]string{"AWS_ACCESS_KEY_ID": "ID", "AWS_SECRET_ACCESS_KEY": "secret-word"}, opt)
	for range 2 {
		if _, err := s.Find(t.Context(), "layer-base-0123456789abcdef", nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(asked) != 3 {
		t.Errorf("asked %v", asked)
	}
}

// metadata is the service for credentials of a machine, a container, or an OIDC token.
func metadata(t *testing.T) *httptest.Server {
	keys := fmt.Sprintf(`{"Code":"Success","AccessKeyId":%q,"SecretAccessKey":"secret-of-the-machine","Token":"token-of-the-machine","Expiration":%q}`,
		s3test.KeyID, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
			fmt.Fprint(w, "session")
		case r.URL.Path == "/latest/meta-data/iam/security-credentials/":
			fmt.Fprint(w, "role")
		case strings.HasPrefix(r.URL.Path, "/latest/meta-data/iam/security-credentials/"), r.URL.Path == "/container" && r.Header.Get("Authorization") == "container-token":
			fmt.Fprint(w, keys)
		case r.Method == http.MethodPost && r.FormValue("WebIdentityToken") == "the-oidc-token":
			fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>secret-of-the-machine</SecretAccessKey><SessionToken>token-of-the-machine</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
				s3test.KeyID, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		default:
			http.Error(w, "no", http.StatusForbidden)
		}
	}))
	t.Cleanup(srv.Close)
	return srv
}

// The credentials that a machine, a container and a job have.
func TestCredentialsOfMachines(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("the-oidc-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := metadata(t)
	for name, environ := range map[string]map[string]string{
		"machine":   {"AWS_EC2_METADATA_SERVICE_ENDPOINT": srv.URL + "/"},
		"container": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": srv.URL + "/container", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "container-token"},
		"job":       {"AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_ENDPOINT_URL_STS": srv.URL},
	} {
		t.Run(name, func(t *testing.T) {
			for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"} {
				t.Setenv(name, environ[name]) // minio-go looks there itself
			}
			f := s3test.NewFake(t)
			environ["AWS_ENDPOINT_URL_S3"] = f.URL
			f.Fault = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("X-Amz-Security-Token") != "token-of-the-machine" {
					s3test.Refuse(w, http.StatusForbidden, "InvalidAccessKeyId")
					return true
				}
				return false
			}
			s := open(t, "s3://bucket", environ)
			if err := s.Writable(); err != nil {
				t.Error(err)
			}
			fill(t, s, 2)
		})
	}
}

// Where no service for credentials answers, that costs a second, once; where one refuses
// that was named, nothing is asked.
func TestNoCredentialsOfMachines(t *testing.T) {
	t.Parallel()
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)
	t.Cleanup(silent.CloseClientConnections)
	f := s3test.NewFake(t)
	m, keys := fill(t, open(t, "s3://bucket", variables(f.URL)), 3)
	f.Public = true
	s := open(t, "s3://bucket", map[string]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT": silent.URL, "AWS_ENDPOINT_URL_S3": f.URL})
	began := time.Now()
	for range 3 {
		if found, err := s.Find(t.Context(), m.Tag(), keys); err != nil || len(found) != 3 {
			t.Fatalf("found %d, %v", len(found), err)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := s.Writable(); !errors.Is(err, cache.ErrReadOnly) {
		t.Errorf("Writable: %v", err)
	}
}

// Credentials, and what is as good, are in no error and in no log, and do not go where the
// service leads.
func TestCredentialsStayHome(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(before)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Authorization", "X-Amz-Security-Token"} {
			if r.Header.Get(name) != "" {
				t.Errorf("%s went along a redirect", name)
			}
		}
		http.NotFound(w, r)
	}))
	defer elsewhere.Close()
	environ := map[string]string{"AWS_ACCESS_KEY_ID": "ID", "AWS_SECRET_ACCESS_KEY": "the-secret-word", "AWS_SESSION_TOKEN": "the-session-token"}
	d, b := storetest.Step("a", "content")
	for name, fault := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"redirect": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, elsewhere.URL+"/x?X-Amz-Signature=the-signature", http.StatusTemporaryRedirect)
			return true
		},
		"echo": func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, "<Error><Code>SignatureDoesNotMatch</Code><Message>the-secret-word %s</Message></Error>", r.Header.Get("X-Amz-Security-Token"))
			return true
		},
		"gone": func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			f := s3test.NewFake(t)
			f.Fault = fault
			environ["AWS_ENDPOINT_URL_S3"] = f.URL
			s := open(t, "s3://bucket", environ)
			_, find := s.Find(t.Context(), "", keysOf(d))
			_, list := s.List(t.Context())
			fetch := s.Fetch(t.Context(), d, &cache.Blob{})
			put := open(t, "s3://bucket", environ).Put(t.Context(), d, b)
			text := fmt.Sprint(find, list, fetch, put, log.String())
			for _, secret := range []string{"the-secret-word", "the-session-token", "the-signature", "Signature="} {
				if strings.Contains(text, secret) {
					t.Errorf("%s is in %s", secret, text)
				}
			}
			if put == nil || fetch == nil || list == nil {
				t.Error("no error")
			}
		})
	}
	at, _ := s3.ParseAddress("s3://bucket")
	login, err := s3.FindLogin(at, func(name string) string { return environ[name] })
	if err != nil || strings.Join(login.Secrets(), " ") != "the-secret-word the-session-token" {
		t.Errorf("%v, %v", login.Secrets(), err)
	}
}
