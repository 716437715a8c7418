package machine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/clayer/clayer/frontend/edit"
)

// pyenvScript is a shim as pyenv writes it.
const pyenvScript = `#!/usr/bin/env bash
set -e
[ -n "$PYENV_DEBUG" ] && set -x

program="${0##*/}"

export PYENV_ROOT="%[1]s"
exec "%[1]s/libexec/pyenv" exec "$program" "$@"
`

func TestPlatform(t *testing.T) {
	for _, name := range []string{"PYENV_VERSION", "PYENV_DIR", "PYENV_HOOK_PATH"} {
		t.Setenv(name, "")
	}
	files := map[string]string{
		"usr/lib/os-release":                "NAME=\"A B\"\nID=debian\nVERSION_ID=\"12\"\n",
		"usr/bin/python3.11":                "",
		"opt/py/bin/python3":                "", // a program of its own
		"opt/py/lib/python3.13/x":           "",
		"etc/hostname":                      "",
		"py/shims/python3":                  fmt.Sprintf(pyenvScript, "/py"),
		"py/version":                        "3.12.1\n",
		"py/versions/3.12.1/bin/python3.12": "",
		// A file alone does not decide there, or there is no such program.
		"hooked/shims/python3":                   fmt.Sprintf(pyenvScript, "/hooked"),
		"hooked/version":                         "3.12.1\n",
		"hooked/versions/3.12.1/bin/python3.12":  "",
		"hooked/pyenv.d/version-name/x.bash":     "",
		"system/shims/python3":                   fmt.Sprintf(pyenvScript, "/system"),
		"system/version":                         "system\n",
		"several/shims/python3":                  fmt.Sprintf(pyenvScript, "/several"),
		"several/version":                        "3.12.1\n3.11.2\n",
		"several/versions/3.12.1/bin/python3.12": "",
		"gone/shims/python3":                     fmt.Sprintf(pyenvScript, "/gone"),
		"gone/version":                           "3.12.1\n",
		"script/python3":                         "#!/bin/sh\nexec python3.12\n",
		"ours/python3":                           "#!/bin/sh\n" + edit.ShimMark + "\n",
	}
	tree := make(fstest.MapFS)
	for name, text := range files {
		tree[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o755}
	}
	root := t.TempDir()
	if err := os.CopyFS(root, tree); err != nil {
		t.Fatal(err)
	}
	// Absolute links are the root's, not the machine's.
	for link, target := range map[string]string{
		"usr/bin/python3": "/usr/bin/python3.11", "bin": "usr/bin", "etc/os-release": "../usr/lib/os-release", "loop": "loop",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for searchPath, want := range map[string]string{
		"/bin":                 " debian 12 python3.11",
		"/nowhere:/usr/bin":    " debian 12 python3.11",
		"/opt/py/bin:/usr/bin": " debian 12 python3.13",
		"relative:/nowhere":    " debian 12",
		"/loop":                " debian 12",
		"/py/shims":            " debian 12 python3.12",
		"/ours:/usr/bin":       " debian 12 python3.11",
		"/ours":                " debian 12", // clayer's own shim stands for another program
		"/hooked/shims":        " debian 12 python3",
		"/system/shims":        " debian 12 python3",
		"/several/shims":       " debian 12 python3",
		"/gone/shims":          " debian 12 python3",
		"/script":              " debian 12 python3",
	} {
		if got := Platform(context.Background(), root, searchPath); !strings.HasSuffix(got, want) || !strings.Contains(got, "/") {
			t.Errorf("Platform with PATH=%s = %q, want ...%q", searchPath, got, want)
		}
	}
}
