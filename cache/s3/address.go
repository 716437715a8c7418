package s3

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"

	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/clayer/clayer/cache/transfer"
)

// An Address is a bucket, and a prefix of the names of objects in it.
type Address struct{ bucket, prefix string }

// ParseAddress reads s3://BUCKET or s3://BUCKET/PREFIX.
func ParseAddress(s string) (Address, error) {
	bad := func(why string) (Address, error) {
		return Address{}, fmt.Errorf("want s3://BUCKET/PREFIX: %s", why)
	}
	rest, ok := strings.CutPrefix(s, "s3://")
	if !ok {
		return bad("a bucket follows s3://")
	}
	bucket, prefix, _ := strings.Cut(rest, "/")
	switch {
	case strings.Contains(bucket, "@"): // never quoted: a password may stand before it
		return bad("no login belongs there; see clayer cache --help for logins")
	case strings.ContainsAny(rest, "?#"):
		return bad("neither a query nor a fragment belongs there")
	case s3utils.CheckValidBucketName(bucket) != nil || strings.Contains(bucket, ":"):
		return bad(fmt.Sprintf("%q is no name of a bucket", bucket))
	}
	prefix = strings.Trim(prefix, "/")
	for part := range strings.SplitSeq(prefix, "/") {
		if prefix != "" && (part == "" || part == "." || part == "..") || strings.ContainsFunc(part, unicode.IsControl) {
			return bad(fmt.Sprintf("%q is no prefix", prefix))
		}
	}
	if len(prefix) > 500 {
		return bad("the prefix is longer than 500 bytes")
	}
	return Address{bucket, prefix}, nil
}

// String returns the address as ParseAddress reads it.
func (a Address) String() string {
	if a.prefix == "" {
		return "s3://" + a.bucket
	}
	return "s3://" + a.bucket + "/" + a.prefix
}

// object returns the whole name of an object.
func (a Address) object(name string) string {
	if a.prefix == "" {
		return name
	}
	return a.prefix + "/" + name
}

// parseEndpoint reads the address of a service.
func parseEndpoint(variable, s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("$%s is no URL", variable) // the parser's error quotes it
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, fmt.Errorf("$%s: want https://HOST", variable)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("$%s: neither a user nor a query belongs there", variable)
	case u.Scheme == "http" && !transfer.IsLoopback(u.Host):
		return nil, fmt.Errorf("$%s: %s: without TLS anybody on the way could change what is restored: use https", variable, u.Host)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// amazonEndpoint returns Amazon's own service. Where no region is known, its one name for
// all: the answer says which region has the bucket.
func amazonEndpoint(region string) *url.URL {
	host := "s3.amazonaws.com"
	if region != "" {
		host = "s3." + region + ".amazonaws.com"
	}
	if strings.HasPrefix(region, "cn-") {
		host += ".cn"
	}
	return &url.URL{Scheme: "https", Host: host}
}

// address returns the URL of an object; of the bucket, if the name is "". A bucket is
// named by the host where the service is known to require that, else by the path: proxies
// that let Google's storage.googleapis.com through refuse the hosts below it.
func (l *Login) address(bucket, object string) string {
	u := *l.endpoint
	path := u.Path
	switch {
	case l.style == "virtual", l.style == "" && !l.google() && s3utils.IsVirtualHostSupported(u, bucket):
		u.Host = bucket + "." + u.Host
	default:
		path += "/" + bucket
	}
	return u.Scheme + "://" + u.Host + s3utils.EncodePath(path+"/"+object)
}

// google reports whether the service is Google's.
func (l *Login) google() bool { return l.endpoint.Hostname() == "storage.googleapis.com" }

// amazon reports whether the service is Amazon's.
func (l *Login) amazon() bool {
	host := l.endpoint.Hostname()
	return strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
}

var errNoRegion = errors.New("the bucket is in another region, which the service does not name: set AWS_REGION")
