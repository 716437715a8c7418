package edit

import (
	"strings"
	"sync"
)

// An effect is what an option of a package manager does to what is written.
type effect uint8

const (
	talk      effect = iota + 1 // how the program talks, or what it asks: dropped
	talkValue                   // likewise, with a value
	retain
	retainValue
	retainPath // the value is a path of this machine, which is made absolute
	reads      // the value is a file that is read: a list of requirements
	directory  // the value is a directory, or a URL, whose content is installed
	never      // with it nothing is installed
	away       // with it the install goes elsewhere than into the environment
)

func (e effect) hasValue() bool {
	switch e {
	case talkValue, retainValue, retainPath, reads, directory:
		return true
	}
	return false
}

// An arg is an argument: an option with its value, or a word.
type arg struct {
	name     string // of an option, in its first spelling; "" for a word
	value    string // of an option, or the word
	hasValue bool
	effect   effect // 0 for an option that is not known
}

// words returns the arg as it is written.
func (a arg) words() []string {
	switch {
	case a.name == "":
		return []string{a.value}
	case !a.hasValue:
		return []string{a.name}
	case a.effect.hasValue():
		return []string{a.name, a.value}
	}
	return []string{a.name + "=" + a.value}
}

// options is what a program knows: the spellings of an option, by blanks, with
// its effect. The first spelling is the one that is written.
type options map[string]effect

// known are the options by each spelling.
type known map[string]option

type option struct {
	name   string
	effect effect
}

// lazily returns a function that makes known of options: a shim, which every
// install waits for, needs those of one program.
func lazily(all ...options) func() known {
	return sync.OnceValue(func() known {
		k := make(known)
		for _, o := range all {
			for spellings, e := range o {
				names := strings.Fields(spellings)
				for _, n := range names {
					k[n] = option{names[0], e}
				}
			}
		}
		return k
	})
}

// scan splits arguments as getopt_long does: --name=value, -n value, -nvalue,
// -ab. What follows "--" are words.
func (k known) scan(args []string) []arg {
	var list []arg
	for i := 0; i < len(args); i++ {
		s := args[i]
		if s == "--" {
			for _, w := range args[i+1:] {
				list = append(list, arg{value: w})
			}
			return list
		}
		if len(s) < 2 || s[0] != '-' {
			list = append(list, arg{value: s})
			continue
		}
		if o, ok := k[s]; ok {
			a := arg{name: o.name, effect: o.effect}
			if o.effect.hasValue() && i+1 < len(args) {
				i++
				a.value, a.hasValue = args[i], true
			}
			list = append(list, a)
			continue
		}
		if name, value, ok := strings.Cut(s, "="); ok {
			a := arg{name: name, value: value, hasValue: true}
			if o, known := k[name]; known {
				a.name, a.effect = o.name, o.effect
			}
			list = append(list, a)
			continue
		}
		list = append(list, k.letters(s)...)
	}
	return list
}

// letters splits -abVALUE. If one of the letters is not known, the whole is an
// option that is not known.
func (k known) letters(s string) []arg {
	unknown := []arg{{name: s}}
	if strings.HasPrefix(s, "--") {
		return unknown
	}
	var list []arg
	for i := 1; i < len(s); i++ {
		o, ok := k["-"+s[i:i+1]]
		switch {
		case !ok:
			return unknown
		case o.effect.hasValue() && i+1 < len(s):
			return append(list, arg{name: o.name, effect: o.effect, value: s[i+1:], hasValue: true})
		case o.effect.hasValue():
			return unknown // its value is the next argument: too rare to guess at
		}
		list = append(list, arg{name: o.name, effect: o.effect})
	}
	return list
}
