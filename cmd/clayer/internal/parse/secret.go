package parse

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver"
)

// Secrets reads --secret as docker buildx does. Without src and env it is the
// variable of that name, else the file.
func Secrets(ctx context.Context, flags []string) (map[string]solver.Secret, error) {
	all := make(map[string]solver.Secret)
	for _, v := range flags {
		var id, typ string
		var s solver.Secret
		for part := range strings.SplitSeq(v, ",") {
			key, value, _ := strings.Cut(part, "=")
			switch key {
			case "id":
				id = value
			case "src", "source":
				s.File = value
			case "env":
				s.Env = value
			case "type":
				typ = value
			default:
				return nil, usage.Errorf("--secret: %q is none of id=, src=, env=, type=", key)
			}
		}
		if id == "" {
			return nil, usage.Errorf("--secret: id= is missing")
		}
		if typ == "env" && s.Env == "" {
			s.Env, s.File = s.File, ""
		}
		if s.Env == "" && s.File == "" {
			if _, ok := os.LookupEnv(id); ok {
				s.Env = id
			} else {
				s.File = id
			}
		}
		if err := readSecret(ctx, &s); err != nil {
			return nil, fmt.Errorf("--secret id=%s: %w", id, err)
		}
		all[id] = s
	}
	return all, nil
}

// readSecret reads a pipe, once for all RUNs, and makes the path of a file absolute.
func readSecret(ctx context.Context, s *solver.Secret) error {
	if s.File == "" {
		return nil
	}
	if _, ok := safefile.IsInput(s.File); ok {
		content, err := safefile.ReadInput(ctx, s.File, solver.MaxSecret)
		s.File, s.Content = "", append([]byte{}, content...)
		return err
	}
	abs, err := filepath.Abs(s.File)
	if err != nil {
		return err
	}
	file, err := safefile.Open(abs)
	if err != nil {
		return usage.Errorf("%s: %w", s.File, pathless(err))
	}
	s.File = abs
	return file.Close()
}
