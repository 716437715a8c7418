#!/bin/sh
# Installs clayer, and verifies it.
#
#   install.sh [--version VERSION] [--pins "SHA256..."] [--dir DIR]
#
# A clayer of that version on PATH is used. Otherwise it is downloaded from the first of
# these that has it: PyPI, npm, GitHub Releases, and CLAYER_DOWNLOAD_URL, a mirror of the
# releases with download/VERSION/clayer_OS_ARCH.tar.gz. CLAYER_PYPI_URL, CLAYER_NPM_URL and
# CLAYER_GITHUB_URL name mirrors of the first three; one that is empty is not asked.
#
# The pins are the SHA-256 of the program for each platform: pins.txt of the release has
# them. A program with another one is not installed. The install.sh of a release has its
# version and its pins. Without pins, a program is trusted, because it is downloaded over TLS.
# Prints the path of the program, and nothing else, to stdout.
set -eu

release='' release_pins=''
version=${CLAYER_VERSION:-$release}
pins=${CLAYER_PINS:-}
dir=${CLAYER_INSTALL_DIR:-${HOME:-/root}/.local/bin}
while [ $# -gt 0 ]; do
	case $1 in
	--version) version=${2:?} ;;
	--pins) pins=${2:?} ;;
	--dir) dir=${2:?} ;;
	*) echo "clayer: install.sh: unknown argument $1" >&2; exit 2 ;;
	esac
	shift 2
done
if [ -z "$pins" ] && [ "${version#v}" = "${release#v}" ]; then pins=$release_pins; fi

# BEGIN install
# clayer_install VERSION PINS DIR prints the path of clayer, which it installs in DIR if
# that version is not on this machine.
clayer_install() (
	version=${1#v} pins=$2 dir=$3
	if [ -n "$version" ]; then
		for program in "$(command -v clayer)" "$dir/clayer"; do
			case $program in /*) ;; *) continue ;; esac # a function, an alias
			if [ -f "$program" ] && [ -x "$program" ] && "$program" version 2>/dev/null | grep -q "^clayer v\{0,1\}$version "; then
				echo "$program"
				exit 0
			fi
		done
	fi
	case $(uname -s) in
	Linux) os=linux ;;
	Darwin) os=darwin ;;
	*) echo "clayer: no release for $(uname -s)" >&2; exit 1 ;;
	esac
	case $(uname -m) in
	x86_64 | amd64) arch=amd64 cpu=x64 machine=x86_64 ;;
	aarch64 | arm64) arch=arm64 cpu=arm64 machine=aarch64 ;;
	*) echo "clayer: no release for $(uname -m)" >&2; exit 1 ;;
	esac
	case ${CLAYER_OFFLINE:-} in
	'' | 0 | f | F | false | False | FALSE) ;;
	*) echo "clayer: offline (CLAYER_OFFLINE): no clayer $version on PATH or in $dir, and none is downloaded" >&2; exit 1 ;;
	esac
	if command -v curl >/dev/null 2>&1; then get=curl; elif command -v wget >/dev/null 2>&1; then get=wget; elif command -v python3 >/dev/null 2>&1; then get=python3; else
		echo "clayer: cannot download clayer: neither curl, wget nor python3 is on PATH" >&2
		exit 1
	fi
	mkdir -p "$dir"
	temp=$(mktemp -d "$dir/.clayer-XXXXXX")
	child=''
	trap 'rm -rf "$temp"' EXIT
	trap 'kill $child 2>/dev/null; exit 130' INT
	trap 'kill $child 2>/dev/null; exit 143' TERM
	# That of GNU prints nothing about a 404 under -q, and tries again by itself. BusyBox
	# has a wget of few options, and Debian's ends by a fault of memory under -T.
	wget_options=-q
	if [ "$get" = wget ] && wget --version >/dev/null 2>&1; then wget_options='-nv -t 1 -T 10'; fi
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
		{ [ "$get" = curl ] && [ "$code" = 7 ]; } || grep -qi 'connection refused' "$temp/error" || return 1
		! grep -qi unreachable "$temp/error" || return 1
		case $1 in http://127.* | http://localhost[:/]* | http://\[::1\]*) return 0 ;; esac
		[ -r /proc/net/route ] || return 0
		# A default route of IPv4, or one of IPv6 that is not the kernel's own.
		grep -Eq '^[^[:space:]]+[[:space:]]+00000000[[:space:]]' /proc/net/route ||
			grep -E '^0{32} 00 ' /proc/net/ipv6_route 2>/dev/null | grep -qv ' lo$'
	}
	# Whether it failed because there is no network, or not yet: no name server, no route, no
	# answer. Everything else will not change soon.
	no_network() {
		if grep -Eqi '(error|code|response|http/[0-9.]+)[: ]+[1-5][0-9][0-9]|authentication failed|tunnel(ing)? (connection )?failed|certificate' "$temp/error"; then return 1; fi
		! refused "$1" || return 1
		case $get$code in
		curl5 | curl6 | curl7) ;;
		curl28) grep -Eqi 'resol|connect' "$temp/error" ;; # not where an answer stopped halfway
		curl*) return 1 ;;
		wget*) grep -Eqi 'resol|bad address|unreachable|no route|timed out|connect' "$temp/error" && ! grep -qi 'read error' "$temp/error" ;;
		*) grep -q 'urlopen error' "$temp/error" ;;
		esac
	}
	# fetch URL FILE asks once. A shell handles a signal while it waits, not while a program
	# runs.
	fetch() {
		case $1 in http://* | https://*) ;; *) echo "clayer: $1: not a URL of HTTP" >&2; return 1 ;; esac
		case $get in
		curl) LC_ALL=C curl -fsSL --connect-timeout 10 --speed-limit 1000 --speed-time 30 -o "$2" "$1" >/dev/null 2>"$temp/error" & ;;
		# shellcheck disable=SC2086 # several words
		wget) LC_ALL=C wget $wget_options -O "$2" "$1" >/dev/null 2>"$temp/error" & ;;
		*) python3 -c '
import shutil, sys, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1], timeout=10) as answer, open(sys.argv[2], "wb") as file:
        shutil.copyfileobj(answer, file)
except Exception as e:
    sys.exit(str(e))
' "$1" "$2" >/dev/null 2>"$temp/error" & ;;
		esac
		child=$! code=0
		wait "$child" || code=$?
		child=''
		[ "$code" != 0 ] || return 0
		text="clayer: cannot download $1: $(tail -n 1 "$temp/error")"
		if no_network "$1"; then
			dead="$dead $source"
			echo "$text" >>"$temp/dead"
			# It took ten seconds or more by itself.
			if [ "$code" = 28 ] || grep -qi 'timed out' "$temp/error"; then waits=$((waits + 5)); fi
			return 1
		fi
		echo "$text" >&2
		if grep -Eqi '403|forbidden' "$temp/error"; then forbidden=1; fi
		if grep -qi certificate "$temp/error"; then distrusted=1; fi
		return 1
	}
	# number FILE OFFSET prints the 32-bit number there.
	number() {
		# shellcheck disable=SC2046 # four words
		set -- $(tail -c +"$(($2 + 1))" "$1" | head -c 4 | od -An -tu1)
		echo $(($1 + $2 * 256 + $3 * 65536 + $4 * 16777216))
	}
	# The program is the first member of a wheel. The member is what gzip packs, too; its
	# header has the checksum and the size that gzip has at the end.
	from_pypi() {
		index=${CLAYER_PYPI_URL-https://pypi.org/simple} name=${CLAYER_PYPI_NAME:-container-layer}
		stem=$(echo "$name" | tr - _)-$(echo "$version" | sed 's/-alpha\./a/; s/-beta\./b/; s/-rc\./rc/') # 1.2.3rc1
		[ -n "$index" ] && [ -n "$version" ] || return 1
		case $os$arch in
		linux*) tag=manylinux_2_17_$machine.manylinux2014_$machine.musllinux_1_1_$machine ;;
		darwinamd64) tag=macosx_10_12_x86_64 ;;
		*) tag=macosx_11_0_arm64 ;;
		esac
		file=$stem-py3-none-$tag.whl
		fetch "${index%/}/$name/" "$temp/index" || return 1
		link=$(tr '<>' '\n\n' <"$temp/index" | sed -n "s/.*href=[\"']\([^\"'#?]*$file\)[\"'#?].*/\1/p" | head -n 1)
		case $link in
		'') echo "clayer: ${index%/}/$name/ does not list $file" >&2; return 1 ;;
		http://* | https://*) ;;
		//*) link=${index%%:*}:$link ;;
		/*) host=${index#*://} link=${index%%:*}://${host%%/*}$link ;;
		*)
			host=${index%/}/$name # not every program that fetches resolves dots
			while [ "${link#../}" != "$link" ]; do host=${host%/*} link=${link#../}; done
			link=$host/$link
			;;
		esac
		fetch "$link" "$temp/wheel" || return 1
		member=$stem.data/scripts/clayer
		if [ "$(tail -c +31 "$temp/wheel" | head -c ${#member})" != "$member" ]; then
			echo "clayer: $link: the first member is not $member" >&2
			return 1
		fi
		{
			printf '\037\213\010\000\000\000\000\000\000\003'
			tail -c +$((31 + ${#member})) "$temp/wheel" | head -c "$(number "$temp/wheel" 18)"
			tail -c +15 "$temp/wheel" | head -c 4
			tail -c +23 "$temp/wheel" | head -c 4
		} | gzip -dc >"$temp/clayer"
	}
	# unpack URL MEMBER takes the program out of an archive.
	unpack() {
		fetch "$1" "$temp/archive" && gzip -dc "$temp/archive" | tar -xf - -C "$temp" "$2" || return 1
		[ "$2" = clayer ] || mv -f "$temp/$2" "$temp/clayer"
	}
	from_npm() {
		registry=${CLAYER_NPM_URL-https://registry.npmjs.org} scope=${CLAYER_NPM_SCOPE:-@container-layer}
		[ -n "$registry" ] && [ -n "$version" ] || return 1
		unpack "${registry%/}/$scope/$os-$cpu/-/$os-$cpu-$version.tgz" package/bin/clayer
	}
	from_releases() {
		[ -n "$1" ] || return 1
		if [ -n "$version" ]; then at=download/v$version; else at=latest/download; fi
		unpack "${1%/}/$at/clayer_${os}_$arch.tar.gz" clayer
	}
	sha256() {
		if command -v sha256sum >/dev/null 2>&1; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
	}
	# verified SOURCE reports whether the program has one of the pins.
	verified() {
		[ -n "$pins" ] || return 0
		sum=$(sha256 "$temp/clayer")
		case " $pins " in *" $sum "*) return 0 ;; esac
		echo "clayer: checksum mismatch: the clayer $version of $1 has SHA-256 $sum, which is none of the pins: $pins" >&2
		return 1
	}
	from() {
		case $1 in
		PyPI) from_pypi ;;
		npm) from_npm ;;
		GitHub) from_releases "${CLAYER_GITHUB_URL-https://github.com/clayer/clayer/releases}" ;;
		*) from_releases "${CLAYER_DOWNLOAD_URL:-}" ;;
		esac
	}
	# Each is asked once. Where there is no network yet, what could not be asked gets 30 s in
	# all, shared by all of them.
	sources='PyPI npm GitHub CLAYER_DOWNLOAD_URL' waits=0 forbidden='' distrusted=''
	while :; do
		dead=''
		: >"$temp/dead"
		for source in $sources; do
			if from "$source" && verified "$source"; then
				chmod 755 "$temp/clayer"
				mv -f "$temp/clayer" "$dir/clayer"
				echo "$dir/clayer"
				exit 0
			fi
		done
		sources=$dead
		[ -n "$sources" ] && [ "$waits" -lt "${CLAYER_TRIES:-15}" ] || break
		[ "$waits" -gt 0 ] || echo "clayer: waiting for the network: $(tail -n 1 "$temp/dead")" >&2
		waits=$((waits + 1))
		sleep 2
	done
	cat "$temp/dead" >&2
	echo "clayer: no clayer $version could be had from PyPI, npm, GitHub or CLAYER_DOWNLOAD_URL; nothing was installed" >&2
	if [ -n "$forbidden" ]; then
		echo "hint: if a proxy or firewall blocks these hosts, set CLAYER_DOWNLOAD_URL to a mirror of the releases" >&2
	fi
	if [ -n "$distrusted" ] && ! [ -s /etc/ssl/certs/ca-certificates.crt ] && ! [ -s /etc/pki/tls/certs/ca-bundle.crt ] && ! [ -s /etc/ssl/cert.pem ]; then
		echo "hint: this machine has no CA certificates: install ca-certificates, or set SSL_CERT_FILE" >&2
	fi
	exit 1
)
# END install

clayer_install "$version" "$pins" "$dir"
