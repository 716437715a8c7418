package metadata

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A Port is a word of EXPOSE: [address:][port:]port[/protocol], where a port can be a range.
type Port struct{ Address, Host, Container, Protocol string }

// SplitPort returns the parts of a word.
func SplitPort(word string) Port {
	var p Port
	i := strings.LastIndexByte(word, ':')
	p.Container = word[i+1:]
	if i >= 0 {
		p.Host = word[:i]
	}
	if i = strings.LastIndexByte(p.Host, ':'); i >= 0 {
		p.Address, p.Host = p.Host[:i], p.Host[i+1:]
	}
	p.Container, p.Protocol, _ = strings.Cut(p.Container, "/")
	return p
}

// Ports returns what the words of an EXPOSE stand for, as the config of an image names it:
// "80/tcp".
func Ports(words []string) (all []string, err error) {
	for _, word := range words {
		p := SplitPort(word)
		protocol := strings.ToLower(p.Protocol)
		if protocol == "" {
			protocol = "tcp"
		}
		first, last, ok := portRange(p.Container)
		switch {
		case !ok:
			return nil, fmt.Errorf("%q is no port, and no range of ports", word)
		case !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol):
			return nil, fmt.Errorf("%q: the protocol is tcp, udp or sctp", word)
		case p.Address != "" && !isAddress(p.Address):
			return nil, fmt.Errorf("%q: %s is no address", word, p.Address)
		}
		if p.Host != "" {
			from, to, ok := portRange(p.Host)
			if !ok || to-from != last-first && last != first {
				return nil, fmt.Errorf("%q: %s is no port of a host for %s", word, p.Host, p.Container)
			}
		}
		for n := first; n <= last; n++ {
			all = append(all, strconv.Itoa(n)+"/"+protocol)
		}
	}
	return all, nil
}

func isAddress(text string) bool {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		text, _ = strings.CutSuffix(inner, "]")
	}
	_, err := netip.ParseAddr(text)
	return err == nil
}

func portRange(text string) (first, last int, ok bool) {
	from, to, isRange := strings.Cut(text, "-")
	first, err := strconv.Atoi(from)
	if err != nil || first < 0 || first > 65535 {
		return 0, 0, false
	}
	if !isRange {
		return first, first, true
	}
	last, err = strconv.Atoi(to)
	return first, last, err == nil && last >= first && last <= 65535
}
