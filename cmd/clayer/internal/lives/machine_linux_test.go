package lives

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/clayer/clayer/internal/elftest"
)

// plainUser has no rights and no name on any machine.
const plainUser = 424242

const (
	site     = "usr/local/lib/python3.11/dist-packages"
	modules  = "usr/lib/node_modules"
	registry = "usr/share/registry"
	elfs     = registry + "/deb/elf"
)

// binaries are the programs and libraries that packages have: no test runs them, since what
// has to be there to run them is what counts.
var binaries = map[string]elftest.File{
	elfs + "/libbase":             {Needed: []string{"libc.so.6"}},
	elfs + "/libpq":               {Needed: []string{"libc.so.6"}},
	elfs + "/app":                 {Needed: []string{"libbase.so.1", "libc.so.6"}},
	elfs + "/psql":                {Needed: []string{"libpq.so.5"}},
	registry + "/py/plugin/qt":    {Needed: []string{"libmysql.so.21"}}, // which nobody has
	registry + "/py/plugin/numpy": {Needed: []string{"libpq.so.5"}},
	"usr/lib/libc.so.6":           {},
}

const applets = "sh cat cp cut date chmod chown dirname env find grep ln ls mkdir mv readlink rm sed sleep sort stat strings touch true test ["

// required are the packages that one requires, as it says so, by manager and name.
var required = func() map[string]map[string][]string {
	all := map[string]map[string][]string{"py": {}, "deb": {}, "npm": {}}
	for _, f := range machineFiles() {
		parts := strings.Split(strings.TrimPrefix(f.Name, registry+"/"), "/")
		if len(parts) != 2 || all[parts[0]] == nil || !strings.HasPrefix(f.Name, registry) {
			continue
		}
		var deps []string
		text := string(f.Data)
		switch parts[0] {
		case "py":
			_, text, _ = strings.Cut(text, "\n")
			for dep := range strings.FieldsSeq(text) {
				deps = append(deps, dep)
			}
		default:
			if m := regexp.MustCompile(`(?:needs|peer)=([a-z0-9]+)`).FindStringSubmatch(text); m != nil {
				deps = []string{m[1]}
			}
		}
		all[parts[0]][parts[1]] = deps
	}
	return all
}()

func nameOf(spec string) string { return regexp.MustCompile(`^[a-z0-9]+`).FindString(spec) }

func machineFiles() []txtar.File {
	archive, err := txtar.ParseFile("testdata/machine.txtar")
	if err != nil {
		panic(err)
	}
	return archive.Files
}

// makeTemplate makes the root that all machines are copies of.
func makeTemplate(dir, busybox string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"usr/bin", "usr/lib", "usr/local/bin", site, "usr/lib/python3/dist-packages", modules, "opt", "srv", "home", "root",
		"etc", "proc", "dev", "sys", "run", "tmp", "var/tmp", "var/log", "var/lib/dpkg/info", "work"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			return err
		}
	}
	script := `set -e; ln -s usr/bin bin; ln -s usr/lib lib; cp ` + busybox + ` usr/bin/busybox
for a in ` + applets + `; do ln -s busybox usr/bin/$a; done
mknod dev/null c 1 3; chmod 666 dev/null; chmod 1777 tmp var/tmp; ln -s python3.11 usr/bin/python3`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	put := func(name string, data []byte) error {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "usr/bin/") {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(at(name)), 0o755); err != nil {
			return err
		}
		return os.WriteFile(at(name), data, mode)
	}
	for _, f := range machineFiles() {
		if err := put(f.Name, f.Data); err != nil {
			return err
		}
	}
	for name, f := range binaries {
		if err := put(name, f.Bytes()); err != nil {
			return err
		}
	}
	text, err := exec.Command("sh", "-c", `find "$1" -exec touch -h -d @1000000000 {} +`, "sh", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}
