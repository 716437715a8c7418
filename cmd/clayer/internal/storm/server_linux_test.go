package storm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

const archiveName = "archive.tar.gz"

// archive is what FETCH gets: the same bytes in each round.
var archive = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	add := func(h tar.Header, content string) {
		h.Size, h.ModTime = int64(len(content)), long
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			panic(err)
		}
	}
	add(tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	add(tar.Header{Name: "bin/tool", Typeflag: tar.TypeReg, Mode: 0o755}, "#!/bin/sh\n")
	add(tar.Header{Name: "bin/same", Typeflag: tar.TypeLink, Linkname: "bin/tool", Mode: 0o755}, "")
	add(tar.Header{Name: "bin/link", Typeflag: tar.TypeSymlink, Linkname: "tool", Mode: 0o777}, "")
	for i := range 20 {
		add(tar.Header{Name: fmt.Sprintf("lib/%d", i), Typeflag: tar.TypeReg, Mode: 0o644}, strings.Repeat(fmt.Sprintf("%d, and not much more\n", i*i*7919), 50*i))
	}
	if w.Close() != nil || z.Close() != nil {
		panic("an archive in memory")
	}
	return b.Bytes()
})

var archiveSum = sync.OnceValue(func() string { return fmt.Sprintf("sha256:%x", sha256.Sum256(archive())) })

// A server is where FETCH fetches from.
type server struct {
	*httptest.Server
	*faulty
}

func newServer() *server {
	f := &faulty{real: http.HandlerFunc(serveArchive)}
	return &server{httptest.NewServer(f), f}
}

func (s *server) host() string { return s.Listener.Addr().String() }

func serveArchive(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/"+archiveName {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Etag", `"1"`)
	http.ServeContent(w, r, archiveName, long, bytes.NewReader(archive()))
}

// misbehave answers in a way that a server should not, and reports whether it
// did. real is what would be right.
func misbehave(w http.ResponseWriter, r *http.Request, answer string, real http.HandlerFunc) bool {
	switch answer {
	case "403", "404", "429", "500", "503":
		var code int
		fmt.Sscan(answer, &code)
		http.Error(w, "not now", code)
	case "html":
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html>log in first</html>")
	case "empty":
	case "reset":
		panic(http.ErrAbortHandler)
	case "cut":
		real(&cutter{ResponseWriter: w, left: 700}, r)
	case "slow":
		real(&slow{ResponseWriter: w, r: r}, r)
	case "redirect":
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
	default:
		return false
	}
	return true
}

// answers are the names of what misbehave does.
var answers = []string{"403", "404", "429", "500", "503", "html", "empty", "reset", "cut", "slow", "redirect"}

// A cutter ends the connection after some bytes.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	c.ResponseWriter.Write(p[:c.left])
	c.ResponseWriter.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// A slow one writes in pieces with pauses between them.
type slow struct {
	http.ResponseWriter
	r *http.Request
}

func (s *slow) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := s.ResponseWriter.Write(p[n:min(len(p), n+1000)])
		n += m
		if err != nil {
			return n, err
		}
		s.ResponseWriter.(http.Flusher).Flush()
		select {
		case <-time.After(10 * time.Millisecond):
		case <-s.r.Context().Done():
			return n, s.r.Context().Err()
		}
	}
	return n, nil
}
