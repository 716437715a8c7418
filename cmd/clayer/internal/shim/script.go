package shim

import (
	"fmt"
	"strings"

	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// executable is the shim of a program, a script: it decides by itself on command
// lines that install nothing, which are most, and it works when clayer is gone.
// The rest it leaves to Exec.
func executable(name string, o Options) string {
	var patterns []string
	for _, v := range edit.Verbs(name) {
		patterns = append(patterns, `*" `+v+` "*`)
	}
	return fmt.Sprintf(`#!/bin/sh
%[1]s
d=%[2]s c=%[3]s
case " $* " in
%[4]s)
	[ "${CLAYER_SHIM-}" = off ] || [ ! -x "$c" ] ||
		exec "$c" shim exec --dir "$d" --file %[5]s -- %[6]s "$@" ;;
esac
# The real program is the first after this directory, or, where it is not on PATH,
# the first of all.
rest=:$PATH:
rest=${rest#*":$d:"}
set -f
IFS=:
for p in $rest; do
	if [ -n "$p" ] && [ -f "$p/%[6]s" ] && [ -x "$p/%[6]s" ] && ! [ "$p" -ef "$d" ]; then
		unset IFS
		set +f
		exec "$p/%[6]s" "$@"
	fi
done
echo "%[6]s: not found" >&2
exit 127
`, edit.ShimMark, quote(o.Dir), quote(o.Clayer), strings.Join(patterns, "|"), quote(o.File), name)
}

var plainWord = lazyregexp.New(`^[A-Za-z0-9_./:=@%+,-]+$`)

// Word quotes a word for a shell, if it has to be.
func Word(s string) string {
	if plainWord().MatchString(s) {
		return s
	}
	return quote(s)
}

// quote quotes a text for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Env returns the commands that put the shims in dir first on PATH.
func Env(dir, shell string) (string, error) {
	switch shell {
	case "sh":
		// Not twice, but first all the same: a profile may have put others there.
		return fmt.Sprintf("case \"$PATH\" in %[1]s:*) ;; *) export PATH=%[1]s\":$PATH\" ;; esac\nhash -r 2>/dev/null || :\n", quote(dir)), nil
	case "fish":
		q := "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(dir) + "'"
		return fmt.Sprintf("test \"$PATH[1]\" = %[1]s; or set -gx PATH %[1]s $PATH\n", q), nil
	}
	return "", fmt.Errorf("--shell=%s: want sh or fish", shell)
}

// Source returns the script that bash and zsh source with the Containerfile as
// its argument: functions in place of executables, for this shell alone.
func Source(clayer string) string {
	return fmt.Sprintf(`# source uv_shim.sh [FILE]: what is installed by hand in this shell is written
# into FILE, a Containerfile. For bash and zsh; made by "clayer shim source".
_clayer_shim_file=${1:-Containerfile}
case $_clayer_shim_file in
/*) ;;
*) _clayer_shim_file=$PWD/$_clayer_shim_file ;;
esac
_clayer_shim() {
	if [ -x %[1]s ]; then
		%[1]s shim exec --file "$_clayer_shim_file" -- "$@"
	else
		command "$@"
	fi
}
for _clayer_shim_name in %[2]s; do
	if command -v "$_clayer_shim_name" >/dev/null 2>&1; then
		eval "$_clayer_shim_name() { _clayer_shim $_clayer_shim_name \"\$@\"; }"
	fi
done
unset _clayer_shim_name
`, quote(clayer), strings.Join(edit.Programs(), " "))
}
