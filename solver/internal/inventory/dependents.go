package inventory

import (
	"strings"

	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/rootfs"
)

// Watch returns what warns of packages that are left without others on which they depend,
// by a change of the root that is made until then: such as one that was installed by hand,
// with apt, on top of a layer that is undone.
func Watch(root *rootfs.Root, warnf func(format string, args ...any)) (warn func()) {
	status := func() []byte {
		data, _ := root.Names().ReadFile("var/lib/dpkg/status") // most roots are no Debian
		return data
	}
	before := status()
	return func() {
		if len(before) == 0 {
			return
		}
		var list []string
		for _, b := range needs.BreaksDebian(before, status()) {
			list = append(list, b.Name+" depends on "+b.On)
		}
		const most = 5
		more := ""
		if len(list) > most {
			list, more = list[:most], " and others"
		}
		if len(list) > 0 {
			warnf("packages that stay lack others, which were removed with the step that installed them: %s%s. apt-get --fix-broken install installs what they lack", strings.Join(list, ", "), more)
		}
	}
}
