package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/gitsource"
	"github.com/clayer/clayer/solver/internal/archive"
	"github.com/clayer/clayer/solver/internal/downloads"
	"github.com/clayer/clayer/solver/internal/fault"
	"github.com/clayer/clayer/solver/internal/gittree"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/places"
)

// origin is where a FETCH gets its bytes.
type origin uint8

const (
	fromURL origin = iota
	fromGitHub
	fromGit
)

// originOf returns the kind of a source, and refuses unknown ones.
func originOf(source string) (origin, error) {
	if gitsource.Is(source) {
		return fromGit, nil
	}
	scheme, _, _ := strings.Cut(source, ":")
	switch strings.ToLower(scheme) {
	case "http", "https":
		return fromURL, nil
	case "github":
		return fromGitHub, nil
	}
	return 0, &Fault{
		Message: fmt.Sprintf("source %q is neither a URL nor github:owner/repo", transfer.Redact(source)),
		Hint:    "local files are for COPY",
	}
}

// Fetch resolves the source of a FETCH: a Git tree to a commit. With --checksum that takes no request.
// A plain URL is downloaded and hashed, and stored if Downloads stores anything.
func (r *Resolver) Fetch(ctx context.Context, f *frontend.Fetch) (Pin, error) {
	from, err := checkFetch(f)
	switch {
	case err != nil:
		return Pin{}, err
	case from != fromURL:
		return r.resolveTree(ctx, f)
	case f.Checksum == "":
		return r.request(ctx, f.Source)
	}
	return Pin{Digest: f.Checksum}, nil
}

// CheckFetch returns what Fetch would refuse without a request.
func CheckFetch(f *frontend.Fetch) error {
	_, err := checkFetch(f)
	return err
}

func checkFetch(f *frontend.Fetch) (origin, error) {
	from, err := originOf(f.Source)
	switch {
	case err != nil:
	case from != fromURL:
		_, err = checkTree(f)
	case f.Checksum != "":
		err = checkChecksum(f)
	}
	return from, err
}

func checkChecksum(f *frontend.Fetch) error {
	if err := f.Checksum.Validate(); err != nil || f.Checksum.Algorithm() != digest.SHA256 {
		return fault.New("--checksum=%s: want sha256: and 64 hex digits", f.Checksum)
	}
	return nil
}

// request downloads a URL, once.
func (r *Resolver) request(ctx context.Context, source string) (Pin, error) {
	return once(&r.mu, &r.urls, source, func() (Pin, error) { return r.download(ctx, source, true) })
}

// download downloads a URL. Where reuse is true and its server says that the
// stored bytes are still current, those are used.
func (r *Resolver) download(ctx context.Context, source string, reuse bool) (Pin, error) {
	var opt transfer.GetOptions
	var last downloads.Answer
	if reuse {
		if a, ok := r.Downloads.Recall(source); ok {
			last = a
			opt.ETag, opt.LastModified = a.ETag, a.LastModified
			opt.Patience = 3 * time.Second // see lastSeen
		}
	}
	if r.Downloads == nil || r.Downloads.ReadOnly {
		res, err := r.get(ctx, source, nothing{}, opt)
		if errors.Is(err, transfer.ErrNotModified) {
			return Pin{Digest: last.Digest, Size: last.Size}, nil
		}
		if err != nil {
			return r.lastSeen(ctx, source, last, err)
		}
		return Pin{Digest: res.Digest, Size: res.Size}, nil
	}
	p, err := r.Downloads.NewPart()
	if err != nil {
		return Pin{}, err
	}
	res, err := r.get(ctx, source, p, opt)
	if err != nil {
		p.Drop()
		if errors.Is(err, transfer.ErrNotModified) {
			return Pin{Digest: last.Digest, Size: last.Size}, nil
		}
		return r.lastSeen(ctx, source, last, err)
	}
	p.Store(res.Digest)
	r.Downloads.Note(source, downloads.Answer{
		ETag: res.ETag, LastModified: res.LastModified, Digest: res.Digest, Size: res.Size,
	})
	return Pin{Digest: res.Digest, Size: res.Size}, nil
}

// nothing stores nothing. It is a transfer.Rewinder.
type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }
func (nothing) Rewind() error               { return nil }

// get downloads a URL. A file of a private repository's release is asked for by
// the API, with the token, when its URL says that there is none.
func (r *Resolver) get(ctx context.Context, source string, w transfer.Rewinder, opt transfer.GetOptions) (transfer.Result, error) {
	res, err := r.Client.Get(ctx, source, w, opt)
	var status *transfer.StatusError
	if r.GitHub == nil || !errors.As(err, &status) || status.Code != 404 {
		return res, err
	}
	if res, ok, aerr := r.GitHub.ReadReleaseFile(ctx, source, w, opt); ok {
		return res, aerr
	}
	return res, err
}

// lastSeen returns what a URL gave last, if there is such a thing and the
// network alone is to blame that it does not answer now; else the error.
func (r *Resolver) lastSeen(ctx context.Context, source string, last downloads.Answer, err error) (Pin, error) {
	var status *transfer.StatusError
	away := transfer.Retryable(err) || transfer.Unreachable(err) || errors.Is(err, transfer.ErrOffline)
	if last.Digest == "" || ctx.Err() != nil || errors.As(err, &status) || !away {
		return Pin{}, err
	}
	if r.Warn != nil {
		r.Warn(fmt.Sprintf("%s does not answer, so what it gave last is taken: %v", transfer.Redact(source), err))
	}
	return Pin{Digest: last.Digest, Size: last.Size}, nil
}

// ensure makes sure that Downloads has the bytes of a pin, verified.
func (r *Resolver) ensure(ctx context.Context, f *frontend.Fetch, want digest.Digest) error {
	if r.Downloads == nil || r.Downloads.ReadOnly {
		return errors.New("no directory for downloads")
	}
	// What can't be read in the directory, whatever is wrong with that, is
	// downloaded.
	stored := func() bool {
		_, err := r.Downloads.Open(want)
		return err == nil
	}
	if stored() {
		return nil
	}
	pin, err := r.request(ctx, f.Source)
	if err != nil {
		return err
	}
	if pin.Digest == want {
		if stored() {
			return nil
		}
		// It was resolved to stored bytes that turn out to be corrupt, or that
		// another process has pruned since.
		if pin, err = r.download(ctx, f.Source, false); err != nil {
			return err
		}
	}
	if pin.Digest != want {
		return mismatch(f, want, pin.Digest)
	}
	return nil
}

// mismatch says that a URL gave other bytes than those asked for.
func mismatch(f *frontend.Fetch, want, got digest.Digest) error {
	shown := transfer.Redact(f.Source)
	fault := &Fault{
		Message: "checksum mismatch for " + shown,
		Detail:  fmt.Sprintf("want %s  got %s   nothing was written to %s", want, got, f.Dest),
		Err:     &transfer.ChecksumError{URL: shown, Want: want, Got: got},
	}
	if f.Checksum == "" {
		fault.Message = shown + " changed since it was resolved"
		fault.Hint = "run the command again; --checksum names the version that is wanted"
	} else if f.Pos.Line > 0 {
		fault.Hint = fmt.Sprintf("if the file was meant to change, put the new checksum into line %d", f.Pos.Line)
	}
	return fault
}

// FetchChanges returns the entries of a FETCH, given its pin. It
// downloads what Downloads doesn't have, and reads an archive's headers once, so
// that what is wrong with it is known before the first entry is asked for. The
// stream may be read several times.
//
// Dest is a directory that is created if missing. An archive is unpacked there: owner
// 0:0 unless --chown is given, since archives carry the ids of whoever made
// them; modes and times (in whole seconds) as the archive has them, for a Git tree 0644
// or 0755, and 1980-01-01; extended
// attributes are left out. --chmod goes for files, and for directories with the right
// to enter where there is one to read. Directories are implied: an existing one,
// or a symlink to one, stays as it is; no other file gives way to one, and no directory to
// a file. A hard link whose target --strip
// drops becomes the file itself. Anything but an archive is stored as a file with
// mode 0644 or --chmod, of 1980-01-01, named by the URL's last path part.
func (r *Resolver) FetchChanges(ctx context.Context, f *frontend.Fetch, p Pin) (Placer, error) {
	from, err := originOf(f.Source)
	if err != nil {
		return nil, err
	}
	if from != fromURL {
		return r.treeChanges(ctx, f, p)
	}
	if f.Add {
		return r.addChanges(ctx, f, p)
	}
	if f.Checksum != "" {
		if err := checkChecksum(f); err != nil {
			return nil, err
		}
	}
	if err := p.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("pin of %s: %w", transfer.Redact(f.Source), err)
	}
	if err := r.ensure(ctx, f, p.Digest); err != nil {
		return nil, err
	}
	open := func() (archive.Blob, error) { return r.openBlob(p.Digest) }
	b, err := open()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	shown := transfer.Redact(f.Source)
	kind := archive.None
	if f.Extract != frontend.ExtractFalse {
		if kind, err = archive.Detect(b, b.Size); err != nil {
			return nil, fmt.Errorf("%s: %w", shown, err)
		}
		if kind == archive.None && f.Extract == frontend.ExtractTrue {
			return nil, &Fault{
				Message: shown + " is not an archive",
				Hint:    "without --extract=true it is stored as it is",
			}
		}
		if kind == archive.Zip && f.Extract != frontend.ExtractTrue && archive.UsedAsZip(f.Source) {
			kind = archive.None
		}
	}
	if kind == archive.None {
		name, err := fileName(f.Source)
		if err != nil {
			return nil, err
		}
		size := b.Size
		return placeFetch(f, func(at *names.View, dest string, by style) (snapshot.Changes, error) {
			if err := mayPlace(places.Of(at), path.Join(dest, name), false, false); err != nil {
				return nil, err
			}
			return storeFile(dest, name, size, by, func() (io.ReadCloser, error) {
				b, err := open()
				if err != nil {
					return nil, err
				}
				return struct {
					io.Reader
					io.Closer
				}{io.NewSectionReader(b, 0, b.Size), b}, nil
			}), nil
		}), nil
	}
	a := &archive.Archive{Name: shown, Kind: kind, Open: open}
	l, err := a.Layout(ctx, archive.Trim{Strip: f.Strip})
	if err != nil {
		return nil, err
	}
	return r.placeArchive(ctx, f, a, l, func(by style, e *snapshot.Entry) { by.applyEnterable(e) }), nil
}

// placeArchive returns the Placer of a FETCH of an archive.
func (r *Resolver) placeArchive(ctx context.Context, f *frontend.Fetch, a *archive.Archive, l *archive.Layout, set func(style, *snapshot.Entry)) Placer {
	return placeFetch(f, func(at *names.View, dest string, by style) (snapshot.Changes, error) {
		in := places.Of(at)
		for _, name := range l.Names() {
			if r.replaces(f) {
				break
			}
			if err := mayPlace(in, path.Join(dest, name), strings.HasSuffix(name, "/"), true); err != nil {
				return nil, err
			}
		}
		changes := a.Unpack(ctx, l, dest, func(e *snapshot.Entry) { set(by, e) })
		return func(yield func(*snapshot.Entry, error) bool) {
			if dest == "" || yield(impliedDir(dest, by), nil) {
				changes(yield)
			}
		}, nil
	})
}

func (r *Resolver) replaces(f *frontend.Fetch) bool { return r.Replaces != nil && r.Replaces(f) }

// placeFetch returns the Placer of a FETCH, whose dest is a directory.
func placeFetch(f *frontend.Fetch, changes func(at *names.View, dest string, by style) (snapshot.Changes, error)) Placer {
	return func(at *names.View) (snapshot.Changes, error) {
		by, err := styleIn(at, f.Owner)
		if err != nil {
			return nil, err
		}
		dest, err := dirIn(at, f.Dest)
		if err != nil {
			return nil, err
		}
		return changes(at, dest, by)
	}
}

// treeChanges returns the entries of a commit's tree, or of a directory in it.
func (r *Resolver) treeChanges(ctx context.Context, f *frontend.Fetch, p Pin) (Placer, error) {
	t, err := treeOf(f)
	if err != nil {
		return nil, err
	}
	if !gittree.IsCommit(p.Commit) {
		return nil, fmt.Errorf("pin of %s: %q is no commit", f.Source, p.Commit)
	}
	dg, err := r.fetchTree(ctx, t, p.Commit)
	if err != nil {
		return nil, err
	}
	a := &archive.Archive{Name: f.Source, Kind: archive.TarGzip, Open: func() (archive.Blob, error) { return r.openBlob(dg) }}
	l, err := a.Layout(ctx, archive.Trim{Top: true, Below: t.dir, Strip: f.Strip})
	if err != nil {
		return nil, err
	}
	if t.dir != "" && l.Empty() {
		return nil, &Fault{
			Message: fmt.Sprintf("%s has no %q at commit %.12s", t, t.dir, p.Commit),
			Hint:    "the path after // is a directory of the repository, relative to its top",
		}
	}
	if err := leaveOut(l, f.Exclude); err != nil {
		return nil, err
	}
	if f.Add {
		return addTree(ctx, f, a, l), nil
	}
	return r.placeArchive(ctx, f, a, l, func(by style, e *snapshot.Entry) {
		asTree(e)
		by.applyEnterable(e)
	}), nil
}

func (r *Resolver) openBlob(dg digest.Digest) (archive.Blob, error) {
	f, err := r.Downloads.Open(dg)
	if err != nil {
		return archive.Blob{}, fmt.Errorf("download %s: %w", dg, err)
	}
	info, err := f.Stat()
	if err != nil {
		return archive.Blob{}, err
	}
	return archive.Blob{ReaderAt: f, Closer: io.NopCloser(nil), Size: info.Size()}, nil // others may read the same file
}

// storeFile is a download as a file of its own.
func storeFile(dest, name string, size int64, by style, open func() (io.ReadCloser, error)) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		if dest != "" && !yield(impliedDir(dest, by), nil) {
			return
		}
		e := &snapshot.Entry{
			Path: path.Join(dest, name), Kind: snapshot.File,
			Mode: 0o644, Size: size, ModTime: epoch, Open: open,
		}
		by.apply(e)
		yield(e, nil)
	}
}

// PlainFile returns the path, relative to the root, of what a FETCH writes if it is
// one file and no archive; "" where its source names none.
func PlainFile(f *frontend.Fetch) string {
	var name string
	switch from, err := originOf(f.Source); {
	case err != nil || f.Add:
	case from != fromURL:
		if t, err := parseTree(f.Source); err == nil && t.dir != "" {
			name = path.Base(t.dir)
		}
	default:
		name, _ = fileName(f.Source)
	}
	if name == "" {
		return ""
	}
	return path.Join(entryPath(f.Dest), name)
}

// fileName returns the name under which the file of a URL is stored.
func fileName(source string) (string, error) {
	u, err := url.Parse(source)
	if err != nil {
		return "", fault.New("malformed URL %s", transfer.Redact(source))
	}
	escaped := u.EscapedPath()
	name, err := url.PathUnescape(escaped[strings.LastIndexByte(escaped, '/')+1:])
	if err != nil {
		return "", fault.New("malformed URL %s", transfer.Redact(source))
	}
	if name == "" {
		return "", &Fault{
			Message: transfer.Redact(source) + " has no file name",
			Hint:    "give a URL whose path ends in the name that the file shall have",
		}
	}
	if name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return "", &Fault{
			Message: fmt.Sprintf("%s: %q is no file name", transfer.Redact(source), name),
			Hint:    "give a URL whose path ends in the name that the file shall have",
		}
	}
	return name, nil
}
