package capture

import (
	"context"
	"strconv"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
)

// dpkg asks for packages whose list of files was written since, and apt which of
// them were asked for.
func dpkg(ctx context.Context, o Options) (packages []Package, aside []string, err error) {
	// db-fsys:Last-Modified is the time of the list of files, in seconds.
	// binary:Package has the architecture where several may be installed.
	out, err := output(ctx, "dpkg-query", "-W", "-f", "${binary:Package}\t${Version}\t${db:Status-Status}\t${db-fsys:Last-Modified}\n")
	if err != nil {
		return nil, nil, err
	}
	versions := make(map[string]string)
	var names []string
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 4 || f[2] != "installed" {
			continue
		}
		// To the second: in doubt it is new, and a RUN too many does nothing.
		plain, _, _ := strings.Cut(f[0], ":")
		if at, err := strconv.ParseInt(f[3], 10, 64); (err != nil || at < o.Since.Unix()) && !o.byHand(snapshot.ManagerDpkg, plain) {
			continue
		}
		names = append(names, f[0])
		versions[f[0]] = f[1]
	}
	if len(names) == 0 {
		return nil, nil, nil
	}
	native := ""
	if out, err := output(ctx, "dpkg", "--print-architecture"); err == nil {
		native = strings.TrimSpace(string(out))
	}
	manual := make(map[string]bool)
	out, err = output(ctx, "apt-mark", "showmanual")
	if err != nil {
		return nil, nil, err
	}
	for name := range strings.FieldsSeq(string(out)) {
		manual[strings.TrimSuffix(name, ":"+native)] = true
	}
	for _, name := range names {
		out, err := output(ctx, "dpkg-query", "-L", name)
		if err != nil {
			return packages, aside, err
		}
		files := strings.Split(strings.TrimSpace(string(out)), "\n")
		plain := strings.TrimSuffix(name, ":"+native)
		if !manual[plain] {
			aside = append(aside, files...)
			continue
		}
		packages = append(packages, Package{argv: []string{"apt-get", "install"}, name: plain, version: versions[name], between: "=", owns: files})
	}
	return packages, aside, nil
}
