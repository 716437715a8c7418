#!/bin/sh
# Builds the layers of the project on the base of the agents, and pushes them to the store
# from which every agent restores them. Written by "clayer init github --prebuild". It runs
# as root in the project, and needs buildah; it changes nothing of the machine.
#
# CLAYER_ variables set the flags of clayer: CLAYER_REPO=owner/repo. GH_TOKEN is the token
# for it. CLAYER_PREBUILD_BASE names another image, and CLAYER_PREBUILD_HOME the home
# directory of the agents.
set -e
CLAYER_BOOT_VERSION={{.Version}}
CLAYER_BOOT_PINS='{{.Pins}}'
CLAYER_BOOT_DIR=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/clayer/bin
CLAYER_BOOT_PROGRAM={{.Program}}
case $CLAYER_BOOT_PROGRAM in
/*) ;;
*) CLAYER_BOOT_PROGRAM=$PWD/$CLAYER_BOOT_PROGRAM ;;
esac
CLAYER_PREBUILD_BASE=${CLAYER_PREBUILD_BASE:-{{.Base}}}
{{.Variables}}
{{.Here}}

{{.Install}}
mkdir -p "$CLAYER_BOOT_DIR"
clayer=$(clayer_here || clayer_install "$CLAYER_BOOT_VERSION" "$CLAYER_BOOT_PINS" "$CLAYER_BOOT_DIR") || exit 1
command -v buildah >/dev/null || {
	echo "clayer: buildah is not installed: it unpacks the base" >&2
	exit 1
}

base=$(buildah from --pull "$CLAYER_PREBUILD_BASE")
trap 'buildah rm "$base" >/dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
root=$(buildah mount "$base")
path=$(buildah inspect --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$base" | sed -n 's/^PATH=//p')

# What is built has the platform of the base. If the agents count as another one, it is of no
# use to them.
platform=$(buildah inspect --format '{{range $name, $value := .OCIv1.Config.Labels}}{{if eq $name "dev.clayer.platform"}}{{println $value}}{{end}}{{end}}' "$base")
built=$("$clayer" doctor --root="$root" 2>/dev/null | sed -n 's/^.* base  *\(.*\): enters every key$/\1/p') || :
if [ -n "$platform" ] && [ "$platform" != "$built" ]; then
	echo "clayer: the agents of this base are \"$platform\", and the base by itself is \"$built\": they would not find what is built here" >&2
	echo "hint: their PATH has a python3 that the base lacks: clayer base export --include keeps its directory" >&2
	exit 1
fi

# The variables of a session of an agent, as far as they are known here.
export HOME="${CLAYER_PREBUILD_HOME:-/root}" CLAYER_CACHE_DIR="${CLAYER_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/clayer}"
PATH=${path:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin} "$clayer" compose --progress=plain --push --require-cache --root="$root"{{.Layers}}
