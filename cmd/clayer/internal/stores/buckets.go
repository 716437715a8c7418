package stores

import (
	"os"
	"strings"

	"github.com/clayer/clayer/cache/s3"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
)

// A bucket is one of S3, or a part of one.
type bucket struct {
	at    s3.Address
	login s3.Login
}

func isBucket(s string) bool { return strings.HasPrefix(s, "s3:") }

// buckets returns the buckets that --store names. All are at the service, and are asked
// with the credentials, that the variables and files of Amazon's tools name.
func (o *Opener) buckets() (map[string]bucket, error) {
	all := make(map[string]bucket)
	for _, s := range o.Stores {
		if !isBucket(s) {
			continue
		}
		at, err := s3.ParseAddress(s)
		if err != nil {
			return nil, usage.Errorf("--store: %w", err)
		}
		login, err := s3.FindLogin(at, os.Getenv)
		if err != nil {
			return nil, usage.Errorf("--store=s3: %w", err)
		}
		all[s] = bucket{at, login}
	}
	return all, nil
}
