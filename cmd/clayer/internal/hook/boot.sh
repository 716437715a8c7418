#!/bin/sh
# Sets up the environment of the project's Containerfiles on this machine. Written
# by "clayer init". Run it when a session starts; it can run again at any time:
#
#   sh {{.Path}}             # by a hook
#   sh {{.Path}} COMMAND...  # a command in the environment
#   . {{.Path}}              # in this shell, sh or bash
#
# CLAYER_ variables set the flags of clayer: CLAYER_REPO=owner/repo. GH_TOKEN is
# the token for it. CLAYER_ENV_FILES names a directory whose *.env files are sourced.
CLAYER_BOOT_VERSION={{.Version}}
CLAYER_BOOT_PINS='{{.Pins}}'
CLAYER_BOOT_DIR=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/clayer/bin
CLAYER_BOOT_PROGRAM={{.Program}}
case $CLAYER_BOOT_PROGRAM in
/*) ;;
*) CLAYER_BOOT_PROGRAM=$(cd "${CLAUDE_PROJECT_DIR:-.}" && pwd)/$CLAYER_BOOT_PROGRAM ;;
esac
{{.Variables}}
# clayer_here prints the path of a clayer on this machine: on PATH, or else the one
# named above. If a release is required, it must be that release.
clayer_here() (
	for program in "$(command -v clayer)" "$CLAYER_BOOT_PROGRAM"; do
		case $program in /*) ;; *) continue ;; esac # a function, an alias
		if [ -f "$program" ] && [ -x "$program" ]; then
			if [ -z "$CLAYER_BOOT_VERSION" ] || "$program" version 2>/dev/null | grep -q "^clayer v\{0,1\}${CLAYER_BOOT_VERSION#v} "; then
				echo "$program"
				exit 0
			fi
		fi
	done
	exit 1
)

{{.Install}}
# clayer_best says whether a session starts with what can be had: CLAYER_BEST_EFFORT.
clayer_best() {
	case ${CLAYER_BEST_EFFORT:-} in
	1 | t | T | true | True | TRUE) return 0 ;;
	esac
	return 1
}

# clayer_boot composes the layers, and reports the result in at most 2 KB on stdout.
clayer_boot() (
	cd "${CLAUDE_PROJECT_DIR:-.}" && mkdir -p "$CLAYER_BOOT_DIR" || {
		echo "clayer: cannot set up the environment: there is no ${CLAUDE_PROJECT_DIR:-.}, or no space for $CLAYER_BOOT_DIR"
		exit 1
	}
	lock=$CLAYER_BOOT_DIR/.boot log=$CLAYER_BOOT_DIR/boot.log
	# One at a time: a second one waits, and then finds everything done.
	waited=0
	# When a process began, where there is a /proc: numbers come again, in the next
	# session too. One that has ended (Z) may stay where process 1 waits for nobody.
	began() { cut -d ')' -f 2 "/proc/$1/stat" 2>/dev/null | grep -v '^ Z' | cut -d ' ' -f 21; }
	dead() {
		pid='' at=''
		if [ -f "$lock/pid" ]; then read -r pid at <"$lock/pid" || :; fi 2>/dev/null
		if [ -z "$pid" ]; then [ "$waited" -ge 5 ]; else ! kill -0 "$pid" 2>/dev/null || [ "$at" != "$(began "$pid")" ]; fi
	}
	until mkdir "$lock" 2>/dev/null; do
		# A run that was killed left its lock. Only one of those that wait removes it,
		# and checks again first, because the lock may be another's by then.
		if dead && mkdir "$lock.break" 2>/dev/null; then
			if dead; then rm -rf "$lock"; fi
			rmdir "$lock.break"
			continue
		fi
		sleep 1
		waited=$((waited + 1))
		if [ "$((waited % 30))" = 0 ]; then rmdir "$lock.break" 2>/dev/null; fi
	done
	trap 'rm -rf "$lock"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	me=$(sh -c 'echo $PPID')
	echo "$me $(began "$me")" >"$lock/pid"
	rm -rf "$CLAYER_BOOT_DIR"/.clayer-* # of a run that was killed during a download
	code=0
	# stderr of all goes to the log: a hook's host shows it, or drops it.
	{
		clayer=$(clayer_here || clayer_install "$CLAYER_BOOT_VERSION" "$CLAYER_BOOT_PINS" "$CLAYER_BOOT_DIR") &&
			"$clayer" compose --progress=plain{{.Layers}} || code=$?
		if [ "$code" = 0 ] && [ -n "${CLAUDE_ENV_FILE:-}" ]; then "$clayer" env --claude || code=$?; fi
		if [ "$code" = 0 ] && [ -n "${GITHUB_ENV:-}" ]; then "$clayer" env --github || code=$?; fi
	} >"$log" 2>&1
	if [ "$code" = 0 ]; then
		grep -v -e '^clayer: incomplete: ' -e '^clayer: to complete it: ' "$log" | tail -n 1 | head -c 500
		if grep -q '^clayer: incomplete: ' "$log"; then
			grep -e '^clayer: incomplete: ' -e '^clayer: to complete it: ' "$log" | tail -n 17 | tail -c 1300
			echo "clayer: the output of the steps is in $log"
		fi
	else
		echo "clayer: cannot set up the environment (exit code $code); see $log, which ends with:"
		tail -n 20 "$log" | tail -c 1500
	fi
	exit "$code"
)

if [ -n "${CLAYER_ENV_FILES:-}" ]; then
	set -a
	for clayer_file in "$CLAYER_ENV_FILES"/*.env; do
		if [ -f "$clayer_file" ]; then . "$clayer_file"; fi
	done
	unset clayer_file
	set +a
fi
clayer_code=0
# Without a command, stdout gets the report; with one, stdout is the command's.
if [ $# -gt 0 ]; then clayer_boot >&2 || clayer_code=$?; else clayer_boot || clayer_code=$?; fi
if [ "$clayer_code" = 0 ]; then eval "$("$(clayer_here)" env)"; fi
case $clayer_code in 130 | 143) ;; *) if clayer_best; then clayer_code=0; fi ;; esac
if [ "$clayer_code" = 0 ] && [ $# -gt 0 ]; then exec "$@"; fi
(exit "$clayer_code")
