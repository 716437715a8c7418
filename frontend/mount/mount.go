// Package mount reads the values of RUN --mount, with BuildKit's meanings and defaults.
package mount

import (
	"fmt"
	"github.com/clayer/clayer/frontend/internal/fault"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/clayer/clayer/frontend/internal/lexical"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/internal/sizes"
)

// Type is the type= of RUN --mount.
type Type string

// The mount types.
const (
	Bind   Type = "bind"
	Cache  Type = "cache"
	Secret Type = "secret"
	SSH    Type = "ssh"
	Tmpfs  Type = "tmpfs"
)

// A Mount is RUN --mount=..., with BuildKit's meanings and defaults.
type Mount struct {
	Type     Type
	Target   string // absolute and clean; "" for a secret that is only a variable
	Source   string // of a bind, or of a cache that begins with files: absolute and clean in what from= names
	ID       string // of a cache (default: the target), a secret (default: the last part of the target) or an agent
	Sharing  string // of a cache: "shared" (default), "private" or "locked"
	ReadOnly bool
	Required bool   // of a secret or an agent
	EnvName  string // of a secret: env=NAME
	Mode     uint32 // 0o755 for a cache, 0o400 for a secret, 0o600 for an agent, 0o1777 for a tmpfs
	UID, GID int
	Size     int64 // of a tmpfs, in bytes; 0 for no bound of its own

	Owned bool // of a cache: mode, uid or gid is given
}

// options are those that each type of mount has, as in BuildKit.
var options = map[Type][]string{
	Bind:   {"target", "dst", "destination", "source", "src", "from", "ro", "readonly", "rw", "readwrite"},
	Cache:  {"target", "dst", "destination", "source", "src", "from", "id", "sharing", "mode", "uid", "gid", "ro", "readonly", "rw", "readwrite"},
	Secret: {"target", "dst", "destination", "source", "src", "id", "required", "env", "mode", "uid", "gid"},
	SSH:    {"target", "dst", "destination", "id", "required", "mode", "uid", "gid"},
	Tmpfs:  {"target", "dst", "destination", "size"},
}

// From returns what the value of RUN --mount has as from=, in which no variable is expanded:
// it is known when the file is parsed.
func From(value string) (string, error) {
	for _, o := range split(value) {
		if o.name != "from" {
			continue
		}
		if i := strings.IndexByte(o.value, '$'); i >= 0 && i < len(o.value)-1 {
			return "", fault.Errorf("--mount: from=%s: variables are not expanded in it", o.value).
				WithHint("FROM %s AS name begins a stage that from=name mounts", o.value)
		}
		return o.value, nil
	}
	return "", nil
}

// An option is one field of the value.
type option struct{ name, value string }

// split divides a value at its commas, but for those in a field in double quotes.
func split(value string) (all []option) {
	for value != "" {
		var field string
		if quoted, ok := strings.CutPrefix(value, `"`); ok {
			field, value = cutQuoted(quoted)
		} else {
			field, value, _ = strings.Cut(value, ",")
		}
		name, v, ok := strings.Cut(field, "=")
		if !ok {
			v = "true" // "required" is "required=true"
		}
		all = append(all, option{strings.ToLower(strings.TrimSpace(name)), v})
	}
	return all
}

// cutQuoted returns the field that a quote has begun, in which "" is a quote, and what is
// after the comma that follows it.
func cutQuoted(s string) (field, rest string) {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, `"`)
		b.WriteString(before)
		if !ok || !strings.HasPrefix(after, `"`) {
			more, rest, _ := strings.Cut(after, ",")
			return b.String() + more, rest
		}
		b.WriteByte('"')
		s = after[1:]
	}
}

// Parse reads the value of RUN --mount. Variables are expanded in the
// values of its options alone: none can add another option. A relative
// target is below dir.
func Parse(value, dir string, expand func(string) string) (Mount, error) {
	m := Mount{Type: Bind}
	var opts []option
	for _, o := range split(value) {
		if o.name != "from" {
			o.value = expand(o.value)
		}
		if o.name == "type" {
			m.Type = Type(strings.ToLower(o.value))
			continue
		}
		opts = append(opts, o)
	}
	names, ok := options[m.Type]
	if !ok {
		return m, fault.Errorf("--mount: unknown mount type %q", m.Type).WithHint("bind, cache, secret, ssh and tmpfs are known")
	}
	m.Mode = map[Type]uint32{Cache: 0o755, Secret: 0o400, SSH: 0o600, Tmpfs: 0o1777}[m.Type]
	m.ReadOnly = m.Type == Bind
	for _, o := range opts {
		if !slices.Contains(names, o.name) {
			f := fault.Errorf("--mount=type=%s has no option %q", m.Type, o.name)
			f.Hint = lexical.DidYouMean(o.name, names, "")
			return m, f
		}
		if err := m.set(o.name, o.value); err != nil {
			return m, fault.Errorf("--mount: %s=%s: %v", o.name, o.value, err)
		}
	}
	return m, m.complete(dir)
}

func (m *Mount) set(name, value string) (err error) {
	switch name {
	case "target", "dst", "destination":
		m.Target = value
	case "id":
		m.ID = value
	case "source", "src":
		m.Source = value
	case "env":
		m.EnvName = value
		return lexical.CheckName(value)
	case "sharing":
		m.Sharing = value
		if !slices.Contains([]string{"shared", "private", "locked"}, value) {
			return fmt.Errorf("want shared, private or locked")
		}
	case "ro", "readonly":
		m.ReadOnly, err = parseBool(value)
	case "rw", "readwrite":
		m.ReadOnly, err = parseBool(value)
		m.ReadOnly = !m.ReadOnly
	case "required":
		m.Required, err = parseBool(value)
	case "mode":
		mode, err := strconv.ParseUint(value, 8, 12)
		if err != nil {
			return fmt.Errorf("want octal digits")
		}
		m.Mode, m.Owned = uint32(mode), true
	case "uid":
		m.UID, err = parseID(value)
		m.Owned = true
	case "gid":
		m.GID, err = parseID(value)
		m.Owned = true
	case "size":
		var ok bool
		if m.Size, ok = sizes.Parse(value, 1024); !ok {
			return fmt.Errorf("want a size, as 64m or 1g")
		}
	}
	return err
}

// complete fills in the defaults, and looks for what is missing.
func (m *Mount) complete(dir string) error {
	if m.Target != "" {
		m.Target = pathname.Absolute(dir, m.Target)
		if m.Target == "/" {
			return fault.Errorf("--mount: target / would hide the root")
		}
	}
	switch m.Type {
	case SSH:
		if m.ID == "" {
			m.ID = DefaultAgent
		}
		return nil
	case Secret:
		switch {
		case m.Source != "" && m.ID != "":
			return fault.Errorf("--mount=type=secret: id and source are the same: give one of them")
		case m.Source != "":
			m.ID, m.Source = m.Source, ""
		}
		if m.ID == "" && m.Target != "" {
			m.ID = path.Base(m.Target)
		}
		if m.ID == "" {
			return fault.Errorf("--mount=type=secret: id is missing")
		}
		if m.Target == "" && m.EnvName == "" {
			m.Target = "/run/secrets/" + path.Base(m.ID)
		}
		return nil
	}
	if clean := path.Clean(strings.TrimLeft(m.Source, "/")); clean == ".." || strings.HasPrefix(clean, "../") {
		return fault.Errorf("--mount=type=%s: source %q leaves what is mounted", m.Type, m.Source).
			WithHint("only what stands in the context, the stage or the image can be mounted")
	}
	if m.Source = path.Join("/", m.Source); m.Source == "/" {
		m.Source = ""
	}
	if m.Target == "" { // as in BuildKit it is the working directory
		if m.Target = pathname.Absolute(dir, "."); m.Target == "/" {
			return fault.Errorf("--mount=type=%s: target is missing, and the working directory is /", m.Type)
		}
	}
	if m.Type == Cache {
		if m.ID == "" {
			m.ID = m.Target
		}
		if m.Sharing == "" {
			m.Sharing = "shared"
		}
	}
	return nil
}

// DefaultAgent is the id of an agent that is given none.
const DefaultAgent = "default"

// AgentTarget begins the target of an agent that is given none; its number follows.
const AgentTarget = "/run/buildkit/ssh_agent."

// AgentVar is the variable that says where the socket of an agent is.
const AgentVar = "SSH_AUTH_SOCK"

func parseBool(s string) (bool, error) {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("want true or false")
	}
	return b, nil
}

func parseID(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("want a number")
	}
	return int(n), nil
}
