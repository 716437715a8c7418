package capture

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// maxRest bounds how many SNAPSHOTs are proposed: the largest.
const maxRest = 20

// passing are files that managers and sessions change as they go; none of them
// is part of an environment. Directories end with a slash.
var passing = []string{
	"/var/lib/dpkg/", "/var/lib/apt/", "/var/lib/systemd/", "/var/lib/ucf/", "/var/lib/pam/", "/var/cache/", "/var/log/", "/var/backups/",
	"/var/lib/clayer/", "/run/", "/tmp/", "/var/tmp/", "/proc/", "/sys/", "/dev/", "/lost+found/", "/etc/ld.so.cache", "/etc/mtab", "/etc/hosts",
	"/etc/hostname", "/etc/resolv.conf", "/etc/.pwd.lock", "/etc/alternatives/",
	// Packages add accounts, each machine has its own; on an overlay they look new.
	"/etc/passwd", "/etc/passwd-", "/etc/group", "/etc/group-", "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/subuid", "/etc/subuid-", "/etc/subgid", "/etc/subgid-",
	"/etc/passwd.org", "/etc/group.org", "/etc/shadow.org", "/etc/gshadow.org", "/etc/security/opasswd", "/etc/security/opasswd.old",
}

// passingNames are directories of that kind wherever they are.
var passingNames = append([]string{"__pycache__", ".cache", ".git"}, sessionNames...)

// sessionNames are files and directories in a home that are a session's, and that no
// manager installs: credentials, and what shells and other programs remember.
var sessionNames = []string{".npm", ".claude", ".bash_history", ".zsh_history", ".python_history", ".lesshst", ".wget-hsts", ".ssh", ".gnupg", ".aws", ".netrc"}

// IsSession reports whether a path is a log, one of the machine's own files, or in a home
// at a place of credentials or of what a session leaves: that is no part of what was
// installed, whoever wrote it. Both paths are absolute.
func IsSession(p, home string) bool {
	for _, dir := range []string{"/var/log", "/var/backups", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab"} {
		if pathname.Under(p, dir) {
			return true
		}
	}
	in := ""
	if rest, ok := strings.CutPrefix(p, "/home/"); ok {
		_, in, _ = strings.Cut(rest, "/")
	} else if rest, ok := strings.CutPrefix(p, "/root/"); ok {
		in = rest
	}
	if home != "" && pathname.Under(p, path.Clean(home)) {
		in = strings.TrimPrefix(p[len(path.Clean(home)):], "/")
	}
	name, _, _ := strings.Cut(in, "/")
	return slices.Contains(sessionNames, name)
}

// rest returns what is new and of no package: the uppermost new directories and, in
// others, files. Of what was there before and changed, nothing: which part of it
// belongs to the environment only the user knows.
func rest(o Options, isOwned func(string) bool) []Tree {
	var trees []Tree
	inCheckout := Checkouts(o.Root)
	for i := 0; i < len(o.Changed); i++ {
		f := o.Changed[i]
		p := "/" + f.Path
		last := i
		if f.Dir {
			for last+1 < len(o.Changed) && strings.HasPrefix(o.Changed[last+1].Path, f.Path+"/") {
				last++
			}
		}
		if isPassing(p, o.Skip) || inCheckout(p) || isOwned(p) && !f.Dir {
			i = last
			continue
		}
		if f.State != drift.New {
			continue
		}
		if !f.Dir {
			trees = append(trees, Tree{p, f.Size, 1})
			continue
		}
		t := Tree{Path: p}
		mixed := false
		for _, below := range o.Changed[i+1 : last+1] {
			q := "/" + below.Path
			if isOwned(q) || isPassing(q, o.Skip) {
				mixed = mixed || !below.Dir
				continue
			}
			if !below.Dir {
				t.Files++
				t.Size += below.Size
			}
		}
		if mixed {
			continue // what is below is looked at on its own
		}
		if t.Files > 0 {
			trees = append(trees, t)
		}
		i = last
	}
	order.Stable(trees, func(a, b Tree) int { return cmp.Compare(b.Size, a.Size) })
	trees = trees[:min(len(trees), maxRest)]
	order.Stable(trees, func(a, b Tree) int { return cmp.Compare(a.Path, b.Path) })
	return trees
}

// Checkouts returns a function that reports whether a path is in a working tree
// of Git: a project, which Git restores.
func Checkouts(root string) func(p string) bool {
	known := make(map[string]bool)
	var in func(p string) bool
	in = func(p string) bool {
		if p == "/" || p == "." {
			return false
		}
		is, ok := known[p]
		if !ok {
			_, err := os.Lstat(filepath.Join(root, p, ".git"))
			is = err == nil || in(path.Dir(p))
			known[p] = is
		}
		return is
	}
	return in
}

func isPassing(p string, skip []string) bool {
	for _, s := range passing {
		if strings.HasPrefix(p+"/", s) || p == s {
			return true
		}
	}
	for _, s := range skip {
		if s != "/" && pathname.Under(p, s) {
			return true
		}
	}
	for part := range strings.SplitSeq(p, "/") {
		if slices.Contains(passingNames, part) {
			return true
		}
	}
	return false
}

// String is how much a tree holds.
func (t Tree) String() string {
	text := sizes.Format(t.Size)
	if t.Files != 1 {
		text += fmt.Sprintf(" in %d files", t.Files)
	}
	return text
}
