package dag

import (
	"slices"
	"strings"

	"github.com/clayer/clayer/internal/credential"
)

// Variables of the session that a RUN gets without naming them, and that enter no key:
// without them programs are not found, no network is reached, or packages come from
// elsewhere than on this machine they should. docs/language.md lists them.

// networkVars are the list's network part, which --hermetic leaves.
var networkVars = []string{
	"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "NIX_SSL_CERT_FILE",
	"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "HTTPLIB2_CA_CERTS",
	"NODE_EXTRA_CA_CERTS", "NODE_USE_ENV_PROXY", "DENO_CERT", "DENO_TLS_CA_STORE",
	"PIP_CERT", "PIP_PROXY", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS",
	"npm_config_cafile", "npm_config_proxy", "npm_config_https_proxy", "npm_config_noproxy",
	"GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "CARGO_HTTP_CAINFO", "CARGO_HTTP_PROXY", "BUNDLE_SSL_CA_CERT",
}

// listedVars are the rest of the list.
var listedVars = []string{
	"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "LD_LIBRARY_PATH", "DEBIAN_FRONTEND",
	"APT_CONFIG", "CGO_ENABLED", "NVM_DIR", "PNPM_HOME", "BUN_INSTALL", "DENO_DIR", "VOLTA_HOME", "FNM_DIR",
	"JAVA_HOME", "JAVA_TOOL_OPTIONS", "MAVEN_OPTS", "GRADLE_OPTS", "GRADLE_USER_HOME", "SDKMAN_DIR",
	"GEM_HOME", "GEM_PATH", "RBENV_ROOT", "DOTNET_ROOT", "POETRY_HOME", "PIPX_HOME", "PIPX_BIN_DIR", "ASDF_DIR", "ASDF_DATA_DIR",
}

// listedPrefixes begin the names of settings.
var listedPrefixes = []string{"LC_", "PIP_", "UV_", "npm_config_", "NPM_CONFIG_", "CARGO_", "RUSTUP_", "CONDA_", "PYENV_"}

// shellVars are those that a shell sets itself.
var shellVars = []string{
	"PWD", "OLDPWD", "SHLVL", "UID", "EUID", "PPID", "HOSTNAME", "_", "IFS", "OPTIND", "OPTARG", "OPTERR", "RANDOM", "SECONDS", "LINENO",
	"PS1", "PS2", "PS4", "BASH", "BASHOPTS", "BASHPID", "BASH_VERSION", "SHELLOPTS", "HOSTTYPE", "MACHTYPE", "OSTYPE", "GROUPS",
}

// IsNetwork reports whether a variable is of the list's network part.
func IsNetwork(name string) bool { return slices.Contains(networkVars, name) }

// IsShells reports whether a shell sets a variable itself: no RUN gets the session's.
func IsShells(name string) bool { return slices.Contains(shellVars, name) }

// isListed reports whether a variable is listed: it enters no key.
func isListed(name string) bool {
	if IsNetwork(name) || slices.Contains(listedVars, name) {
		return true
	}
	if rest, ok := strings.CutPrefix(name, "GO"); ok && !strings.Contains(rest, "_") {
		return true // GOPROXY, and not GOOGLE_API_KEY
	}
	return slices.ContainsFunc(listedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// isPassed reports whether a RUN gets a variable that it does not name. A package
// manager's credential is for the RUN that names it.
func isPassed(name, value string) bool {
	return isListed(name) && (IsNetwork(name) || !isCredential(name, value))
}

func isCredential(name, value string) bool {
	return credential.IsName(name) || credential.IsValue(value) ||
		strings.HasPrefix(strings.ToLower(name), "npm_config_") && strings.Contains(strings.ToLower(name), "auth")
}
