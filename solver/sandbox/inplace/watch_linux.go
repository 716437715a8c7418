package inplace

import (
	"context"
	"errors"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/tree"
	"github.com/clayer/clayer/solver/sandbox"
)

// Watch implements sandbox.InPlace. On a root that is an overlay, files are not read
// beforehand, as they are for a Run: whoever runs the command waits. A file that is only
// opened for writing there is reported, which is safe.
func (p *place) Watch(ctx context.Context, hidden func(path string) bool) (ended func(context.Context) error, err error) {
	if !p.s.trusted && p.s.Compare != sandbox.CompareDigest {
		return nil, errors.New(p.s.how)
	}
	if p.s.trusted {
		p.s.bounded, p.s.sums = false, tree.SumLinked
	}
	filter := new(snapshot.Filter)
	matcher, err := filter.Compile()
	if err != nil {
		return nil, err
	}
	trusted, err := p.begin(ctx, filter.String(), matcher)
	if err != nil {
		return nil, err
	}
	clock := time.Now()
	own := p.hidesScratch(tree.Hide(p.s.Hide))
	return func(ctx context.Context) (err error) {
		p.watched, err = p.since(ctx, trusted, wentBack(clock), time.Time{}, &tree.Between{
			Filter: matcher, Hide: func(path string) bool { return own(path) || hidden(path) },
		}, matcher)
		return err
	}, nil
}
