// Package metadata reads the instructions of a Dockerfile that say something of the image and
// change no file, and refuses what BuildKit refuses of them. It is pure.
package metadata

import (
	"errors"
	"fmt"
	"strings"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// An Instruction is one of them as BuildKit's parser has it: its word in upper case, its
// arguments and flags, and whether the arguments are a JSON list.
type Instruction struct {
	Word        string
	Args, Flags []string
	JSON        bool
}

// flags are those that instructions have.
var flags = map[string][]string{
	"HEALTHCHECK": {"interval", "timeout", "start-period", "start-interval", "retries"},
}

// Check refuses what can't be an instruction, whatever its variables are.
func (in Instruction) Check() error {
	switch in.Word {
	case "HEALTHCHECK":
		_, err := in.Health()
		return err
	case "STOPSIGNAL", "MAINTAINER":
		if len(in.Args) != 1 {
			return errors.New("takes one argument")
		}
	case "EXPOSE", "VOLUME", "ONBUILD":
		if len(in.Args) == 0 {
			return errors.New("takes one argument or more")
		}
	case "LABEL":
		if len(in.Args) == 0 {
			return errors.New("takes NAME=value")
		}
	}
	if in.Word != "STOPSIGNAL" { // whose flags BuildKit passes over
		if _, err := in.flags(); err != nil {
			return err
		}
	}
	switch in.Word {
	case "LABEL":
		for i := 0; i < len(in.Args); i += 3 {
			if in.Args[i] == "" {
				return errors.New("a label has no name")
			}
		}
	case "VOLUME":
		return Volumes(in.Args)
	case "ONBUILD":
		return trigger(in.Args[0])
	}
	return nil
}

// flags returns the values of flags by their names.
func (in Instruction) flags() (map[string]string, error) {
	values := make(map[string]string)
	for _, f := range in.Flags {
		if f == "--" {
			break
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(f, "--"), "=")
		known := false
		for _, n := range flags[in.Word] {
			known = known || n == name
		}
		if _, twice := values[name]; twice {
			return nil, fmt.Errorf("--%s is given twice", name)
		}
		switch {
		case !known && len(flags[in.Word]) == 0:
			return nil, fmt.Errorf("takes no flag --%s", name)
		case !known:
			return nil, fmt.Errorf("takes no flag --%s, but --%s", name, strings.Join(flags[in.Word], ", --"))
		case !ok:
			return nil, fmt.Errorf("--%s requires a value", name)
		}
		values[name] = value
	}
	return values, nil
}

// trigger refuses what no ONBUILD has.
func trigger(word string) error {
	switch word = strings.ToUpper(strings.TrimSpace(word)); word {
	case "ONBUILD", "MAINTAINER", "FROM":
		return fmt.Errorf("%s can't be a trigger", word)
	}
	return nil
}

var onbuild = lazyregexp.New(`(?i)^\s*ONBUILD\s*`)

// Trigger returns the instruction of an ONBUILD, which is all that follows the word.
func Trigger(text string) string { return onbuild().ReplaceAllString(text, "") }

// Volumes refuses a path that is empty.
func Volumes(paths []string) error {
	for _, p := range paths {
		if strings.TrimSpace(p) == "" {
			return errors.New("a path is empty")
		}
	}
	return nil
}
