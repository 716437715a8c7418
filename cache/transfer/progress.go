package transfer

import "context"

type progressKey struct{}

// WithProgress returns a context whose downloads tell of bytes that arrived
// since they told last, beside GetOptions.Progress: for one who asks for
// something that is brought several calls further down, as net/http/httptrace
// does. Several downloads may tell at the same time.
func WithProgress(ctx context.Context, tell func(n int64)) context.Context {
	return context.WithValue(ctx, progressKey{}, tell)
}

// telling adds who is told by the context.
func (o GetOptions) telling(ctx context.Context) GetOptions {
	tell, ok := ctx.Value(progressKey{}).(func(n int64))
	if !ok {
		return o
	}
	own := o.Progress
	o.Progress = func(n int64) {
		tell(n)
		if own != nil {
			own(n)
		}
	}
	return o
}
