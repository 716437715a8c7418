package databases

import "strings"

// Omitted stands for a password that no snapshot has: that of a record of the machine
// where a step ran. Nobody can log in with it, and Fill puts another machine's in its place.
const Omitted = "*omitted*"

// secretive returns the format of the records in a file with passwords; 0 for any other.
// A backup is written as that is.
func (d Database) secretive() format {
	switch f := known[d.Main()]; f {
	case users, groups, shadow, gshadow:
		return f
	}
	return 0
}

// HasSecrets reports whether passwords may be in a database, or in a backup of one.
func (d Database) HasSecrets() bool { return d.secretive() != 0 || d.isHistory() }

// Omit returns a database, or a backup of one, without the passwords of records that it
// had before, as far as they are the same, but for records that are the steps' own. Of
// former passwords nothing is left.
func (d Database) Omit(before, after []byte, own func(key string) bool) []byte {
	if d.isHistory() {
		return []byte{}
	}
	f := d.secretive()
	old := index(f.parse(before))
	return f.replacePasswords(after, func(r *record, password string) string {
		lock, bare := cutLock(password)
		if o := old[r.key]; o != nil && isSecret(password) && (own == nil || !own(r.key)) {
			if _, was := cutLock(passwordOf(o)); was == bare {
				return lock + Omitted
			}
		}
		return password
	})
}

// Fill returns a database with the passwords of the records here where it has none, and
// whether it has all then.
func (d Database) Fill(here, file []byte) (filled []byte, all bool) {
	if d.isHistory() {
		return file, true
	}
	f := d.secretive()
	machines := index(f.parse(here))
	all = true
	filled = f.replacePasswords(file, func(r *record, password string) string {
		lock, bare := cutLock(password)
		if bare != Omitted {
			return password
		}
		if o := machines[r.key]; o != nil {
			_, bare = cutLock(passwordOf(o))
			return lock + bare
		}
		all = false
		return password
	})
	return filled, all
}

func (f format) replacePasswords(file []byte, replace func(r *record, password string) string) []byte {
	list := f.parse(file)
	for i := range list {
		r := &list[i]
		if isForeign(r.body) {
			continue
		}
		name, rest, _ := strings.Cut(r.body, ":")
		password, rest, more := strings.Cut(rest, ":")
		if now := replace(r, password); now != password {
			r.body = name + ":" + now
			if more {
				r.body += ":" + rest
			}
		}
	}
	return f.text(list)
}

func passwordOf(r *record) string {
	if part := strings.SplitN(r.body, ":", 3); len(part) > 1 && !isForeign(r.body) {
		return part[1]
	}
	return ""
}

// cutLock divides a password after what says that the account is locked.
func cutLock(password string) (lock, bare string) {
	bare = strings.TrimLeft(password, "!")
	return password[:len(password)-len(bare)], bare
}

// isSecret reports whether a password says anything: no password, a locked account, and
// one whose password is in another file do not.
func isSecret(password string) bool { return strings.Trim(password, "!*x") != "" }
