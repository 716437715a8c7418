package oracle

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// A difference is something that clayer does otherwise than BuildKit. Where it may be the
// reason that a case fails, the case is played without the instruction.
type difference struct {
	name   string // testdata/intended/NAME.txtar, or unmended, shows it
	reason string
	// applies reports whether instruction i of a case may be one.
	applies func(c *Case, i int) bool
	// says matches what is printed where only one of the two refuses an instruction.
	says *regexp.Regexp
}

var differences = slices.Concat(intended, unmended)

// intended differences stay. Each one is in docs/migration.md.
var intended = []*difference{
	{
		name:   "empty-argument",
		reason: "A variable that nothing sets is one of an image, more often than not, and COPY would take the whole context for it.",
		says:   regexp.MustCompile(`an argument is empty when its variables are expanded|--ch(mod|own)=\S+ is empty`),
	},
	{
		name:   "part-of-variable",
		reason: "A variable of the machine, such as PATH, is referred to in a key, and not read: its value differs between machines.",
		says:   regexp.MustCompile(`a part of \$\w+ can't be taken in`),
	},
	{
		name:   "ignored-again",
		reason: "What .dockerignore leaves out after an exception for it is not copied. BuildKit makes an empty file of it.",
		applies: func(c *Case, i int) bool {
			return copying.MatchString(c.Lines[i]) && slices.ContainsFunc(slices.Sorted(maps.Keys(c.Files)), func(name string) bool {
				return strings.HasSuffix(name, ".dockerignore") && ignoredAgain.MatchString(c.Files[name].Content)
			})
		},
	},
	{
		name:   "hard-links",
		reason: "All names of a file have what a later RUN writes to one of them. BuildKit's overlayfs separates them then.",
		applies: func(c *Case, i int) bool {
			return strings.HasPrefix(c.Lines[i], "RUN") && strings.Contains(c.Lines[i], "ln /")
		},
	},
	{
		name:   "several-sources-without-slash",
		reason: "Several sources make dest a directory. BuildKit refuses them, or makes dest the last of what a pattern matches.",
		says:   regexp.MustCompile(`the destination must be a directory and end with a /`),
		applies: func(c *Case, i int) bool {
			first, _, _ := strings.Cut(c.Lines[i], "\n")
			several := patterns.MatchString(first) || len(strings.Fields(flags.ReplaceAllString(first, ""))) > 3
			return copying.MatchString(first) && several && !strings.HasSuffix(destOf(first), "/")
		},
	},
	{
		name:   "unknown-owner",
		reason: "A name in --chown, or in the USER of a WORKDIR, that the root does not have is an error: BuildKit takes root instead.",
		says:   regexp.MustCompile(`(--chown=|WORKDIR: USER ).*: (user|group) \w*: not in /etc/`),
	},
	{
		name:    "copy-link",
		reason:  "With --link, links in dest are followed, and directories that are there stay: such a COPY does not see them in BuildKit, which replaces them.",
		says:    regexp.MustCompile(`--chown=\S+: user and group names can't be resolved when used with --link`),
		applies: func(c *Case, i int) bool { return strings.Contains(c.Lines[i], " --link") },
	},
	{
		name:   "link-to-nothing",
		reason: "BuildKit does not find a link to nothing where --exclude or --parents says what to copy. A link is copied, wherever it leads.",
		says:   regexp.MustCompile(`calculate checksum of ref \S+: "/(\S*/)?l[a-z]*": not found`),
	},
	{
		name:   "parents-that-exist",
		reason: "Directories above what --parents copies stay as they are where they exist: BuildKit gives /usr the mode of the checkout's.",
		applies: func(c *Case, i int) bool {
			return strings.Contains(c.Lines[i], " --parents") || strings.Contains(c.Lines[i], "--exclude=!")
		},
	},
	{
		name:   "archive-leads-out",
		reason: "A name in an archive that leads out of dest is an error. BuildKit takes dest for the root of such names.",
		says:   regexp.MustCompile(`leaves the archive's directory`),
	},
	{
		name:   "archive-onto-others",
		reason: "What ADD unpacks replaces no directory by a file, and the other way round, and follows a link to a directory: BuildKit removes what is there.",
		says:   regexp.MustCompile(`ADD: /\S+ is (a file, and not a directory|a directory, which a file would replace|a link, which a directory would replace)|ADD: "\S+" is a directory in one source and a file in another`),
		applies: func(c *Case, i int) bool {
			return strings.HasPrefix(c.Lines[i], "ADD") && regexp.MustCompile(`\.t[a-z]+|arc|\*|\?|\[|\$SRC`).MatchString(c.Lines[i])
		},
	},
	{
		name:   "submodule-git",
		reason: "The file .git of a submodule leads to a directory that is there with --keep-git-dir alone.",
		applies: func(c *Case, i int) bool {
			return strings.HasPrefix(c.Lines[i], "ADD") && strings.Contains(c.Lines[i], ".git")
		},
	},
	{
		name:   "writable-modes",
		reason: "COPY drops the write bits of group and others, which the umask of a checkout decides.",
	},
	{
		name:   "setgid-directory",
		reason: "Directories that COPY makes are of mode 0755 and owner 0:0 wherever they are.",
	},
}

// unmended differences are defects. Who mends one removes it here, and moves its case
// up to those that have to be equal.
var unmended = []*difference{}

// unsteady is what BuildKit says of a pattern in a directory of which it sends nothing,
// unless an earlier build has sent some; and of what a pattern finds in a link to a
// directory, if it is a link to what nothing else copies.
var unsteady = regexp.MustCompile(`error: failed to solve: (lstat \S+: no such file or directory|.*: "/(ldir|lsub|llup)/\S+": not found)`)

var (
	copying      = regexp.MustCompile(`^(COPY|ADD)\b`)
	ignoredAgain = regexp.MustCompile(`(?m)^!.*\n(.*\n)*[^!#\n]`)
	patterns     = regexp.MustCompile(`[*?]|\[[^" ]`)
)

// destOf returns the last word of an instruction's first line.
func destOf(line string) string {
	first, _, _ := strings.Cut(line, "\n")
	words := strings.Fields(first)
	return strings.Trim(words[len(words)-1], `"]`)
}
