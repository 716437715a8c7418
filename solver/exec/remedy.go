package exec

import (
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"syscall"

	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
)

// Remedy returns what a user can do about an error that does not say so itself;
// "" where nothing better is known than what the error says.
func Remedy(err error) string {
	var status *transfer.StatusError
	var proxy *transfer.ProxyError
	var answer *github.Error
	var exit *sandbox.ExitError
	var redirect *transfer.RedirectError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "make room there: clayer cache prune frees the cache, and --cache-dir puts it on another disk"
	case errors.Is(err, ErrRoot) && errors.Is(err, fs.ErrPermission):
		return "the root wants privilege; --dest DIR keeps all changes in a folder, and wants none"
	case errors.Is(err, rootfs.ErrLocked):
		return "without --no-wait the command waits for the other to end"
	case errors.Is(err, ErrStore):
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
		return "allow the host in the proxy, or name it in NO_PROXY; clayer doctor tells which hosts are reached"
	case errors.As(err, &status):
		switch status.Code {
		case http.StatusNotFound, http.StatusGone:
			return "is the URL right? The server has nothing there"
		case http.StatusUnauthorized, http.StatusForbidden:
			return "the server wants to know who asks, or something between refuses the host; what needs a login is for RUN --mount=type=secret"
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
		return "is there a network, and does it want a proxy (HTTPS_PROXY)? clayer doctor tells which hosts are reached"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the file is not whole; --checksum=sha256:.. would say so before it is unpacked"
	}
	return ""
}
