package s3

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7/pkg/signer"

	"github.com/clayer/clayer/cache/transfer"
)

// emptySum is the SHA-256 of a request without a body.
const emptySum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// signed signs each attempt of a request to the bucket, and nothing else.
type signed struct {
	base   http.RoundTripper
	login  *Login
	bucket string

	mu     sync.Mutex
	region string // that the service named; "" for none
}

// RoundTrip implements http.RoundTripper. A service that says which region has the bucket
// is asked there.
func (t *signed) RoundTrip(req *http.Request) (*http.Response, error) {
	asked, err := url.Parse(t.login.address(t.bucket, ""))
	if err != nil || req.URL.Host != asked.Host || req.URL.Scheme != asked.Scheme {
		return t.base.RoundTrip(req)
	}
	region := t.current()
	resp, err := t.once(req, region)
	if err != nil || !t.login.amazon() || req.Body != nil && req.Body != http.NoBody {
		return resp, err
	}
	named := resp.Header.Get("X-Amz-Bucket-Region")
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusBadRequest, http.StatusForbidden:
	default:
		return resp, nil
	}
	if named == "" || named == region || strings.ContainsAny(named, "/:@?# ") {
		return resp, nil
	}
	resp.Body.Close()
	t.mu.Lock()
	t.region = named
	t.mu.Unlock()
	return t.once(req, named)
}

func (t *signed) current() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return cmp.Or(t.region, t.login.region)
}

func (t *signed) once(req *http.Request, region string) (*http.Response, error) {
	creds, err := t.login.source.get(req.Context())
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, transfer.Fatal(err)
	}
	req = req.Clone(req.Context())
	if t.login.amazon() && region != t.login.region {
		at := *t.login
		at.endpoint = amazonEndpoint(region)
		u, err := url.Parse(at.address(t.bucket, ""))
		if err != nil {
			return nil, err
		}
		req.URL.Host, req.Host = u.Host, u.Host
	}
	if creds.AccessKeyID != "" {
		if req.Header.Get("X-Amz-Content-Sha256") == "" {
			req.Header.Set("X-Amz-Content-Sha256", emptySum)
		}
		req = signer.SignV4(*req, creds.AccessKeyID, creds.SecretAccessKey, creds.SessionToken, cmp.Or(region, "us-east-1"))
	}
	return t.base.RoundTrip(req)
}

// A request is one for an object, or for the bucket.
type request struct {
	method string
	name   string // of the object, below the prefix; "" for the bucket
	query  url.Values
	header http.Header
	copies bool // from another object: the answer has the ETag in its body

	body io.ReaderAt // nil: none
	size int64
	sum  string // the SHA-256 of the body, in hexadecimal
}

// send sends a request until there is an answer that is final. An answer other than 2xx is
// an *Error.
func (s *Store) send(ctx context.Context, a act, r request) (ans *transfer.Answer, err error) {
	object := ""
	if r.name != "" {
		object = s.at.object(r.name)
	}
	address := s.login.address(s.at.bucket, object)
	if r.query != nil {
		address += "?" + r.query.Encode()
	}
	err = s.tr.Retry(ctx, 0, func() error {
		req, err := http.NewRequestWithContext(ctx, r.method, address, nil)
		if err != nil {
			return transfer.Fatal(errors.New("malformed URL"))
		}
		for name, values := range r.header {
			req.Header[name] = values
		}
		req.Header.Set("Accept-Encoding", "identity")
		if r.body != nil {
			req.Header.Set("X-Amz-Content-Sha256", r.sum)
			req.ContentLength = r.size
			req.Body = http.NoBody
			if r.size > 0 {
				req.Body = io.NopCloser(io.NewSectionReader(r.body, 0, r.size))
			}
		}
		if ans, err = s.tr.Send(ctx, req); err != nil {
			return err
		}
		if ans.Code/100 == 2 {
			return embedded(ans, r)
		}
		return s.answer(a, r, ans)
	})
	return ans, s.explain(ctx, a, err)
}

// An errorBody is what the service says that does not do what it is asked for.
type errorBody struct {
	XMLName xml.Name
	Code    string
	Message string
}

// embedded returns the error in an answer that is 200 all the same: one that the service
// began before it knew, or that is not of the service.
func embedded(ans *transfer.Answer, r request) error {
	if r.method == http.MethodPut && !r.copies && ans.Header.Get("ETag") == "" {
		return transfer.Fatal(errors.New("the answer to an upload has no ETag: it is not of a service with buckets"))
	}
	if r.method != http.MethodPost && !r.copies {
		return nil
	}
	var e errorBody
	err := xml.Unmarshal(ans.Body, &e)
	switch {
	case err == nil && e.XMLName.Local == "Error":
		return transfer.Transient(fmt.Errorf("the service answers %s", e.Code))
	case r.copies: // its reader says what is wrong with it
	case err != nil || !strings.HasSuffix(e.XMLName.Local, "MultipartUploadResult"):
		return transfer.Transient(errors.New("the answer to an upload in parts is not of a service with buckets"))
	}
	return nil
}

// answer returns the *Error of an answer.
func (s *Store) answer(a act, r request, ans *transfer.Answer) error {
	var body errorBody
	_ = xml.Unmarshal(ans.Body, &body) // there need not be one, as after HEAD
	e := &Error{Bucket: s.at.bucket, Host: s.login.endpoint.Host, Status: ans.Code, Code: body.Code, act: a, name: r.name, said: s.clean(body.Message), login: &s.login}
	after, limited := transfer.RateLimit(ans.Code, ans.Header, time.Now())
	if !limited {
		after = transfer.RetryAfter(ans.Header, time.Now())
	}
	switch {
	case transfer.Busy(ans.Code) && ans.Code != http.StatusInsufficientStorage, limited:
		// Retry understands it.
		e.err = &transfer.StatusError{URL: transfer.Redact(ans.URL), Code: ans.Code, RetryAfter: after, Limited: limited}
	case e.passes():
		e.err = transfer.Transient(errors.New(body.Code))
	}
	return e
}
