package base

import (
	"cmp"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/beneath"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/pathname"
)

// Why something is left out.
const (
	ofMachine    = "the running machine's"
	ofHome       = "a home directory"
	ofProject    = "the project"
	ofCredential = "a place of credentials"
	ofKey        = "holds a private key"
	ofLogin      = "holds a URL with a login"
	ofSecret     = "holds a token or a password"
	ofHistory    = "a history of commands"
	ofClayer     = "clayer's own"
	ofCache      = "a cache of downloads"
	ofLog        = "a log"
	ofUser       = "as requested"
	unreadable   = "this user may not read it"
)

// emptied are directories that a base has, without what is in them.
var emptied = map[string]string{
	"dev": ofMachine, "proc": ofMachine, "run": ofMachine, "sys": ofMachine, "tmp": ofMachine, "var/tmp": ofMachine, "mnt": ofMachine, "media": ofMachine,
	"root": ofHome, "home": ofHome,
	"var/mail": ofCredential, "var/spool/mail": ofCredential, "var/spool/cron": ofCredential, "var/backups": ofCredential, "var/crash": ofLog,
}

// absent are paths that a base lacks: a trailing * stands for any rest of a name.
var absent = map[string]string{
	"etc/machine-id": ofMachine, "var/lib/dbus/machine-id": ofMachine, "etc/hostname": ofMachine, "swapfile": ofMachine, "swap.img": ofMachine,
	".dockerenv": ofMachine, "var/lib/dhcp": ofMachine, "var/lib/docker": ofMachine, "var/lib/containerd": ofMachine, "var/lib/containers": ofMachine, "var/lib/kubelet": ofMachine,
	"var/lib/systemd/coredump": ofLog, "lost+found": ofMachine,

	"var/lib/clayer": ofClayer, "var/cache/clayer": ofClayer,
	"var/cache/apt/archives/*.deb": ofCache, "var/cache/apt/pkgcache.bin": ofCache, "var/cache/apt/srcpkgcache.bin": ofCache,

	"etc/ssh/ssh_host_*": ofCredential, "etc/ssl/private": ofCredential, "etc/pki/tls/private": ofCredential, "etc/pki/entitlement": ofCredential, "etc/letsencrypt": ofCredential,
	"etc/apt/auth.conf": ofCredential, "etc/apt/auth.conf.d": ofCredential, "etc/krb5.keytab": ofCredential, "etc/ipsec.secrets": ofCredential, "etc/ppp/*-secrets": ofCredential,
	"etc/wireguard": ofCredential, "etc/openvpn": ofCredential, "etc/NetworkManager/system-connections": ofCredential, "etc/docker/key.json": ofCredential,
	"etc/kubernetes": ofCredential, "etc/rancher": ofCredential, "etc/credstore": ofCredential, "etc/credstore.encrypted": ofCredential, "etc/gshadow-": ofCredential, "etc/shadow-": ofCredential,
	"var/lib/cloud": ofCredential, "var/lib/systemd/random-seed": ofCredential, "var/lib/systemd/credential.secret": ofCredential, "var/lib/NetworkManager": ofCredential,
	"var/lib/sss": ofCredential, "var/lib/samba/private": ofCredential, "var/lib/krb5kdc": ofCredential, "var/lib/amazon": ofCredential, "var/lib/waagent": ofCredential, "var/lib/google": ofCredential,
}

// patterns are those of absent that are no path.
var patterns = []string{"var/cache/apt/archives/*.deb", "etc/ssh/ssh_host_*", "etc/ppp/*-secrets"}

// named are names that hold credentials wherever they are, and the last parts of such paths.
var named = []string{
	".ssh", ".aws", ".azure", ".kube", ".docker", ".gnupg", ".gcloud", ".oci", ".config", ".password-store", ".mozilla", ".terraform.d", ".huggingface", ".kaggle", ".git",
	".netrc", "_netrc", ".npmrc", ".yarnrc", ".yarnrc.yml", ".pypirc", ".gitconfig", ".git-credentials", ".pgpass", ".my.cnf", ".mylogin.cnf", ".vault-token", ".boto", ".s3cfg", ".passwd-s3fs", ".codespaces",
	".databrickscfg", ".terraformrc", ".credentials", ".credentials_rsaparams", ".claude.json", ".env",
	".cargo/credentials", ".cargo/credentials.toml", ".m2/settings.xml", ".m2/settings-security.xml", ".gradle/gradle.properties", ".gem/credentials", ".bundle/config", ".composer/auth.json",
	".subversion/auth", ".local/share/keyrings", ".cache/clayer",
}

// isHistory reports whether a file of that name is one in which programs remember what was typed.
func isHistory(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, "_history") || name == ".lesshst" || name == ".viminfo" || name == ".wget-hsts"
}

// A filter says what of a root is in its base. It notes what it leaves out.
type filter struct {
	dir     string // the root
	emptied map[string]string
	absent  map[string]string
	include []string // below these, only names are left out

	left map[string]string // what is there and is left out, with the reason
}

func newFilter(dir string) *filter {
	f := &filter{dir: dir, emptied: make(map[string]string), absent: make(map[string]string), left: make(map[string]string)}
	for p, why := range emptied {
		f.emptied[p] = why
	}
	return f
}

// Skip reports whether an entry is left out.
func (f *filter) Skip(p string) bool { return f.why(p) != "" }

// Prune reports whether an entry and all below it is left out, and notes that.
func (f *filter) Prune(p string) bool {
	why := f.why(p)
	if why == "" || slices.ContainsFunc(f.include, func(in string) bool { return pathname.Under(in, p) }) {
		return false
	}
	if f.emptied[path.Dir(p)] == why {
		p = path.Dir(p)
	}
	f.left[p] = why
	return true
}

// why returns why an entry is left out; "" if it is not.
func (f *filter) why(p string) string {
	name := path.Base(p)
	if isHistory(name) {
		return ofHistory
	}
	for _, n := range named {
		if p == n || strings.HasSuffix(p, "/"+n) {
			return ofCredential
		}
	}
	if why := cmp.Or(f.absent[p], absent[p]); why != "" {
		return why
	}
	for _, pattern := range patterns {
		if ok, err := path.Match(pattern, p); ok && err == nil {
			return absent[pattern]
		}
	}
	if !slices.ContainsFunc(f.include, func(in string) bool { return pathname.Under(p, in) }) {
		if why := f.emptied[path.Dir(p)]; why != "" {
			return why
		}
	}
	if strings.HasPrefix(p, "var/log/") {
		if info, err := os.Lstat(filepath.Join(f.dir, p)); err == nil && !info.IsDir() {
			return ofLog
		}
	}
	if unix.Faccessat(unix.AT_FDCWD, filepath.Join(f.dir, p), unix.R_OK, unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW) == unix.EACCES {
		return unreadable
	}
	if strings.Contains("/"+p, "/etc/") {
		return f.whyText(p)
	}
	return ""
}

// maxText bounds what is searched of a file of an etc, in bytes.
const maxText = 1 << 20

var login = lazyregexp.New(`[a-z]://[^/\s:@"'<>$]+:[^/\s@"'<>$]+@`)

// secret matches tokens of known forms, a URL whose user is one, and lines that set something
// called like a credential. What refers to another variable, or is shorter than 6 characters, is none.
var secret = lazyregexp.New(`\b(gh[pousr]_[A-Za-z0-9]{30}|github_pat_[A-Za-z0-9]{20}|glpat-[A-Za-z0-9_-]{20}|npm_[A-Za-z0-9]{30}|xox[abprs]-[0-9A-Za-z]|sk-[A-Za-z0-9_-]{20}|A[KS]IA[A-Z0-9]{16}\b)` +
	`|[a-z]://[A-Za-z0-9_.-]{20,}@` +
	`|(?mi:^[ \t]*(export[ \t]+|[A-Za-z0-9./_-]*:)?([a-z0-9_.-]*(_token|_secret|_key|_pat|authtoken)|_auth|_?password)[ \t]*[=:][ \t]*["']?[^\s"'$#<{][^\s"'$<{]{5})`)

// whyText says why a file of an etc is left out by what it holds.
func (f *filter) whyText(p string) string {
	info, err := os.Lstat(filepath.Join(f.dir, p))
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	file, err := beneath.Open(f.dir, p, os.O_RDONLY)
	if err != nil {
		return ""
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxText))
	switch {
	case err != nil:
		return ""
	case strings.Contains(string(text), "PRIVATE KEY-----"):
		return ofKey
	case login().Match(text):
		return ofLogin
	case secret().Match(text):
		return ofSecret
	}
	return ""
}

// homes adds the home directories of the people and of root, by the root's passwd.
func (f *filter) homes(dir string, session string, resolve func(string) (string, bool)) {
	all := []string{session}
	if file, err := beneath.Open(dir, "etc/passwd", os.O_RDONLY); err == nil {
		text, _ := io.ReadAll(io.LimitReader(file, maxText)) // without it, the usual places
		file.Close()
		for line := range strings.Lines(string(text)) {
			parts := strings.Split(strings.TrimSpace(line), ":")
			if len(parts) < 7 {
				continue
			}
			id, err := strconv.Atoi(parts[2])
			if err == nil && (id == 0 || id >= 1000 && id != 65534) {
				all = append(all, parts[5])
			}
		}
	}
	for _, home := range all {
		if p := strings.Trim(path.Clean(home), "/"); path.IsAbs(home) && mayBeLeftOut(p) {
			f.emptied[p] = ofHome
			if real, ok := resolve(home); ok && mayBeLeftOut(real) {
				f.emptied[real] = ofHome
			}
		}
	}
}

// mayBeLeftOut reports whether a directory is none that a system is made of: somebody's home,
// or a project, may be said to be there.
func mayBeLeftOut(p string) bool {
	switch top, rest, _ := strings.Cut(p, "/"); top {
	case "", ".", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "boot":
		return false
	case "usr":
		return false
	case "var", "opt", "srv":
		return rest != "" && rest != "lib" && rest != "cache" && rest != "spool"
	}
	return true
}
