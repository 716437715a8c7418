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
	Cache  Type = "cache"
	Secret Type = "secret"
	Tmpfs  Type = "tmpfs"
)

// A Mount is RUN --mount=..., with BuildKit's meanings and defaults.
type Mount struct {
	Type     Type
	Target   string // absolute and clean; "" for a secret that is only a variable
	ID       string // of a cache (default: the target) or a secret (default: the last part of the target)
	Sharing  string // of a cache: "shared" (default), "private" or "locked"
	ReadOnly bool
	Required bool   // of a secret
	EnvName  string // of a secret: env=NAME
	Mode     uint32 // 0o755 for a cache, 0o400 for a secret, 0o1777 for a tmpfs
	UID, GID int
	Size     int64 // of a tmpfs, in bytes; 0 for no bound of its own
}

// options are those that each type of mount has, as in BuildKit.
var options = map[Type][]string{
	Cache:  {"target", "dst", "destination", "id", "sharing", "mode", "uid", "gid", "ro", "readonly", "rw", "readwrite"},
	Secret: {"target", "dst", "destination", "id", "required", "env", "mode", "uid", "gid"},
	Tmpfs:  {"target", "dst", "destination", "size"},
}

// Parse reads the value of RUN --mount. Variables are expanded in the
// values of its options alone: none can add another option. A relative
// target is below dir.
func Parse(value, dir string, expand func(string) string) (Mount, error) {
	m := Mount{Type: "bind"} // BuildKit's default, which is not known here
	type option struct{ name, value string }
	var opts []option
	for part := range strings.SplitSeq(value, ",") {
		name, v, ok := strings.Cut(part, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if !ok {
			v = "true" // "required" is "required=true"
		}
		v = expand(v)
		if name == "type" {
			m.Type = Type(strings.ToLower(v))
			continue
		}
		opts = append(opts, option{name, v})
	}
	names, ok := options[m.Type]
	if !ok {
		return m, fault.Errorf("--mount: unknown mount type %q", m.Type).WithHint("cache, secret and tmpfs are known here")
	}
	m.Mode = map[Type]uint32{Cache: 0o755, Secret: 0o400, Tmpfs: 0o1777}[m.Type]
	for _, o := range opts {
		if !slices.Contains(names, o.name) {
			f := fault.Errorf("--mount=type=%s has no option %q", m.Type, o.name)
			if o.name == "from" || o.name == "source" || o.name == "src" {
				f.Hint = "there are no other stages or images to mount from here"
			} else {
				f.Hint = lexical.DidYouMean(o.name, names, "")
			}
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
		m.Mode = uint32(mode)
	case "uid":
		m.UID, err = parseID(value)
	case "gid":
		m.GID, err = parseID(value)
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
	if m.Type == Secret {
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
	if m.Target == "" {
		return fault.Errorf("--mount=type=%s: target is missing", m.Type)
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
