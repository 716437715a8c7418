// Package effort is the flags that bound a solve: --budget and --best-effort.
package effort

import (
	"cmp"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/internal/git/remote"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/besteffort"
)

const best = "best-effort"

// Flags are the values of the flags.
type Flags struct {
	budget  time.Duration
	best    bool
	project string

	background bool
}

// Register adds the flags to a command.
func (f *Flags) Register(c *cobra.Command) {
	c.Flags().DurationVar(&f.budget, "budget", 0, "stop after `DURATION`; what is finished by then is stored")
	c.Flags().StringVar(&f.project, "project", "", "record the layers as those of `OWNER/REPO` (default: that of the Git remote origin)")
	c.Flags().BoolVar(&f.background, "finish-in-background", false, "with --best-effort, build what the budget has left out when the command has ended, for clayer wait; never in place")
	c.Flags().BoolVar(&f.best, best, false, "apply what can be had, print what is missing and why, and exit with 0")
}

// Options returns what the flags say. unread is what is wrong with the files of opt: with
// --best-effort that is left out, where there are others, and else returned.
func (f *Flags) Options(cmd *cobra.Command, opt *solver.Options, unread error) (besteffort.Options, error) {
	if f.budget < 0 || f.budget == 0 && cmd.Flag("budget").Changed {
		return besteffort.Options{}, usage.Errorf("--budget=%s: want a time, such as 5m", f.budget)
	}
	if flag := cmd.Flag("finish-in-background"); f.background && !f.best && settings.OriginOf(flag).Source == settings.Flag {
		return besteffort.Options{}, usage.Errorf("--finish-in-background goes with --best-effort: without that, a solve whose budget ends has failed")
	}
	o := besteffort.Options{Budget: f.budget, Best: f.best, Command: command(cmd)}
	if f.best && len(opt.Files) > 0 {
		o.Unread, unread = unread, nil
	}
	opt.Project = sync.OnceValue(func() string {
		return cmp.Or(f.project, nameOf(remote.OriginOf(cmd.Context(), ".")))
	})
	if unread != nil {
		return o, unread
	}
	if f.best && os.Getenv(jobVariable) == "" && jobRuns(opt) {
		opt.NoWait = true // it has the root for as long as it builds, and the session is to start
	}
	return o, job(cmd.Context(), opt, &o)
}

// nameOf returns "owner/repo" of the URL of a Git repository, which a proxy may have
// rewritten; "" where it has no such name.
func nameOf(url string) string {
	url, _, _ = strings.Cut(url, "?") // what follows may be secret
	if _, after, ok := strings.Cut(url, "://"); ok {
		url = after
	} else if _, after, ok := strings.Cut(url, ":"); ok { // git@host:owner/repo
		url = "host/" + after
	}
	parts := strings.Split(strings.TrimSuffix(strings.Trim(url, "/"), ".git"), "/")
	if len(parts) < 3 {
		return ""
	}
	return strings.Join(parts[len(parts)-2:], "/")
}

// IsBest reports whether a command was to do what can be had: what fails then is printed,
// and the session goes on.
func IsBest(cmd *cobra.Command) bool {
	flag := cmd.Flag(best)
	return flag != nil && flag.Value.String() == "true" && os.Getenv(jobVariable) == ""
}

// command returns what to run for what is missing, as a shell takes it: the command with
// its files and its root. Other flags may hold what is secret.
func command(cmd *cobra.Command) string {
	words := []string{"clayer", cmd.Name()}
	for _, name := range []string{"file", "name", "root", "dest"} {
		flag := cmd.Flags().Lookup(name)
		if flag == nil || !flag.Changed {
			continue
		}
		values := []string{flag.Value.String()}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			words = append(words, "--"+name+"="+v)
		}
	}
	text, _ := edit.Quote(append(words, cmd.Flags().Args()...))
	return text
}
