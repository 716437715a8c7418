package metadata

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Health is how to find out whether a container works, as Docker's config of an image has it.
type Health struct {
	Test          []string      `json:",omitempty"` // "NONE"; "CMD" and a list; "CMD-SHELL" and a command
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// Health reads a HEALTHCHECK.
func (in Instruction) Health() (*Health, error) {
	if len(in.Args) == 0 {
		return nil, errors.New("takes CMD and a command, or NONE")
	}
	kind, args := strings.ToUpper(in.Args[0]), in.Args[1:]
	if kind == "NONE" { // whose flags BuildKit passes over
		if len(args) > 0 {
			return nil, errors.New("NONE takes no arguments")
		}
		return &Health{Test: []string{kind}}, nil
	}
	values, err := in.flags()
	switch {
	case err != nil:
		return nil, err
	case kind != "CMD":
		return nil, fmt.Errorf("%s is neither CMD nor NONE", kind)
	case len(args) == 0:
		return nil, errors.New("CMD has no command")
	}
	h := &Health{Test: []string{"CMD-SHELL", strings.Join(args, " ")}}
	if in.JSON {
		h.Test = append([]string{"CMD"}, args...)
	}
	for name, to := range map[string]*time.Duration{
		"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval,
	} {
		if *to, err = duration(name, values[name]); err != nil {
			return nil, err
		}
	}
	if text := values["retries"]; text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("--retries=%s: want a number, 0 or more", text)
		}
		h.Retries = int(n)
	}
	return h, nil
}

// duration reads the value of a flag; none is 0, which is as if the flag were not there.
func duration(name, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d != 0 && d < time.Millisecond {
		return 0, fmt.Errorf("--%s=%s: want a time such as 30s, 1ms or more", name, text)
	}
	return d, nil
}
