package sharedmounts

import (
	"path"
	"slices"
	"strings"
)

// Places where programs keep their logins, below the home directory of their user. A name
// that ends in "/" is a directory. Only these very places count: a package may have a file
// of such a name, which is no login, and which it needs.
var logins = []string{
	".aws/", ".azure/", ".cargo/credentials", ".cargo/credentials.toml", ".composer/auth.json", ".config/composer/auth.json",
	".config/containers/auth.json", ".config/gcloud/", ".config/gh/", ".config/git/credentials", ".config/pip/pip.conf", ".config/pip/pip.ini",
	".config/pypoetry/", ".config/uv/uv.toml", ".docker/config.json", ".gem/credentials", ".git-credentials", ".gnupg/",
	".gradle/gradle.properties", ".kube/", ".local/share/pypoetry/", ".local/share/uv/credentials/", ".m2/settings.xml", ".m2/settings-security.xml", ".netrc", ".npmrc", ".nuget/NuGet/",
	".pip/pip.conf", ".pypirc", ".ssh/", ".yarnrc", ".yarnrc.yml", "_netrc", "etc/apt/auth.conf", "etc/apt/auth.conf.d/",
}

// atTop are names of such files at the top of a mount: its target may be the directory of a
// program in another place, as $CARGO_HOME.
var atTop = []string{
	".git-credentials", ".netrc", ".npmrc", ".pypirc", ".yarnrc", ".yarnrc.yml", "_netrc", "auth.conf", "auth.conf.d", "auth.json", "auth.toml",
	"credentials", "credentials.toml", "gradle.properties", "npmrc", "pip.conf", "pip.ini", "settings-security.xml", "settings.xml",
}

// isLogin reports whether a path of a mount, which RUNs have at the targets, is a place of
// logins, or in one.
func isLogin(p string, targets []string) bool {
	if top, _, _ := strings.Cut(p, "/"); slices.Contains(atTop, top) {
		return true
	}
	for _, l := range logins {
		if in(p, l) {
			return true // the mount is the home directory
		}
		for at := l; ; { // the mount is a directory on the way
			i := strings.IndexByte(at, '/')
			if i < 0 || at[i+1:] == "" {
				break
			}
			at = at[i+1:]
			above := strings.TrimSuffix(l[:len(l)-len(at)], "/")
			if in(p, at) && slices.ContainsFunc(targets, func(t string) bool { return strings.HasSuffix(t, "/"+above) }) {
				return true
			}
		}
		if dir := strings.TrimSuffix(l, "/"); dir != l && slices.ContainsFunc(targets, func(t string) bool {
			return strings.HasSuffix(path.Clean(t)+"/", "/"+dir+"/") || strings.Contains(t, "/"+dir+"/")
		}) {
			return true // the mount is such a directory
		}
	}
	return false
}

func in(p, place string) bool {
	if dir := strings.TrimSuffix(place, "/"); dir != place {
		return p == dir || strings.HasPrefix(p, place)
	}
	return p == place
}
