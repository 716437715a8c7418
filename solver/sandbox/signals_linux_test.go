package sandbox_test

import (
	"errors"
	signals "os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/clayer/clayer/solver/sandbox"
	"golang.org/x/sys/unix"
)

// A signal that clayer ignores, as under nohup, is not ignored by a RUN.
func TestRunIgnoresNoSignal(t *testing.T) {
	all := []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGPIPE}
	for _, sig := range all {
		signals.Ignore(sig)
		defer signals.Reset(sig)
	}
	sandboxes(t, func(t *testing.T, b testBox) {
		for _, sig := range all {
			v, _ := b.view(t)
			name := strings.TrimPrefix(unix.SignalName(sig), "SIG")
			_, out, err := try(t, v, sandbox.Command{Argv: []string{"/bin/sh", "-c", "kill -" + name + " $$; echo ignored"}, Env: testEnv})
			var exit *sandbox.ExitError
			if !errors.As(err, &exit) || exit.Code != 128+int(sig) || out != "" {
				t.Errorf("%s: output %q, error %v, want exit code %d", name, out, err, 128+int(sig))
			}
		}
	})
}
