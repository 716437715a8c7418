package ui

import (
	"errors"
	"fmt"
	"testing"

	"github.com/clayer/clayer/cache"
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

// TestFlagsInHints: what libraries say has the flag that helps when cmd prints it.
func TestFlagsInHints(t *testing.T) {
	left := &preserved.Error{Preserved: rootfs.Preserved{Path: "etc/conf", Why: "changed"}}
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"a secret that is missing", fmt.Errorf("RUN: %w", &solver.MissingSecretError{ID: "key"}),
			"RUN: secret \"key\" is required, and not given\nhint: --secret id=key,src=FILE or --secret id=key,env=NAME"},
		{"no overlay", &exec.OverlayError{Err: sandbox.Unavailable("overlay", errors.New("refused"))},
			"overlay sandbox not available: refused\nhint: --sandbox=inplace, or auto, runs on the root itself"},
		{"a credential, where stores are required", fmt.Errorf("%w: %w", solver.ErrStore, &cache.SecretError{Path: "key", Name: "A_KEY"}),
			"a store failed: built, not pushed: /key holds the value of A_KEY\nhint: have the step remove it, or push it all the same with --allow-secret A_KEY"},
		{"a redirect to a private host", &transfer.RedirectError{To: "http://10.0.0.7/", Reason: "refused", Private: "10.0.0.7"},
			"redirect to http://10.0.0.7/: refused\nhint: --allow-redirect=10.0.0.7 allows it"},
		{"any other redirect", &transfer.RedirectError{To: "http://127.0.0.1/", Reason: "refused"},
			"redirect to http://127.0.0.1/: refused\nhint: if that is where the file is, name that address itself"},
		{"layers of one name", frontend.Problems{{Pos: frontend.Pos{File: "b/Containerfile.x"}, Message: "x is defined twice", Hint: "rename one", Err: dag.ErrSameName}},
			"b/Containerfile.x: x is defined twice\nhint: rename one: --name NAME:b/Containerfile.x"},
	} {
		if got := errhint.Text(WithRemedy(tt.err)); got != tt.want {
			t.Errorf("%s:\n%s\nwant:\n%s", tt.name, got, tt.want)
		}
	}
	if got, want := Warning(left.Error(), left), "preserved /etc/conf: changed; --force undoes it too"; got != want {
		t.Errorf("warning %q, want %q", got, want)
	}
	if got := Warning("store dir: full", errors.New("full")); got != "store dir: full" {
		t.Errorf("warning %q", got)
	}
}
