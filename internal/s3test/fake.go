package s3test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Fake is a service in this process, whose buckets are there when they are named. It
// takes any signature, and does what its fields say; they are set before it is asked, or
// with Change.
type Fake struct {
	*httptest.Server

	Conditions Conditions
	Public     bool // requests need no signature to read
	Unlisted   bool // nobody may list buckets: what is missing is 403
	PageSize   int  // of a listing; 0 means 1000

	// Fault is called before a request is served, and reports whether it answered it. nil
	// answers none.
	Fault func(w http.ResponseWriter, r *http.Request) bool

	mu      sync.Mutex
	asked   []string
	objects map[string]stored            // by bucket/name
	uploads map[string]map[string][]byte // parts by number, by id
	n       int
}

// Conditions say what a service makes of If-Match and If-None-Match.
type Conditions uint8

const (
	Honoured    Conditions = iota
	Ignored                // it writes all the same
	NotThere               // 501
	BadArgument            // 400
)

type stored struct {
	data []byte
	at   time.Time
}

func (s stored) etag() string { return fmt.Sprintf(`"%x"`, md5.Sum(s.data)) }

// Handler returns a service that nothing listens for.
func Handler() *Fake {
	return &Fake{objects: make(map[string]stored), uploads: make(map[string]map[string][]byte)}
}

// NewFake starts a service that ends with the test.
func NewFake(t testing.TB) *Fake {
	f := Handler()
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.Server.CloseClientConnections()
		f.Server.Close()
	})
	return f
}

// Change changes fields while the service is asked.
func (f *Fake) Change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// Asked returns the requests since it was called last, as METHOD PATH?QUERY.
func (f *Fake) Asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.asked
	f.asked = nil
	return all
}

// Objects returns the objects of a bucket by name.
func (f *Fake) Objects(bucket string) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[string]string)
	for name, o := range f.objects {
		if rest, ok := strings.CutPrefix(name, bucket+"/"); ok {
			all[rest] = string(o.data)
		}
	}
	return all
}

// Set writes an object as of a time; Delete deletes one.
func (f *Fake) Set(bucket, name, data string, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[bucket+"/"+name] = stored{[]byte(data), at}
}

// Delete deletes an object.
func (f *Fake) Delete(bucket, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.objects, bucket+"/"+name)
}

// Refuse answers with the error of a service.
func Refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>the message of %s</Message></Error>`, code, code)
}

// ServeHTTP answers a request.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.URL.RequestURI())
	fault := f.Fault
	f.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	f.Serve(w, r)
}

// Serve answers a request without a fault.
func (f *Fake) Serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	signed := strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=")
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	if sum := sha256.Sum256(body); signed && r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]) {
		Refuse(w, http.StatusBadRequest, "XAmzContentSHA256Mismatch")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !signed && !(f.Public && reads) {
		Refuse(w, http.StatusForbidden, "AccessDenied")
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	bucket, name, _ := strings.Cut(path, "/")
	query := r.URL.Query()
	switch {
	case name == "" && query.Has("uploads"):
		f.listUploads(w, bucket)
	case name == "":
		f.list(w, bucket, query.Get("prefix"), query.Get("continuation-token"))
	case reads:
		f.get(w, r, path)
	case query.Has("uploadId"), query.Has("uploads"):
		f.upload(w, r, path, body)
	case r.Method == http.MethodPut:
		f.put(w, r, path, body)
	case r.Method == http.MethodDelete:
		delete(f.objects, path)
		w.WriteHeader(http.StatusNoContent)
	default:
		Refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed")
	}
}

func (f *Fake) get(w http.ResponseWriter, r *http.Request, path string) {
	o, ok := f.objects[path]
	if !ok {
		if f.Unlisted {
			Refuse(w, http.StatusForbidden, "AccessDenied")
			return
		}
		Refuse(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	w.Header().Set("ETag", o.etag())
	http.ServeContent(w, r, "", o.at, bytes.NewReader(o.data))
}

func (f *Fake) put(w http.ResponseWriter, r *http.Request, path string, body []byte) {
	isNew, still := r.Header.Get("If-None-Match"), r.Header.Get("If-Match")
	if isNew != "" || still != "" {
		o, ok := f.objects[path]
		switch f.Conditions {
		case Honoured:
			if isNew == "*" && ok || still != "" && (!ok || still != o.etag()) {
				Refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
				return
			}
		case NotThere:
			Refuse(w, http.StatusNotImplemented, "NotImplemented")
			return
		case BadArgument:
			Refuse(w, http.StatusBadRequest, "InvalidArgument")
			return
		}
	}
	o := stored{body, time.Now()}
	f.objects[path] = o
	w.Header().Set("ETag", o.etag())
}

func (f *Fake) upload(w http.ResponseWriter, r *http.Request, path string, body []byte) {
	query := r.URL.Query()
	if query.Has("uploads") {
		f.n++
		id := fmt.Sprintf("%s %d", path, f.n)
		f.uploads[id] = make(map[string][]byte)
		writeXML(w, struct {
			XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
			UploadId string
		}{UploadId: id})
		return
	}
	id := query.Get("uploadId")
	parts, ok := f.uploads[id]
	if !ok {
		Refuse(w, http.StatusNotFound, "NoSuchUpload")
		return
	}
	switch r.Method {
	case http.MethodPut:
		parts[query.Get("partNumber")] = body
		w.Header().Set("ETag", stored{data: body}.etag())
	case http.MethodDelete:
		delete(f.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPost:
		var named struct {
			Part []struct {
				PartNumber int
				ETag       string
			}
		}
		if xml.Unmarshal(body, &named) != nil {
			Refuse(w, http.StatusBadRequest, "MalformedXML")
			return
		}
		var data []byte
		for _, p := range named.Part {
			part, ok := parts[strconv.Itoa(p.PartNumber)]
			if !ok || (stored{data: part}).etag() != p.ETag {
				Refuse(w, http.StatusBadRequest, "InvalidPart")
				return
			}
			data = append(data, part...)
		}
		f.objects[path] = stored{data, time.Now()}
		delete(f.uploads, id)
		writeXML(w, struct {
			XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
		}{})
	}
}

// Uploads returns how many uploads in parts are under way.
func (f *Fake) Uploads() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.uploads)
}

func (f *Fake) listUploads(w http.ResponseWriter, bucket string) {
	type upload struct {
		Key, UploadId string
		Initiated     time.Time
	}
	var list struct {
		XMLName xml.Name `xml:"ListMultipartUploadsResult"`
		Upload  []upload
	}
	for id := range f.uploads {
		path, _, _ := strings.Cut(id, " ")
		list.Upload = append(list.Upload, upload{strings.TrimPrefix(path, bucket+"/"), id, time.Now().Add(-30 * 24 * time.Hour)})
	}
	writeXML(w, list)
}

func (f *Fake) list(w http.ResponseWriter, bucket, prefix, after string) {
	if f.Unlisted {
		Refuse(w, http.StatusForbidden, "AccessDenied")
		return
	}
	type content struct {
		Key          string
		Size         int64
		LastModified time.Time
		ETag         string
	}
	var page struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Contents              []content
		IsTruncated           bool
		NextContinuationToken string
	}
	most := f.PageSize
	if most == 0 {
		most = 1000
	}
	for _, path := range slices.Sorted(maps.Keys(f.objects)) {
		name, ok := strings.CutPrefix(path, bucket+"/")
		if !ok || !strings.HasPrefix(name, prefix) || name <= after {
			continue
		}
		if len(page.Contents) == most {
			page.IsTruncated, page.NextContinuationToken = true, page.Contents[most-1].Key
			break
		}
		o := f.objects[path]
		page.Contents = append(page.Contents, content{name, int64(len(o.data)), o.at, o.etag()})
	}
	writeXML(w, page)
}

func writeXML(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/xml")
	data, err := xml.Marshal(v)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(append([]byte(xml.Header), data...))
}
