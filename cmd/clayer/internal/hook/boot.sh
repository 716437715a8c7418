#!/bin/sh
# Sets up the environment of the project's Containerfiles on this machine. Written
# by "clayer init". Run it when a session starts; it can run again at any time:
#
#   sh {{.Path}}             # by a hook
#   sh {{.Path}} COMMAND...  # a command in the environment
#   . {{.Path}}              # in this shell, sh or bash
#
# CLAYER_ variables set the flags of clayer: CLAYER_REPO=owner/repo. GH_TOKEN is
# the token for it. CLAYER_ENV_FILES names a directory whose *.env files are sourced,
# and CLAYER_BOOT_PROJECT the directory of the project, where there are several.
CLAYER_BOOT_VERSION={{.Version}}
CLAYER_BOOT_PINS='{{.Pins}}'
CLAYER_BOOT_DIR=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/clayer/bin
CLAYER_BOOT_PROGRAM={{.Program}}
clayer_began=$(date +%s 2>/dev/null) || clayer_began=''
{{.Variables}}
# clayer_projects prints the directory that has something to compose: the one that the
# session names, the working directory, or the one that this script is in. If there is none,
# it prints the checkouts that do: a session of several repositories starts beside them.
clayer_projects() (
	CDPATH=''
	composes() {
		for file in Containerfile Containerfile.* layers/Containerfile layers/Containerfile.* .claude/container-layers.json clayer.toml; do
			if [ -f "$file" ]; then return 0; fi
		done
		return 1
	}
	script=$0
	case $script in {{.Path}}) script=./$script ;; */{{.Path}}) ;; *) script={{.Path}} ;; esac
	for dir in "${CLAYER_BOOT_PROJECT:-${CLAUDE_PROJECT_DIR:-.}}" "${CLAUDE_PROJECT_DIR:-.}" . "${script%{{.Path}}}."; do
		if cd "$dir" 2>/dev/null; then
			if composes || [ -f Dockerfile ]; then pwd && exit; fi
			cd - >/dev/null || exit
		fi
	done
	for dir in ./*/; do (cd "$dir" 2>/dev/null && composes && pwd); done
)
clayer_list=$(clayer_projects) || :
clayer_project=${clayer_list%%
*}
if [ -z "$clayer_project" ]; then clayer_project=$(cd "${CLAUDE_PROJECT_DIR:-.}" 2>/dev/null && pwd) || clayer_project=${CLAUDE_PROJECT_DIR:-.}; fi
case $CLAYER_BOOT_PROGRAM in
/*) ;;
*) CLAYER_BOOT_PROGRAM=$clayer_project/$CLAYER_BOOT_PROGRAM ;;
esac
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

# clayer_left lowers the budget by what has passed: the host's limit is that of all of this,
# however long it took to install clayer.
clayer_left() {
	left=${CLAYER_BUDGET:-}
	case $left in *[0-9]s) left=${left%s} ;; *) return 0 ;; esac
	case $left-$clayer_began in -* | *- | *[!0-9]*-* | *-*[!0-9]*) return 0 ;; esac
	left=$((left - $(date +%s) + clayer_began))
	if [ "$left" -lt 10 ]; then left=10; fi
	CLAYER_BUDGET=${left}s
}

# clayer_as_root runs clayer, by sudo if this user may not change the root, and sudo does not
# ask: runners of CI, and many containers, have such a user.
clayer_as_root() {
	if [ -n "${CLAYER_DEST:-}" ] || [ -w "${CLAYER_ROOT:-/}" ] || ! sudo -n -E true 2>/dev/null; then
		"$@"
	else
		sudo -n -E env PATH="$PATH" HOME="${HOME:-/root}" "$@"
	fi
}

# clayer_boot composes the layers, and reports the result in at most 2 KB on stdout.
clayer_boot() (
	cd "$clayer_project" && mkdir -p "$CLAYER_BOOT_DIR" || {
		echo "clayer: cannot set up the environment: there is no $clayer_project, or no space for $CLAYER_BOOT_DIR"
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
	absent=0
	until mkdir "$lock" 2>/dev/null; do
		# It can't be made, and nobody has it: the disk is full. A second look, since
		# somebody may have removed it just now.
		if [ -d "$lock" ]; then absent=0; elif absent=$((absent + 1)) && [ "$absent" -gt 2 ]; then break; fi
		# A run that was killed left its lock. Only one of those that wait removes it,
		# and checks again first, because the lock may be another's by then.
		if dead && { mkdir "$lock.break" 2>/dev/null || [ ! -d "$lock.break" ]; }; then
			if dead; then rm -rf "$lock"; fi
			rmdir "$lock.break" 2>/dev/null
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
	echo "$me $(began "$me")" 2>/dev/null >"$lock/pid"
	rm -rf "$CLAYER_BOOT_DIR"/.clayer-* # of a run that was killed during a download
	code=0
	# stderr of all goes to the log: a hook's host shows it, or drops it.
	{
		clayer=$(clayer_here || clayer_install "$CLAYER_BOOT_VERSION" "$CLAYER_BOOT_PINS" "$CLAYER_BOOT_DIR") &&
			clayer_left && clayer_as_root "$clayer" compose --progress=plain{{.Layers}} || code=$?
		if [ "$code" = 0 ] && [ -n "${CLAUDE_ENV_FILE:-}" ]; then "$clayer" env --claude || code=$?; fi
		if [ "$code" = 0 ] && [ -n "${GITHUB_ENV:-}" ]; then "$clayer" env --github || code=$?; fi
		if [ "$code" = 0 ] && [ -n "${CLAYER_BOOT_BASH:-}" ]; then "$clayer" env --bash || code=$?; fi
	} >"$log" 2>&1
	case $clayer_list in
	*"
"*) echo "clayer: the environment is that of $clayer_project: other checkouts here have layers too (CLAYER_BOOT_PROJECT names the one that counts)" ;;
	esac
	if [ "$code" = 0 ] && [ ! -s "$log" ]; then
		echo "clayer: what became of the environment is not known: $log cannot be written; is the disk full?"
	elif [ "$code" = 0 ]; then
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
if [ "$clayer_code" = 0 ]; then
	eval "$("$(clayer_here)" env)"
	command -v clayer >/dev/null 2>&1 || PATH=$PATH:$CLAYER_BOOT_DIR
fi
case $clayer_code in 130 | 143) ;; *) if clayer_best; then clayer_code=0; fi ;; esac
if [ "$clayer_code" = 0 ] && [ $# -gt 0 ]; then exec "$@"; fi
(exit "$clayer_code")
