package oracle

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// drawDockerfile draws a file for BuildKit's rules: one that it builds, since it says nothing
// of what follows a line that it refuses.
func drawDockerfile(seed uint64) dockerfile {
	d := &drawing{Rand: rand.New(rand.NewPCG(seed, 23))}
	var lines []string
	add := func(line string) {
		switch d.IntN(12) {
		case 0:
			lines = append(lines, "# "+d.one("A is described", "one is a stage", "words", "check=skip=all", "check=skip="+d.rule(), "check=skip="+d.rule()+","+d.rule(), "check=experimental=all", "check=error=true", ""))
		case 1:
			lines = append(lines, "")
		}
		lines = append(lines, line)
	}
	switch d.IntN(4) {
	case 0:
		lines = append(lines, "# check="+d.one("skip="+d.rule(), "skip="+d.rule()+","+d.rule(), "experimental=all", "skip="+d.rule()+";experimental=all", "error=false;skip=all"))
	case 1:
		lines = append(lines, "# escape=\\")
	}
	for range d.IntN(3) {
		add(d.word("ARG") + " " + d.one("A", "B=1", "IMAGE="+baseName, "C=$A", "D=$IMAGE E", "API_KEY=1", "TAG=", "A=$NONE"))
	}
	for i := range 1 + d.IntN(4) {
		from := d.one(baseName, baseName, baseName, "scratch", baseName+"$A", baseName+"$NONE", "${IMAGE:-"+baseName+"}", baseName+"${TARGETVARIANT}")
		for range i {
			from = d.one(from, "one", "two")
			if !strings.Contains(strings.ToLower(strings.Join(lines, "\n")), " as "+from+"\n") && (from == "one" || from == "two") {
				from = baseName
			}
		}
		line := d.word("FROM") + d.one("", "", "", " --platform=$TARGETPLATFORM", " --platform=$BUILDPLATFORM", " --platform=${TARGETOS}/$TARGETARCH", " --platform=$TARGETPLATFORM$NONE") + " " + from
		if d.IntN(3) > 0 {
			line += d.one(" AS ", " as ", " As ") + d.one("one", "two", "One", "context", "linux")
		}
		add(line)
		for range 1 + d.IntN(7) {
			add(d.checked())
		}
	}
	return dockerfile{fmt.Sprintf("seed %d", seed), strings.Join(lines, "\n") + "\n", d.one("", "", "x\n", "*\n", "*\n!x\n", "**/y\nx/z\n", "*.md\n", "./x/\n", "# x\n\n..\n")}
}

// rule returns the name of a rule, most often of one that is about drawn lines.
func (d *drawing) rule() string {
	return d.one("JSONArgsRecommended", "WorkdirRelativePath", "UndefinedVar", "LegacyKeyValueFormat", "SecretsUsedInArgOrEnv",
		"MultipleInstructionsDisallowed", "CopyIgnoredFile", "ExposeInvalidFormat", "StageNameCasing", "UndefinedArgInFrom",
		"ConsistentInstructionCasing", "FromAsCasing", "undefinedvar", "InvalidDefinitionDescription")
}

// word writes the word of an instruction in one of the ways that there are.
func (d *drawing) word(name string) string {
	switch d.IntN(16) {
	case 0:
		return strings.ToLower(name)
	case 1:
		return name[:1] + strings.ToLower(name[1:])
	}
	return name
}

// variable returns a text that may refer to variables.
func (d *drawing) variable() string {
	return d.one("x", "/x", "$A", "${A}", "$B/x", "${B:-x}", "${C:+x}", `\$A`, "'$A'", `"$A"`, "$NONE", "${A%x}", "${NONE#y}", "x$", "$AA", "$PATH", "$TARGETARCH", "${D:?}x", "~")
}

// checked returns an instruction that a rule may be about.
func (d *drawing) checked() string {
	name := d.one("A", "B", "C", "D", "API_TOKEN", "password", "PUBLIC_KEY", "AA", "KEYS")
	value := d.variable()
	if strings.Contains(value, ":?") {
		value = "x" // it fails where it is not set
	}
	line := d.one("ENV", "ENV", "ENV", "ARG", "ARG", "LABEL", "WORKDIR", "COPY", "COPY", "ADD", "RUN", "RUN", "CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "ONBUILD", "SHELL", "USER", "VOLUME", "MAINTAINER", "STOPSIGNAL")
	w := d.word(line)
	switch line {
	case "ENV", "LABEL":
		return w + " " + d.one(name+"="+value, name+"="+value+" E="+d.one("$A", "1"), name+" "+value, "A=$B B=$A", `E="$A $B"`)
	case "ARG":
		return w + " " + d.one(name, name+"="+value, name+"=1 E", "TARGETARCH", "A=$B B=$A", "E="+value)
	case "WORKDIR":
		return w + " " + d.one("/x", "x", "x/y", "/x/"+value, "."+value, ".", `"x y"`)
	case "COPY", "ADD":
		return w + " " + d.one("", "--chown="+d.one("1", "$A", "1:${B}")+" ", "--chmod=644 ", "--link ") +
			d.one("x /y", "x y /z/", ". /x", "/x /y", "./x/z /y", "*.md /x/", "x"+value+" /y", "x /y"+value, `["x", "$A", "/y/"]`, "<<EOF /x\n$A ${B:-1} \\$C '$D'\nEOF", "<<\"EOF\" <<E2 /x/\n$A\nEOF\n$B\nE2", "<<-EOF /x\n\t$AA\n\tEOF", "x/../y z/ /x/")
	case "RUN":
		return w + " " + d.one("true", "echo $NONE", "true \\\n\n true", "true \\\n# comment\n true", `["true", "$NONE"]`, "<<EOF\necho $NONE\nEOF",
			"--mount=type=cache,target=/c,id=$A true", "--mount=type=tmpfs,target=/t$NONE true", "--mount=type=bind,target=/b,source="+d.one("x", "$B")+" true", `--mount=type=cache,"target=/t$C" true`)
	case "CMD", "ENTRYPOINT":
		return w + " " + d.one(`["x"]`, `["x", "$A"]`, "x", "echo $NONE", `["x", 'y']`, "x \\\n y", "[ -f x ]")
	case "EXPOSE":
		return w + " " + d.one("80", "80/TCP", "80/udp 81", "127.0.0.1:80:80", "8080:80/Tcp", "80-90", "[::1]:80:80 81/SCTP", "80$EMPTY", "${P:-82/UDP} 83")
	case "HEALTHCHECK":
		return w + " " + d.one("NONE", "CMD true", "--interval=5s CMD true", `CMD ["true"]`)
	case "ONBUILD":
		return w + " " + d.one("RUN true", "WORKDIR x", "ENV "+name+"="+value, "CMD x", "COPY x /y", "run true", "EXPOSE 80/TCP", "ENV A b", "USER $A", "ARG "+name)
	case "SHELL":
		return w + ` ["/bin/sh", "-ec"]`
	case "USER":
		return w + " " + d.one("1", "app", "1:$A", "u${B}")
	case "VOLUME":
		return w + " " + d.one("/x", "/x /y", `["/x", "/y$A"]`, "/x/"+value)
	case "STOPSIGNAL":
		return w + " " + d.one("TERM", "9", "SIG${NONE}TERM")
	}
	return w + " me" // MAINTAINER
}
