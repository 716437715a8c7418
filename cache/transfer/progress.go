package transfer

import "context"

type progressKey struct{}

// WithProgress returns a context whose downloads report the bytes that arrived
// since the last report, beside GetOptions.Progress: for callers of something that is
// downloaded several calls further down, as net/http/httptrace does. Several downloads may
// report at the same time.
func WithProgress(ctx context.Context, report func(n int64)) context.Context {
	return context.WithValue(ctx, progressKey{}, report)
}

// withProgress adds the progress function of the context.
func (o GetOptions) withProgress(ctx context.Context) GetOptions {
	report, ok := ctx.Value(progressKey{}).(func(n int64))
	if !ok {
		return o
	}
	own := o.Progress
	o.Progress = func(n int64) {
		report(n)
		if own != nil {
			own(n)
		}
	}
	return o
}
