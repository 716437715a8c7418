package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/transfer"
)

// act is what was asked of a service.
type act uint8

const (
	reading act = iota
	writing
	listing
	removing
)

// An Error is what a service answers that does not do what it was asked for.
type Error struct {
	Bucket string
	Host   string // of the service
	Status int    // the HTTP status
	Code   string // the service's own, "AccessDenied"; "" where it gave none

	act   act
	name  string // of the object
	said  string // in the service's own words
	login *Login
	err   error // what it means for the next attempt
}

// Unwrap returns what the error means for the next attempt.
func (e *Error) Unwrap() error { return e.err }

// Error says what the service answers, and what to do.
func (e *Error) Error() string {
	said := ""
	if e.said != "" {
		said = " (" + e.said + ")"
	}
	as := e.login.From
	if as == "" {
		as = "without credentials"
	} else {
		as = "with " + as
	}
	switch {
	case slices.Contains([]string{"ExpiredToken", "TokenRefreshRequired", "ExpiredTokenException"}, e.Code):
		return fmt.Sprintf("%s: the credentials of %s have expired%s: log in again, or set new ones", e.Host, e.login.From, said)
	case e.Code == "RequestTimeTooSkewed":
		return fmt.Sprintf("%s: the clock of this machine is wrong%s", e.Host, said)
	case slices.Contains([]string{"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId", "AuthorizationHeaderMalformed"}, e.Code):
		return fmt.Sprintf("%s does not accept the credentials of %s for the bucket %s: %s%s", e.Host, e.login.From, e.Bucket, e.Code, said)
	case e.noBucket():
		return fmt.Sprintf("%s has no bucket %s%s: check its name, AWS_REGION and AWS_ENDPOINT_URL_S3, or create it", e.Host, e.Bucket, said)
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		right := map[act]string{reading: "read", writing: "write to", listing: "list", removing: "delete in"}[e.act]
		if e.login.From == "" {
			return fmt.Sprintf("%s does not allow anybody to %s the bucket %s%s: %s", e.Host, right, e.Bucket, said, e.login.hint())
		}
		return fmt.Sprintf("%s does not allow to %s the bucket %s %s%s", e.Host, right, e.Bucket, as, said)
	case e.Status == http.StatusMovedPermanently, e.Status == http.StatusTemporaryRedirect:
		return fmt.Sprintf("%s, bucket %s: %v", e.Host, e.Bucket, errNoRegion)
	case e.full():
		return fmt.Sprintf("%s: the bucket %s is full%s", e.Host, e.Bucket, said)
	}
	code := e.Code
	if code != "" {
		code = " " + code
	}
	return fmt.Sprintf("%s, bucket %s: %d %s%s%s", e.Host, e.Bucket, e.Status, http.StatusText(e.Status), code, said)
}

func (e *Error) noBucket() bool {
	return e.Code == "NoSuchBucket" || e.Status == http.StatusNotFound && e.name == "" && e.Code != "NoSuchUpload"
}

func (e *Error) full() bool {
	return e.Status == http.StatusInsufficientStorage || slices.Contains([]string{"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "ServiceQuotaExceeded"}, e.Code)
}

// passes reports whether another try may not get the same answer, although its status says
// nothing of the kind: the bytes were damaged on their way, or somebody else was writing.
func (e *Error) passes() bool {
	return slices.Contains([]string{"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict"}, e.Code)
}

// refusesLogin reports whether every further request would get the same answer.
func (e *Error) refusesLogin() bool {
	return e.noBucket() || e.Status == http.StatusUnauthorized || slices.Contains([]string{
		"ExpiredToken", "TokenRefreshRequired", "ExpiredTokenException", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId",
		"RequestTimeTooSkewed", "AuthorizationHeaderMalformed", "AllAccessDisabled", "AccountProblem", "InvalidBucketName", "PermanentRedirect",
	}, e.Code)
}

// missing reports whether the object is not there.
func (e *Error) missing() bool {
	return (e.Status == http.StatusNotFound || e.Status == http.StatusGone) && !e.noBucket()
}

// failed reports whether a condition of a request did not hold.
func failed(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusPreconditionFailed
}

// unconditional reports whether a service does not know the condition of a request.
func unconditional(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == http.StatusNotImplemented || e.Status == http.StatusBadRequest && !e.refusesLogin() && !e.full())
}

// explain returns an error as it may be shown, and remembers what all further requests
// would get too.
func (s *Store) explain(ctx context.Context, a act, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	var e *Error
	var login *credentialsError
	switch pause := transfer.Pause(err); {
	case errors.As(err, &e) && e.missing():
		return &missingError{e}
	case errors.As(err, &e) && e.refusesLogin():
		s.refused.Read(e, 0)
		return e
	case errors.As(err, &e):
		return err
	case errors.As(err, &login):
		s.refused.Read(login, 0)
		return login
	case pause > 0:
		s.refused.Read(err, pause)
	}
	if text := s.clean(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}

// missingError is cache.ErrNotCached, and says what is missing.
type missingError struct{ e *Error }

func (m *missingError) Error() string   { return fmt.Sprintf("%v: %s", cache.ErrNotCached, m.e.name) }
func (m *missingError) Unwrap() []error { return []error{cache.ErrNotCached, m.e} }

// refuse remembers an error that all further writes would get too.
func (s *Store) refuse(err error) error {
	var e *Error
	if errors.As(err, &e) && (e.act == writing || e.act == reading) && (e.Status == http.StatusForbidden || e.full()) {
		s.refused.Write(err, 0)
	}
	return err
}

// clean returns what a service says on one line, of a bounded length, without credentials.
func (s *Store) clean(text string) string {
	for _, secret := range s.login.secrets {
		text = strings.ReplaceAll(text, secret, "...")
	}
	all := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text))
	if len(all) > 300 {
		all = append(all[:300], '…')
	}
	return strings.TrimSpace(string(all))
}
