package oracle

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// A drawing is a case while it is drawn.
type drawing struct {
	*rand.Rand
	n     int // of what was drawn, so that names and contents differ
	files map[string]File
}

func draw(seed uint64) *Case {
	d := &drawing{Rand: rand.New(rand.NewPCG(seed, 15))}
	d.files = d.context()
	c := &Case{Files: d.files}
	for range 3 + d.IntN(6) {
		c.Lines = append(c.Lines, d.instruction())
	}
	if seed%3 == 1 {
		d := &drawing{Rand: rand.New(rand.NewPCG(seed, 23)), n: 1000}
		c.Lines = d.withUsers(c.Lines)
	}
	if seed%4 == 3 {
		d := &drawing{Rand: rand.New(rand.NewPCG(seed, 19)), n: d.n, files: d.files}
		if seed%8 == 7 {
			c.Lines = d.inSeveralStages(c.Lines)
		} else {
			c.Lines = d.inStages(c.Lines)
		}
	}
	return c
}

// withUsers puts USERs among lines, and what shows who runs a RUN.
func (d *drawing) withUsers(lines []string) []string {
	for range 1 + d.IntN(4) {
		user := "USER " + d.one("app", "app", "1000", "77", "7:8", "app:staff", "1000:50", "root", "0", "made", "made:grp", "${WHO:-app}", "$NOTHING", "app:", ":staff", "root:staff", "app:50", "\"app\"", "nosuch", "1000:app")
		at := d.IntN(len(lines) + 1)
		lines = slices.Insert(slices.Clone(lines), at, user, d.one(
			fmt.Sprintf("RUN id -u > /out/%d; id -G >> /out/%d; echo $HOME >> /out/%d; true", d.number(), d.n, d.n),
			fmt.Sprintf("RUN id -u > /tmp/%d; id -g >> /tmp/%d; cat /tmp/%d > /out/%d; true", d.number(), d.n, d.n, d.n),
			fmt.Sprintf("RUN mkdir -p ~/%d; echo %d > ~/%d/x; (: > /etc/%d) || echo denied > /out/%d; true", d.number(), d.n, d.n, d.n, d.n),
			"WORKDIR "+d.place(), "WORKDIR rel/"+d.one("a", "b/c"),
		))
	}
	open := "RUN chmod 1777 /out /srv /opt"
	if d.sometimes(2) {
		open += "; echo 'made:x:100:200::/srv/home:/bin/sh' >> /etc/passwd; echo 'grp:x:201:app,made' >> /etc/group"
	}
	return slices.Insert(lines, 0, open)
}

// ownFiles makes a stage one that is built: without a line that may change files it would be the
// image that its FROM names, which is in no registry.
const ownFiles = "RUN :"

// inStages puts a stage before lines, and has them copy from it.
func (d *drawing) inStages(lines []string) []string {
	for range 1 + d.IntN(3) {
		lines = slices.Insert(lines, d.IntN(len(lines)+1), d.copyFrom())
	}
	first := []string{ownFiles}
	for range 1 + d.IntN(4) {
		first = append(first, d.instruction())
	}
	return slices.Concat(first, []string{"FROM " + baseName}, lines)
}

// inSeveralStages has lines follow stages that begin with each other, copy from each other, and
// mount each other.
func (d *drawing) inSeveralStages(lines []string) []string {
	n := 2 + d.IntN(3)
	var all []string
	for s := range n + 1 {
		if s == n { // the first stage has no name
			all = append(all, "FROM "+d.one(baseName, fmt.Sprint("s", 1+d.IntN(n-1))))
		} else if s > 0 {
			on := baseName
			if s > 1 && d.sometimes(2) {
				on = fmt.Sprint("s", 1+d.IntN(s-1))
			}
			all = append(all, fmt.Sprintf("FROM %s AS s%d", on, s))
		}
		own := lines
		if s < n {
			own = []string{ownFiles}
			for range 1 + d.IntN(3) {
				own = append(own, d.instruction())
			}
		}
		for range d.IntN(3) {
			if s > 0 {
				own = slices.Insert(own, d.IntN(len(own)+1), d.useOf(d.IntN(s)))
			}
		}
		all = append(all, own...)
	}
	return all
}

// useOf draws what copies from a stage, or mounts it.
func (d *drawing) useOf(stage int) string {
	if stage > 0 && d.sometimes(3) {
		return fmt.Sprintf("RUN --mount=from=s%d,source=%s,target=/mnt/stage cp -a /mnt/stage /opt/of-%d", stage, d.one("/srv", "/out", "/srv/dir"), d.number())
	}
	if stage == 0 {
		return d.copyFrom()
	}
	return strings.Replace(d.copyFrom(), "--from=0", "--from="+d.one(fmt.Sprint(stage), fmt.Sprint("s", stage)), 1)
}

func (d *drawing) copyFrom() string {
	var sources []string
	for range 1 + d.IntN(8)/6 {
		source := d.place()
		switch d.IntN(6) {
		case 0:
			source = d.one("/srv/*", "/srv/l*", "/srv/dir/*", "/opt/*", "/out/*", "/srv/*/x", "/srv/d?r", "/nosuch*", "srv/dir", "/srv/dir/.", "/srv/dir/../file", "/srv/labs/")
		case 1:
			source = "/out"
		}
		sources = append(sources, source)
	}
	return "COPY --from=0" + d.flags() + " " + strings.Join(sources, " ") + " " + d.dest()
}

// one returns one of several.
func (d *drawing) one(list ...string) string { return list[d.IntN(len(list))] }

// sometimes reports true in one of n cases.
func (d *drawing) sometimes(n int) bool { return d.IntN(n) == 0 }

func (d *drawing) number() int { d.n++; return d.n }

// context draws the files of a case: some that are always there, and some that are not.
func (d *drawing) context() map[string]File {
	files := map[string]File{
		"a":         {Content: "a\n", Mode: 0o644},
		"run.sh":    {Content: "#!/bin/sh\necho ran \"$@\" >> /out/ran\n", Mode: 0o755},
		"dir/x":     {Content: "x\n", Mode: 0o644},
		"dir/sub/y": {Content: "y\n", Mode: 0o644},
	}
	more := map[string]File{
		"b":               {Content: "b\n", Mode: 0o644},
		"empty":           {Mode: 0o644},
		"two words":       {Content: "words\n", Mode: 0o644},
		"über":            {Content: "ü\n", Mode: 0o644},
		"[g]":             {Content: "glob\n", Mode: 0o644},
		"none/":           {Mode: 0o644},
		"dir/none/":       {Mode: 0o644},
		"dir/a":           {Content: "a in dir\n", Mode: 0o644},
		"dir/tool":        {Content: "#!/bin/sh\n", Mode: 0o755},
		"dir/.hidden":     {Content: "hidden\n", Mode: 0o644},
		"dir/lx":          {Content: "x", Link: true},
		"dir/lout":        {Content: "../a", Link: true},
		"dir/labs":        {Content: "/srv/dir", Link: true},
		"la":              {Content: "a", Link: true},
		"ldir":            {Content: "dir", Link: true},
		"lnone":           {Content: "nowhere", Link: true},
		"other/dir/x":     {Content: "another x\n", Mode: 0o644},
		"other/sub/y":     {Content: "another y\n", Mode: 0o644},
		"over/dir":        {Content: "a file named dir\n", Mode: 0o644},
		"over/ldir/new":   {Content: "new\n", Mode: 0o644},
		"over/lfile":      {Content: "lfile\n", Mode: 0o644},
		"over/file/below": {Content: "below\n", Mode: 0o644},
		"dir/sub/secret":  {Content: "secret\n", Mode: 0o400},
		"dir/sub/tool":    {Content: "#!/bin/sh\n", Mode: 0o711},
		"private":         {Content: "private\n", Mode: 0o600},
		"deep/1/2/3/4/f":  {Content: "deep\n", Mode: 0o644},
		"deep/1/2/x":      {Content: "deep x\n", Mode: 0o640},
		"deep/1/up":       {Content: "../../dir/x", Link: true},
		"deep/1/2/3/back": {Content: "..", Link: true},
		"lchain":          {Content: "la", Link: true},
		"lsub":            {Content: "ldir/sub", Link: true},
		"lroot":           {Content: "/a", Link: true},
		"llup":            {Content: "dir/../other", Link: true},
		"over/lnone":      {Content: "a file named lnone\n", Mode: 0o644},
		"over/made/in":    {Content: "in\n", Mode: 0o644},
		"pack.tar":        {Mode: 0o644},
		"pack.tgz":        {Mode: 0o644},
		"odd.tar":         {Mode: 0o644},
		"text.gz":         {Mode: 0o600},
		"arc/pack.txz":    {Mode: 0o644},
		"arc/pack.tzst":   {Mode: 0o644},
		"arc/cut.tgz":     {Mode: 0o644},
		"arc/empty.tar":   {Mode: 0o644},
		"dir/again":       {Content: "dir/x", Name: true},
		"dir/sub/again":   {Content: "dir/x", Name: true},
		"deep/1/again":    {Content: "run.sh", Name: true},
		"deep/apipe":      {Mode: 0o640, Fifo: true},
		"dir/sub/suid":    {Content: "suid\n", Mode: 0o4755},
		"deep/1/sgid":     {Content: "sgid\n", Mode: 0o2711},
		"deep/sticky/":    {Mode: 0o1755},
	}
	for _, name := range slices.Sorted(maps.Keys(more)) {
		if !d.sometimes(4) {
			files[name] = more[name]
		}
	}
	if d.sometimes(3) {
		var lines []string
		if d.sometimes(3) {
			lines = append(lines, d.one("*", "**", "*/*", "dir", "**/*"))
		}
		for range 1 + d.IntN(5) {
			lines = append(lines, d.one("dir", "dir/*", "*/sub", "**/x", "!dir/x", "!**/y", "# dir", "/dir/sub", "dir/sub/", "!a", "!dir", "*.sh", "??", "**/.*", "over/*/", " b ", "./b", "!other/dir", "other",
				"deep", "!deep/1/2", "**/2", "!deep/**/f", "deep/*/2/x", "l*", "!ldir", "!la", "dir/l?", "!dir/sub/*", "!*.sh", "!**", "!deep/1/2/3/4/f", "dir/[a-m]*", "!dir/su?", "!over"))
		}
		files[d.one(".dockerignore", ".dockerignore", ".dockerignore", containerfile+".dockerignore")] = File{Content: strings.Join(lines, "\n") + "\n", Mode: 0o644}
	}
	return files
}

// place draws a path in the root. They are few, so that instructions meet.
func (d *drawing) place() string {
	p := d.one("/srv/dir", "/srv/dir/a", "/srv/dir/sub", "/srv/dir/x", "/srv/file", "/srv/ldir", "/srv/labs", "/srv/lfile", "/srv/lnone",
		"/srv/lup", "/srv/lout", "/srv/empty", "/srv/closed", "/srv/able", "/srv/none", "/opt", "/opt/made", "/opt/made/more", "/opt/dir", "/new", "/new/deep/er", "/srv/dir/lback", "/opt/1/2/3/4/5/6", "/srv/dir/sub/1/2")
	if d.sometimes(60) {
		return "/srv/lloop"
	}
	if d.sometimes(5) {
		p += d.one("/a", "/x", "/sub", "/dir", "/more")
	}
	return p
}

// dest draws what a COPY copies to.
func (d *drawing) dest() string {
	p := d.place()
	switch d.IntN(8) {
	case 0:
		p = d.one(".", "./", "x", "sub/", "./x", "../x", "sub/../y", "..", "a/b/c/", "/", "$DEST", "${DEST}/x", "//srv//dir/", "/srv/./dir/../dir",
			"/srv/ldir/../up", "/srv/labs/lback/lfile", "/srv/lup/../made2/", "${DEST:-/opt/def}/", "/opt/${SUB:+set}/x", "/opt/${A-unset}/")
	case 1, 2, 3:
		p += "/"
	}
	return p
}

func (d *drawing) flags() string {
	f := ""
	if d.sometimes(40) {
		return " --chown=$OWNER --chmod=$MODE"
	}
	if d.sometimes(4) {
		f += " --chown=" + d.one("1000", "7:8", "app", "app:staff", "root", "1000:staff", "app:0", "made", "made:grp", "0:0", "app:7")
	}
	if d.sometimes(30) {
		f += " --link"
	}
	for d.sometimes(6) {
		f += " --exclude=" + d.one("x", "sub", "**/x", "*.sh", "!x", "!sub/y", "**", "dir", "dir/x", "*/*", "!**/f", "**/a*", "l*", "1/2", "[a-m]*", "\"$A\"", "sub/", "/x", "**/*p*")
	}
	if d.sometimes(5) {
		f += " --chmod=" + d.one("600", "0755", "4755", "755", "0644", "700", "1777", "go-r,u=rwX")
	}
	return f
}

// source draws a source of a COPY: mostly one that is there, since both refuse others.
func (d *drawing) source() string {
	for {
		s := d.anySource()
		name := path.Clean("/" + s)[1:]
		for f := range d.files {
			if name == "" || f == name || strings.HasPrefix(f, name+"/") {
				return s
			}
		}
		if strings.ContainsAny(s, "*?[$") || d.sometimes(10) {
			return s
		}
	}
}

func (d *drawing) anySource() string {
	return d.one("a", "a", "run.sh", "dir", "dir", "dir/", "dir/sub", "dir/x", "dir/*", "*.sh", "?", "b", "./a", "/a", "dir/../a", "empty", "none", "la", "ldir", "ldir/x", "ldir/", "lnone",
		"dir/lx", "dir/l*", "other", "other/dir", "over", "over/*", "private", "*/x", "[ab]", "[[]g]", "über", ".", "dir/.", "d*", "pack.tar", "pack.tgz", "$SRC", "deep", "deep/1", "deep/*/2", "deep/1/2/*", "deep/1/up", "deep/1/2/3/back/x",
		"lchain", "lsub", "lsub/*", "lroot", "llup", "llup/dir", "ldir/*", "ldir/sub/", "*/*/x", "dir/again", "deep/1/again", "odd.tar", "text.gz", "arc", "arc/*", "arc/pack.t*", "*.t*", "dir/sub/suid", "deep/1/sgid", "[!a-c]*", "${SRC:-dir}", "${SRC}/sub", "over/l*", "over/made")
}

func (d *drawing) instruction() string {
	switch n := d.IntN(100); {
	case n < 33:
		return d.copy("COPY")
	case n < 60:
		return d.run()
	case n < 69:
		return "WORKDIR " + d.one(d.place(), d.place(), "rel", "${A:-wd}", "$NOTHING/x", "/opt/${SUB}/$A", "\"/opt/two words\"", "sub/", ".", "..", "../up", "$DEST", "/opt/$SUB", "${DEST:-/opt}/w")
	case n < 75:
		return "ENV " + d.one("DEST=/opt/env", "DEST=/srv/ldir", "SUB=a", "SUB=\"two words\"", "OWNER=7:9 MODE=640", "SRC=dir", "A=1 B=$A", "B=${B:-none}$A", "A old form", "X='$A'", "A=\"a\\\"b\"", "PATH=/opt/bin:$PATH",
			"A=${A:-1}${SUB:+,$SUB}", "X=\"${DEST}:${A}\" SUB=in", "X=${X}$X", "SUB=${A:-sub}", "B=${PATH#/usr} X=${PATH%:*}", "X=${DEST//\\//-}", "DEST=/opt/${SUB:-s}", "SRC=$SUB")
	case n < 79:
		return "ARG " + d.one("SUB=arg", "DEST=/opt/arg", "NOTHING", "A=arg", "SRC=a", "OWNER=1000", "MODE=0700", "B=$A", "A=${SUB:-none}", "DEST=${DEST:-/srv}/arg", "SUB", "X=\"a b\"", "SUB=one A=$SUB", "SRC=${SRC:-dir}")
	case n < 85:
		return d.copy("ADD")
	case n < 87:
		return d.one("ARG LATE", `SHELL ["/bin/sh", "-ec"]`, `SHELL ["/bin/ash", "-c"]`, `SHELL ["/bin/sh", "-xc"]`)
	case n < 89:
		return d.one("LABEL a=b", "CMD [\"sh\"]", "EXPOSE 80", "ENTRYPOINT true", "STOPSIGNAL 9", "HEALTHCHECK NONE", "# a comment", "VOLUME /srv/dir", "ONBUILD RUN false", "MAINTAINER me")
	case n < 96:
		return d.scratch()
	}
	return d.heredoc()
}

// scratch draws an instruction that leaves something in /tmp or /var/tmp, or looks there.
func (d *drawing) scratch() string {
	dir, name := d.one("/tmp", "/tmp", "/var/tmp", "/tmp/w", "/var/tmp/v"), d.one("a", "x", "run.sh", "sub")
	at, n := dir+"/"+name, d.number()
	switch d.IntN(16) {
	case 0:
		return "COPY " + d.source() + " " + at
	case 1:
		return "COPY " + d.source() + " " + dir + "/"
	case 2:
		return "COPY run.sh /tmp/run.sh"
	case 3:
		return fmt.Sprintf("RUN sh /tmp/run.sh %d; rm -f /tmp/run.sh; true", n)
	case 4:
		return fmt.Sprintf("RUN find /tmp /var/tmp | sort > /out/%d", n)
	case 5:
		return fmt.Sprintf("RUN mkdir -p %s; echo %d > %s; true", dir, n, at)
	case 6:
		return "WORKDIR " + dir
	case 7:
		return fmt.Sprintf("RUN cat %s > /out/%d; true", at, n)
	case 8:
		return fmt.Sprintf("RUN mv %s %s; true", at, d.place())
	case 9:
		return fmt.Sprintf("RUN cp -a %s %s; true", d.place(), at)
	case 10:
		return fmt.Sprintf("RUN ln -s %s %s; true", at, d.place())
	case 11:
		return fmt.Sprintf("RUN ln -s %s %s; true", d.place(), at)
	case 12:
		return fmt.Sprintf("RUN rm -rf %s; true", d.one(at, dir+"/*"))
	case 13:
		return fmt.Sprintf("RUN chmod 700 %s; stat -c '%%a %%F' %s > /out/%d; true", at, at, n)
	case 14:
		return fmt.Sprintf("RUN ln %s %s; true", at, d.place())
	}
	return fmt.Sprintf("COPY <<EOF %s\nscratch %d $A\nEOF", at, n)
}

// added draws an ADD of what only ADD can.
func (d *drawing) added() string {
	flags, dest := d.flags(), d.dest()
	switch d.IntN(3) {
	case 0:
		return "ADD --unpack=" + d.one("true", "false") + flags + " " + d.one("pack.tgz", "odd.tar", "arc/*", "text.gz", "dir") + " " + dest
	case 1:
		return "ADD" + flags + " " + serverName + d.one("/a", "/x?y", "/dir/x#y", "/pack.tgz", "/more/$SUB/b", "") + " " + dest
	}
	return "ADD --unpack=true" + flags + " " + serverName + d.one("/a", "/pack.tgz", "/odd.tar", "/text.gz", "/pack.txz") + " " + strings.TrimSuffix(dest, "/") + "/"
}

// parents draws a COPY that copies the directories above, too.
func (d *drawing) parents() string {
	var sources []string
	for range 1 + d.IntN(6)/4 {
		sources = append(sources, d.one("dir/x", "dir", "dir/sub", "**/x", "dir/./sub/y", "dir/./sub", "./dir/x", "deep/1/./2/x", "deep/1/./2", "*/sub/./y", "*/sub/y", "de*/./1/**/f", "**/*.sh", "deep/**", "ldir", "la", "ldir/./sub",
			"other/dir/x", "over/./*", "dir/l*", "run.sh", "/dir/x", "nosuch*", "d[h-j]r/x", "deep/1/up", "dir/*/again", "dir/./*"))
	}
	dest := d.dest()
	if len(sources) > 1 && !strings.HasSuffix(dest, "/") {
		dest += "/"
	}
	return "COPY --parents" + d.flags() + " " + strings.Join(sources, " ") + " " + dest
}

func (d *drawing) copy(word string) string {
	if word == "COPY" && d.sometimes(8) {
		return d.parents()
	}
	if word == "ADD" && d.sometimes(3) {
		return d.added()
	}
	sources := []string{d.source()}
	dest := d.dest()
	for d.sometimes(5) {
		sources = append(sources, d.source())
		if !strings.HasSuffix(dest, "/") && !d.sometimes(8) {
			dest += "/"
		}
	}
	if d.sometimes(15) {
		sources[0] = "two words"
	}
	if sources[0] == "two words" || d.sometimes(10) {
		for i := range sources {
			sources[i] = fmt.Sprintf("%q", sources[i])
		}
		return fmt.Sprintf("%s%s [%s, %q]", word, d.flags(), strings.Join(sources, ", "), dest)
	}
	return fmt.Sprintf("%s%s %s %s", word, d.flags(), strings.Join(sources, " "), dest)
}

func (d *drawing) run() string {
	var commands []string
	for range 1 + d.IntN(4) {
		commands = append(commands, d.command())
	}
	if !d.sometimes(4) {
		commands = append(commands, "true") // it fails only where -e is set
	}
	switch text := strings.Join(commands, "; "); d.IntN(8) {
	case 0:
		return fmt.Sprintf("RUN [\"/bin/sh\", \"-c\", %q]", text)
	case 1:
		return "RUN " + strings.Join(commands, "; \\\n    ")
	case 3:
		if d.sometimes(6) {
			return "RUN --mount=type=secret,id=none " + text
		}
		mount := d.one("type=tmpfs", "type=tmpfs,size=1m", "type=cache", "type=cache,uid=7,gid=8,mode=0710")
		if strings.HasPrefix(mount, "type=cache") {
			mount += fmt.Sprintf(",id=%x", d.Uint64()) // BuildKit's are those of all cases
		}
		return fmt.Sprintf("RUN --mount=%s,target=%s %s", mount, d.one("/mnt", "/mnt/made", "/mnt/more"), text)
	case 2:
		return "RUN <<EOF\n" + strings.Join(commands, "\n") + "\nEOF"
	default:
		return "RUN " + text
	}
}

// command draws a command of a RUN: one that changes something, or writes down what it sees.
func (d *drawing) command() string {
	p, q, n := d.place(), d.place(), d.number()
	gone := p
	if strings.Contains(p, "/lback/") {
		gone = "/srv/dir" // by way of what it holds, it is gone in part: in the order of readdir
	}
	switch d.IntN(36) {
	case 30:
		return fmt.Sprintf("cmp %s %s; echo $? >> /out/%d", p, q, n)
	case 31:
		return fmt.Sprintf("for f in %s/*; do stat -c '%%n %%F %%a' $f; done > /out/%d", p, n)
	case 32:
		return fmt.Sprintf("[ -x %s ] && echo x > /out/%d; [ -d %s ] && echo d >> /out/%d; [ -L %s ] && echo l >> /out/%d", p, n, q, n, p, n)
	case 33:
		return fmt.Sprintf("cd %s; pwd -P > /out/%d; echo %d > in", p, n, n)
	case 34:
		return fmt.Sprintf("env | grep -E '^(A|B|X|SUB|DEST|SRC|NOTHING|PATH)=' | sort > /out/%d", n)
	case 35:
		return fmt.Sprintf("find %s -type f -exec sha256sum '{}' ';' | sort > /out/%d", p, n)
	case 0, 1, 2:
		return "mkdir -p " + p
	case 3, 4:
		return fmt.Sprintf("echo %d > %s", n, p)
	case 5:
		return fmt.Sprintf("echo %d >> %s", n, p)
	case 6, 7:
		return "rm -rf " + gone
	case 8:
		return "rm -rf " + gone + "; mkdir -p " + p
	case 9, 10:
		return fmt.Sprintf("ln -s %s %s", d.one("dir", "/opt", "../opt", q, "/out/new", "a", "."), p)
	case 11:
		return fmt.Sprintf("rm -rf %s; ln -s %s %s", gone, q, p)
	case 12:
		return fmt.Sprintf("ln %s %s", q, p)
	case 13:
		return fmt.Sprintf("mv %s %s", q, p)
	case 14:
		return fmt.Sprintf("cp -a %s %s", q, p)
	case 15:
		return fmt.Sprintf("chmod %s %s", d.one("700", "4755", "-R o-rwx", "1777", "0", "-R g+w"), p)
	case 16:
		return fmt.Sprintf("chown %s %s", d.one("app", "7:8", "-R 1000:50", "-h 3:4"), p)
	case 17:
		return "touch " + p
	case 18:
		return fmt.Sprintf("mkfifo -m 600 /opt/fifo%d", n) // where no command opens it
	case 19:
		return fmt.Sprintf("pwd > /out/%d", n)
	case 20:
		return fmt.Sprintf("echo \"$A|$B|$X|$SUB|$DEST|$SRC|$NOTHING|$PATH\" > /out/%d", n)
	case 21:
		return fmt.Sprintf("id -u > /out/%d; umask >> /out/%d", n, n)
	case 22:
		return fmt.Sprintf("cat %s > /out/%d", p, n)
	case 23:
		return fmt.Sprintf("find /srv /opt %s | sort -u > /out/%d", p, n)
	case 24:
		return fmt.Sprintf("find /srv /opt /new -exec stat -c '%%n %%F %%a %%u:%%g %%h' '{}' ';' | grep -v directory | sort > /out/%d", n)
	case 25:
		return fmt.Sprintf("readlink -f %s > /out/%d", p, n)
	case 26:
		return fmt.Sprintf("echo 'made:x:%d:%d::/:/bin/sh' >> /etc/passwd; echo 'grp:x:%d:' >> /etc/group", 100+n, 200+n, 300+n)
	case 27:
		return fmt.Sprintf("echo %d > here", n)
	case 28:
		return fmt.Sprintf("dd if=/dev/zero of=%s bs=1k count=%d seek=%d 2>/dev/null", p, d.IntN(40), d.IntN(200))
	}
	return d.one("false", "true", "exit 3", "cd /srv", "umask 077", "rm -f here", "echo 1 > /mnt/made/f; echo 2 > /mnt/f", "sed -i 's/base/edited/' /srv/dir/a /srv/file")
}

func (d *drawing) heredoc() string {
	dest := d.dest()
	name := d.one("EOF", "\"EOF\"", "-EOF", "doc.txt")
	end := strings.Trim(name, "-\"")
	body := d.one("one $A ${B:-b} \\$A", "$SUB ${X:+x} '$A' \"$B\" \\\\ $NOTHING.", "\ttabbed $PATH", "#!/bin/sh\necho $A", "plain")
	if d.sometimes(3) {
		return fmt.Sprintf("COPY%s <<%s <<two %s\n%s\n%s\nsecond\ntwo", d.flags(), name, dest, body, end)
	}
	if d.sometimes(3) {
		return fmt.Sprintf("RUN <<%s cat > /out/%d\n%s\n%s", name, d.number(), body, end)
	}
	if d.sometimes(2) {
		body = d.scraps()
	}
	return fmt.Sprintf("COPY%s <<%s %s\n%s\n%s", d.flags(), name, dest, body, end)
}

// scraps draws a text of what means something to a lexer.
func (d *drawing) scraps() string {
	var b strings.Builder
	for range 2 + d.IntN(20) {
		b.WriteString(d.one(`\`, `\\`, "$A", `\$A`, "'", `"`, "${B}", `\n`, "a", " ", "\n", "`", "\t", "$", "${X:-d}", "#", "<<", `\"`, "{", "}", "ü", "$$", "# c\n", `\
`))
	}
	return b.String() + "."
}
