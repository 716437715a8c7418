package parse

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend/mount"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/solver"
)

// Agents reads --ssh as docker buildx does, but for the files of keys: ID, whose agent is that of
// the session, or ID=SOCKET.
func Agents(flags []string) (map[string]solver.Agent, error) {
	all := make(map[string]solver.Agent)
	for _, v := range flags {
		id, socket, given := strings.Cut(v, "=")
		switch {
		case id == "":
			return nil, usage.Errorf("--ssh=%s: the id is missing", v)
		case !given:
			socket = os.Getenv(mount.AgentVar)
			if socket == "" {
				return nil, errhint.With(usage.Errorf("--ssh=%s: %s is not set: there is no agent", v, mount.AgentVar), `eval "$(ssh-agent)" && ssh-add, or --ssh `+id+"=SOCKET")
			}
		case socket == "":
			return nil, usage.Errorf("--ssh=%s: the socket is missing", v)
		case strings.Contains(socket, ","):
			return nil, usage.Errorf("--ssh=%s: takes one socket", v)
		}
		abs, err := filepath.Abs(socket)
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(abs)
		if err != nil {
			return nil, usage.Errorf("--ssh=%s: %s: %w", v, socket, pathless(err))
		}
		if info.Mode()&os.ModeSocket == 0 {
			return nil, errhint.With(usage.Errorf("--ssh=%s: %s is no socket of an agent", v, socket), "ssh-add "+socket+" gives a key to an agent; --ssh "+id+" forwards that")
		}
		all[id] = solver.Agent{Socket: abs}
	}
	return all, nil
}
