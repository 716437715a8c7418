package storm

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Recipe is a Containerfile with the files in its directory.
type Recipe struct {
	Lines []string
	Files map[string]string // path → content; one that begins with "->" is a link
}

// Text is the Containerfile. A RUN ends at its first error: one that a full
// disk stops halfway, and that succeeds, would make another environment.
func (r Recipe) Text() string {
	return "ARG HOST\nSHELL [\"/bin/sh\", \"-ec\"]\n" + strings.Join(r.Lines, "\n") + "\n"
}

// A line makes an instruction. n is a number that no other line of the round has.
type line func(rng *rand.Rand, n int) string

// What all modes can do, in place too: these lines only add, so that an undo
// can give back what was there.
var gentle = []line{
	func(rng *rand.Rand, n int) string {
		return fmt.Sprintf("RUN mkdir -p /opt/s/new%d/a/b && echo %d > /opt/s/new%d/a/b/f && chmod 700 /opt/s/new%d/a", n, n, n, n)
	},
	func(rng *rand.Rand, n int) string {
		return fmt.Sprintf("RUN i=0; while [ $i -lt %d ]; do echo $i > /srv/s/many%d-$i; i=$((i+1)); done", 5+rng.IntN(60), n)
	},
	func(rng *rand.Rand, n int) string {
		return fmt.Sprintf("RUN i=0; while [ $i -lt %d ]; do echo this is line $i of %d, and some more; i=$((i+1)); done > /opt/s/large%d", 100+rng.IntN(6000), n, n)
	},
	func(rng *rand.Rand, n int) string {
		return fmt.Sprintf("RUN echo %d > /opt/s/one%d; ln /opt/s/one%d /opt/s/two%d; ln -s one%d /opt/s/link%d; ln -s /nowhere /srv/s/dangling%d", n, n, n, n, n, n, n)
	},
	func(rng *rand.Rand, n int) string {
		return fmt.Sprintf("RUN echo '#!/bin/sh' > /opt/s/setuid%d; chmod 4755 /opt/s/setuid%d; mkfifo -m 600 /srv/s/pipe%d", n, n, n)
	},
	func(rng *rand.Rand, n int) string { return fmt.Sprintf("ENV STORM%d=%d", n, rng.IntN(9)) },
	func(rng *rand.Rand, n int) string { return fmt.Sprintf("WORKDIR /opt/s/work%d/dir", n) },
	func(rng *rand.Rand, n int) string { return fmt.Sprintf("COPY one /srv/s/copied%d", n) },
	func(rng *rand.Rand, n int) string { return fmt.Sprintf("COPY tree /opt/s/tree%d", n) },
	func(rng *rand.Rand, n int) string { return fmt.Sprintf("COPY --chmod=4711 one /opt/s/mode%d", n) },
	func(rng *rand.Rand, n int) string { return "COPY tree/ link /srv/s/" },
	func(rng *rand.Rand, n int) string { return "COPY one /etc/s/conf" },
	func(rng *rand.Rand, n int) string {
		return fmt.Sprintf("FETCH --checksum=%s http://$HOST/%s /opt/s/fetched%d", archiveSum(), archiveName, n)
	},
	func(rng *rand.Rand, n int) string {
		return fmt.Sprintf("FETCH --extract=false --checksum=%s http://$HOST/%s /srv/s", archiveSum(), archiveName)
	},
}

// What changes what is there: from an overlay it can be undone.
var rough = []line{
	func(rng *rand.Rand, n int) string { return "RUN rm -f /srv/s/x" },
	func(rng *rand.Rand, n int) string { return "RUN rm -rf /opt/s/deep" },
	func(rng *rand.Rand, n int) string { return fmt.Sprintf("RUN echo more %d >> /etc/s/conf", n) },
	func(rng *rand.Rand, n int) string {
		return fmt.Sprintf("RUN [ ! -e /srv/s/y ] || mv /srv/s/y /srv/s/moved%d", n)
	},
	func(rng *rand.Rand, n int) string {
		return fmt.Sprintf("RUN [ ! -e /opt/s/lib ] || mv /opt/s/lib /opt/s/lib%d", n)
	},
	func(rng *rand.Rand, n int) string { return "RUN rm -rf /opt/s/deep && echo file > /opt/s/deep" },
	func(rng *rand.Rand, n int) string {
		return "RUN rm -rf /srv/s/z && mkdir /srv/s/z && echo in > /srv/s/z/in"
	},
	func(rng *rand.Rand, n int) string { return "RUN rm -rf /opt/s/lib && ln -s deep /opt/s/lib" },
	func(rng *rand.Rand, n int) string {
		return fmt.Sprintf("RUN chmod 0750 /etc/s; [ ! -f /srv/s/x ] || ln /srv/s/x /srv/s/same%d", n)
	},
	func(rng *rand.Rand, n int) string {
		return "RUN rm -rf /etc/s && mkdir /etc/s && echo again > /etc/s/conf"
	},
	func(rng *rand.Rand, n int) string { return "RUN touch -d @981158400 /etc/s /opt/s; chmod 2711 /srv/s" },
}

// What only root can do.
var privileged = []line{
	func(rng *rand.Rand, n int) string { return "RUN chown 3:4 /etc/s/conf; chown -R 5:6 /opt/s" },
	func(rng *rand.Rand, n int) string { return fmt.Sprintf("COPY --chown=5:6 tree /opt/s/owned%d", n) },
}

func linesFor(m Mode) []line {
	lines := slices.Clone(gentle)
	if m.Sandbox != "inplace" {
		lines = append(lines, rough...)
	}
	if m.Sandbox != "inplace" && !m.User {
		lines = append(lines, privileged...)
	}
	return lines
}

func drawRecipe(rng *rand.Rand, m Mode) Recipe {
	r := Recipe{Files: map[string]string{
		"one": fmt.Sprintf("one of %d\n", rng.IntN(100)), "tree/a": "a\n", "tree/sub/b": "b\n", "tree/sub/empty": "", "link": "-> one",
	}}
	lines := linesFor(m)
	for n := range 2 + rng.IntN(4) {
		r.Lines = append(r.Lines, pick(rng, lines...)(rng, n))
	}
	return r
}

// edited returns the recipe with a change somewhere.
func (r Recipe) edited(rng *rand.Rand, m Mode) Recipe {
	e := Recipe{slices.Clone(r.Lines), maps.Clone(r.Files)}
	i := rng.IntN(len(e.Lines))
	fresh := pick(rng, linesFor(m)...)(rng, 9)
	switch rng.IntN(6) {
	case 0:
		e.Lines[i] = fresh
	case 1:
		e.Lines = slices.Delete(e.Lines, i, i+1)
	case 2:
		e.Lines = slices.Insert(e.Lines, i, fresh)
	case 3:
		e.Lines = append(e.Lines, fresh)
	case 4:
		e.Files["one"], e.Files["tree/new"] = "another\n", "new\n"
		e.Lines = append(e.Lines, "COPY tree /opt/s/last")
	case 5:
		j := rng.IntN(len(e.Lines))
		e.Lines[i], e.Lines[j] = e.Lines[j], e.Lines[i]
	}
	return e
}

// write makes the recipe's directory.
func (r Recipe) write(dir string) error {
	for _, name := range slices.Sorted(maps.Keys(r.Files)) {
		content := r.Files[name]
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(target, path); err != nil {
				return err
			}
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
		if err := os.Chtimes(path, time.Time{}, long); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "Containerfile"), []byte(r.Text()), 0o644)
}
