package transfer

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// A Host is what became of the requests to one host.
type Host struct {
	Name     string // with its port, if that is not its scheme's
	Code     int    // of the last answer if that refused: 401, 403, 407 or 451; else 0
	Err      error  // why it did not answer the last time; nil if it did
	Answered bool   // to some request, without refusing
}

// Hosts returns the hosts that were asked in this process, in order of their names.
func (n *Network) Hosts() []Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.SortedFunc(maps.Values(n.asks), func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
}

// note remembers what became of a request.
func (n *Network) note(host string, resp *http.Response, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.asks[host]
	h.Name, h.Err = host, err
	if resp != nil {
		switch resp.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusUnavailableForLegalReasons:
			h.Code = resp.StatusCode
		default:
			h.Code, h.Answered = 0, true
		}
	}
	n.asks[host] = h
}
