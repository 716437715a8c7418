package ui

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"syscall"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/s3"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/preserved"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
)

// WithRemedy adds to err, and to the failed steps in it, what a user can do about an
// error that does not say so itself.
func WithRemedy(err error) error {
	if setRemedies(err) || errhint.Of(err) != nil {
		return err
	}
	var problem *frontend.Problem
	if errors.As(err, &problem) && problem.Hint != "" {
		return err
	}
	if hint := remedy(err); hint != "" {
		return errhint.With(err, hint)
	}
	return err
}

// setRemedies sets the remedies of all failed steps and problems in err, and reports
// whether there are any.
func setRemedies(err error) (any bool) {
	switch e := err.(type) {
	case *solver.BuildError:
		e.Remedy = remedy(e.Err)
		return true
	case frontend.Problems:
		for _, p := range e {
			if errors.Is(p.Err, dag.ErrSameName) {
				p.Hint += ": --name NAME:" + p.Pos.File
			}
		}
		return true
	case interface{ Unwrap() error }:
		return setRemedies(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			any = setRemedies(err) || any
		}
	}
	return any
}

// Warning returns the text of a warning, with the way out of what caused it, or else its
// first hint.
func Warning(text string, cause error) string {
	if way := wayOut(cause); way != "" {
		return text + "; " + way
	}
	if hints := errhint.Of(cause); len(hints) > 0 {
		return text + "; " + hints[0]
	}
	return text
}

// wayOut returns the flag by which what err is about would not have happened, or
// would not have been refused; "" for none.
func wayOut(err error) string {
	var secret *cache.SecretError
	var redirect *transfer.RedirectError
	var left *preserved.Error
	var byHand *exec.ByHandError
	var branch *git.Error
	switch {
	case errors.As(err, &byHand):
		return `"clayer capture" adds it to the Containerfile`
	case errors.As(err, &secret):
		return "have the step remove it, or push it all the same with --allow-secret " + secret.Name
	case errors.As(err, &redirect) && redirect.Private != "":
		return "--allow-redirect=" + redirect.Private + " allows it"
	case errors.As(err, &left):
		return "--force undoes it too"
	case errors.As(err, &branch) && branch.RequiresConsent():
		return "or --yes makes the branch, once"
	}
	return ""
}

// remedy returns what a user can do about an error; "" where nothing better is known
// than what the error says.
func remedy(err error) string {
	var status *transfer.StatusError
	var proxy *transfer.ProxyError
	var answer *github.Error
	var exit *sandbox.ExitError
	var redirect *transfer.RedirectError
	var cert *tls.CertificateVerificationError
	var secret *solver.MissingSecretError
	var agent *solver.MissingAgentError
	var overlay *exec.OverlayError
	if way := wayOut(err); way != "" {
		return way
	}
	switch {
	case errors.As(err, &secret):
		return fmt.Sprintf("--secret id=%[1]s,src=FILE or --secret id=%[1]s,env=NAME", secret.ID)
	case errors.As(err, &agent):
		return fmt.Sprintf("--ssh %[1]s forwards the agent of the session, --ssh %[1]s=SOCKET another one", agent.ID)
	case errors.As(err, &overlay):
		return "--sandbox=inplace, or auto, runs on the root itself"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "make room there: clayer cache prune frees the cache, and --cache-dir puts it on another disk"
	case errors.Is(err, solver.ErrRoot) && errors.Is(err, fs.ErrPermission):
		return "the root requires privileges; --dest DIR collects all changes in a directory, and requires none"
	case errors.Is(err, rootfs.ErrLocked):
		return "without --no-wait the command waits for the other to end"
	case errors.Is(err, s3.ErrNoCredentials):
		return "" // says it
	case errors.Is(err, cache.ErrReadOnly):
		return "work on the directory that the server serves, with --store dir:PATH"
	case errors.Is(err, solver.ErrStore):
		return "clayer doctor, with the same --repo and --store, looks at each store"
	case github.Is(err, github.NotFound):
		return "is the name right? A private repository requires a token in GH_TOKEN that may read it"
	case github.Is(err, github.Limited):
		return "wait until then, or put a token into GH_TOKEN: it has a limit of its own"
	case errors.As(err, &answer):
		return "" // says it
	case errors.As(err, &exit) && exit.Code == 128+9 && exit.Reason == "":
		return "it was killed (signal 9): where nobody did that, the machine had no memory left for it"
	case errors.As(err, &proxy):
		return "allow the host in the proxy, or name it in NO_PROXY; clayer doctor lists the hosts that are reached"
	case errors.As(err, &status):
		switch status.Code {
		case http.StatusNotFound, http.StatusGone:
			return "is the URL right? The server has nothing there"
		case http.StatusUnauthorized, http.StatusForbidden:
			return "the server requires a login, or something between refuses the host; what needs a login is for RUN --mount=type=secret"
		}
	case errors.Is(err, transfer.ErrOffline):
		return "without --offline it is asked; with it, what was fetched before is used"
	case errors.As(err, &redirect):
		return "if that is where the file is, name that address itself"
	case errors.Is(err, transfer.ErrNoCertificates):
		return "" // says it
	case errors.As(err, &cert):
		return "SSL_CERT_FILE=FILE.pem with the certificates that are trusted here, a proxy's too"
	case transfer.Unreachable(err):
		return "is there a network, and does it require a proxy (HTTPS_PROXY)? clayer doctor lists the hosts that are reached"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the file is not whole; --checksum=sha256:.. would say so before it is unpacked"
	}
	return ""
}
