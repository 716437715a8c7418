#!/bin/sh
# Installs a release of clayer and verifies its checksum.
#
#   install.sh [--version VERSION] [--checksums SHA256] [--dir DIR]
#
# SHA256 is that of the release's checksums.txt: it pins the binaries of all
# platforms. Without it, the file is trusted, because it is downloaded over TLS.
# Prints the path of the program, and nothing else, to stdout. CLAYER_DOWNLOAD_URL
# is a mirror of the releases: it has download/VERSION/checksums.txt and the archives
# beside it.
set -eu

version=${CLAYER_VERSION:-}
checksums=${CLAYER_CHECKSUMS:-}
dir=${CLAYER_INSTALL_DIR:-${HOME:-/root}/.local/bin}
while [ $# -gt 0 ]; do
	case $1 in
	--version) version=${2:?} ;;
	--checksums) checksums=${2:?} ;;
	--dir) dir=${2:?} ;;
	*) echo "clayer: install.sh: unknown argument $1" >&2; exit 2 ;;
	esac
	shift 2
done

# BEGIN install
# clayer_install VERSION CHECKSUMS DIR installs the program in DIR and prints its path.
clayer_install() (
	version=$1 checksums=$2 dir=$3
	base=${CLAYER_DOWNLOAD_URL:-https://github.com/clayer/clayer/releases}
	case $(uname -s) in
	Linux) os=linux ;;
	Darwin) os=darwin ;;
	*) echo "clayer: no release for $(uname -s)" >&2; exit 1 ;;
	esac
	case $(uname -m) in
	x86_64 | amd64) arch=amd64 ;;
	aarch64 | arm64) arch=arm64 ;;
	*) echo "clayer: no release for $(uname -m)" >&2; exit 1 ;;
	esac
	if [ -n "$version" ] && [ -x "$dir/clayer" ] && "$dir/clayer" version 2>/dev/null | grep -q "^clayer v\{0,1\}${version#v} "; then
		echo "$dir/clayer"
		exit 0
	fi
	case ${CLAYER_OFFLINE:-} in
	'' | 0 | f | F | false | False | FALSE) ;;
	*) echo "clayer: offline (CLAYER_OFFLINE): no clayer $version in $dir, and none is downloaded" >&2; exit 1 ;;
	esac
	if [ -n "$version" ]; then from=$base/download/v${version#v}; else from=$base/latest/download; fi
	mkdir -p "$dir"
	temp=$(mktemp -d "$dir/.clayer-XXXXXX")
	child=''
	trap 'rm -rf "$temp"' EXIT
	trap 'kill $child 2>/dev/null; exit 130' INT
	trap 'kill $child 2>/dev/null; exit 143' TERM
	if ! command -v curl >/dev/null 2>&1 && ! command -v wget >/dev/null 2>&1; then
		echo "clayer: cannot download $from: neither curl nor wget is on PATH" >&2
		exit 1
	fi
	# That of GNU prints nothing about a 404 under -q, and tries again by itself. BusyBox
	# has a wget of few options, and Debian's ends by a fault of memory under -T.
	wget_options=-q
	if wget --version >/dev/null 2>&1; then wget_options='-nv -t 1 -T 10'; fi
	# Whether a URL is asked for without a proxy: there is none, or not for its host.
	direct() (
		[ -n "${http_proxy:-}${https_proxy:-}${HTTPS_PROXY:-}${all_proxy:-}${ALL_PROXY:-}" ] || exit 0
		host=${1#*://}
		host=${host%%/*}
		case $host in \[*) host=${host#\[} host=${host%%\]*} ;; *) host=${host%:*} ;; esac
		set -f # the names are no patterns
		IFS=', '
		for name in ${no_proxy:-${NO_PROXY:-}}; do
			name=${name#.}
			case $name in '*' | "$host" | "$host":*) exit 0 ;; esac
			case $host in *."$name") exit 0 ;; esac
		done
		exit 1
	)
	# Whether a connection that failed was refused by the host: curl does not
	# distinguish that from a network that is not up (7). A proxy is the network.
	refused() {
		direct "$1" || return 1
		[ "$code" = 7 ] || grep -qi 'connection refused' "$temp/error" || return 1
		! grep -qi unreachable "$temp/error" || return 1
		case $1 in http://127.* | http://localhost[:/]* | http://\[::1\]*) return 0 ;; esac
		[ -r /proc/net/route ] || return 0
		# A default route of IPv4, or one of IPv6 that is not the kernel's own.
		grep -Eq '^[^[:space:]]+[[:space:]]+00000000[[:space:]]' /proc/net/route ||
			grep -E '^0{32} 00 ' /proc/net/ipv6_route 2>/dev/null | grep -qv ' lo$'
	}
	# A network that is not up yet gets 30 s, a host that refuses connections 4 s
	# because it may be starting; an answer that will not change is final. A shell
	# handles a signal while it waits, not while a program runs.
	fetch() {
		tries=0
		while :; do
			if command -v curl >/dev/null 2>&1; then
				LC_ALL=C curl -fsSL --connect-timeout 10 --speed-limit 1000 --speed-time 30 -o "$2" "$1" >/dev/null 2>"$temp/error" &
			else
				# shellcheck disable=SC2086 # several words
				LC_ALL=C wget $wget_options -O "$2" "$1" >/dev/null 2>"$temp/error" &
			fi
			child=$! code=0
			wait "$child" || code=$?
			child=''
			[ "$code" != 0 ] || return 0
			# 4xx, but 408 and 429; of the server, or of a proxy.
			if grep -Eqi '(error|code|response|http/[0-9.]+)[: ]+4(0[0-79]|1[0-9]|2[0-8]|[3-9][0-9])|authentication failed|tunneling failed: forbidden|certificate' "$temp/error"; then break; fi
			[ "$tries" -gt 0 ] || echo "clayer: retrying: $(tail -n 1 "$temp/error")" >&2
			tries=$((tries + 1))
			# It took ten seconds or more by itself.
			if [ "$code" = 28 ] || grep -Eqi 'timed out' "$temp/error"; then tries=$((tries + 5)); fi
			if refused "$1"; then tries=$((tries + 4)); fi
			[ "$tries" -lt "${CLAYER_TRIES:-15}" ] || break
			sleep 2
		done
		echo "clayer: cannot download $1: $(tail -n 1 "$temp/error")" >&2
		if grep -Eqi '403|forbidden' "$temp/error"; then
			echo "clayer: if a proxy or firewall blocks that host, set CLAYER_DOWNLOAD_URL to a mirror" >&2
		fi
		if grep -qi certificate "$temp/error" && ! [ -s /etc/ssl/certs/ca-certificates.crt ] && ! [ -s /etc/pki/tls/certs/ca-bundle.crt ] && ! [ -s /etc/ssl/cert.pem ]; then
			echo "clayer: this machine has no CA certificates: install ca-certificates, or set SSL_CERT_FILE" >&2
		fi
		exit 1
	}
	sha256() {
		if command -v sha256sum >/dev/null 2>&1; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
	}
	file=clayer_${os}_$arch.tar.gz
	fetch "$from/checksums.txt" "$temp/checksums.txt"
	if [ -n "$checksums" ] && [ "$(sha256 "$temp/checksums.txt")" != "$checksums" ]; then
		echo "clayer: checksum mismatch: the SHA-256 of $from/checksums.txt is not $checksums; nothing was installed" >&2
		exit 1
	fi
	want=$(grep "[ *]$file\$" "$temp/checksums.txt" | cut -d ' ' -f 1)
	fetch "$from/$file" "$temp/$file"
	got=$(sha256 "$temp/$file")
	if [ -z "$want" ] || [ "$got" != "$want" ]; then
		echo "clayer: checksum mismatch: $from/$file has SHA-256 $got, want ${want:-one in checksums.txt}; nothing was installed" >&2
		exit 1
	fi
	tar -xzf "$temp/$file" -C "$temp" clayer
	chmod 755 "$temp/clayer"
	mv -f "$temp/clayer" "$dir/clayer"
	echo "$dir/clayer"
)
# END install

clayer_install "$version" "$checksums" "$dir"
