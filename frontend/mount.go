package frontend

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/clayer/clayer/frontend/internal/lexical"
	"github.com/clayer/clayer/internal/sizes"
)

// mountOptions are those that each type of mount has, as in BuildKit.
var mountOptions = map[MountType][]string{
	MountCache:  {"target", "dst", "destination", "id", "sharing", "mode", "uid", "gid", "ro", "readonly", "rw", "readwrite"},
	MountSecret: {"target", "dst", "destination", "id", "required", "env", "mode", "uid", "gid"},
	MountTmpfs:  {"target", "dst", "destination", "size"},
}

// parseMount reads the value of RUN --mount. Variables are expanded in the
// values of its options alone: none can add another option. A relative
// target is below dir.
func parseMount(value, dir string, expand func(string) string) (Mount, error) {
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
			m.Type = MountType(strings.ToLower(v))
			continue
		}
		opts = append(opts, option{name, v})
	}
	names, ok := mountOptions[m.Type]
	if !ok {
		return m, faultf("--mount: unknown mount type %q", m.Type).withHint("cache, secret and tmpfs are known here")
	}
	m.Mode = map[MountType]uint32{MountCache: 0o755, MountSecret: 0o400, MountTmpfs: 0o1777}[m.Type]
	for _, o := range opts {
		if !slices.Contains(names, o.name) {
			f := faultf("--mount=type=%s has no option %q", m.Type, o.name)
			if o.name == "from" || o.name == "source" || o.name == "src" {
				f.hint = "there are no other stages or images to mount from here"
			} else {
				f.hint = lexical.DidYouMean(o.name, names, "")
			}
			return m, f
		}
		if err := m.set(o.name, o.value); err != nil {
			return m, faultf("--mount: %s=%s: %v", o.name, o.value, err)
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
		return checkName(value)
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
		m.Target = absolute(dir, m.Target)
		if m.Target == "/" {
			return faultf("--mount: target / would hide the root")
		}
	}
	if m.Type == MountSecret {
		if m.ID == "" && m.Target != "" {
			m.ID = path.Base(m.Target)
		}
		if m.ID == "" {
			return faultf("--mount=type=secret: id is missing")
		}
		if m.Target == "" && m.EnvName == "" {
			m.Target = "/run/secrets/" + path.Base(m.ID)
		}
		return nil
	}
	if m.Target == "" {
		return faultf("--mount=type=%s: target is missing", m.Type)
	}
	if m.Type == MountCache {
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
