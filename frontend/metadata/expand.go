package metadata

import "slices"

// Expand returns the arguments of an instruction with the variables expanded that BuildKit
// expands, one word for one argument or, of EXPOSE, any number. It refuses what is then no
// instruction.
func Expand(word string, args []string, one func(string) string, several func(string) ([]string, error)) ([]string, error) {
	switch word {
	case "LABEL", "VOLUME", "STOPSIGNAL":
		args = slices.Clone(args)
		for i, arg := range args {
			args[i] = one(arg)
		}
	case "EXPOSE":
		var all []string
		for _, arg := range args {
			words, err := several(arg)
			if err != nil {
				return nil, err
			}
			all = append(all, slices.DeleteFunc(words, func(w string) bool { return w == "" })...)
		}
		args = all
	}
	switch word {
	case "VOLUME":
		return args, Volumes(args)
	case "STOPSIGNAL":
		return args, Signal(args[0])
	case "EXPOSE":
		_, err := Ports(args)
		return args, err
	}
	return args, nil
}
