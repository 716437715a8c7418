package buildchecks

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// newest is the newest version of docker/dockerfile that this program reads: BuildKit 0.N has
// 1.(N-6).
const newest = 28

// Syntax returns what the "# syntax=" line of a file asks for that is not there, in words, and
// the line; "" is nothing. In Docker the line names the image of a program that reads the file.
func Syntax(src []byte) (line int, ahead string) {
	image, _, at, ok := parser.DetectSyntax(src)
	if !ok || len(at) == 0 {
		return 0, ""
	}
	line = at[0].Start.Line
	name, _, _ := strings.Cut(image, "@")
	name = strings.TrimPrefix(name, "docker.io/")
	name, tag, _ := strings.Cut(name, ":")
	version, labs := strings.CutSuffix(tag, "labs")
	version = strings.TrimSuffix(version, "-")
	switch {
	case name != "docker/dockerfile" && name != "docker/dockerfile-upstream":
		return line, fmt.Sprintf("syntax=%s is not used: the file is read as one of docker/dockerfile:1.%d", image, newest)
	case labs:
		return line, fmt.Sprintf("syntax=%s is not used: what only its labs channel has is not known here", image)
	case isNewer(version):
		return line, fmt.Sprintf("syntax=%s is newer than docker/dockerfile:1.%d, by which the file is read", image, newest)
	}
	return 0, ""
}

// isNewer reports whether a version, or the name of a channel, is none that is there. A moving
// one, such as "1", is.
func isNewer(version string) bool {
	if version == "" || version == "latest" {
		return false
	}
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	if major != "1" {
		return true
	}
	n, err := strconv.Atoi(minor)
	return minor != "" && (err != nil || n > newest)
}
