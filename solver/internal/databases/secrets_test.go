package databases

import "testing"

func TestSecrets(t *testing.T) {
	shadow, _ := Known("etc/shadow")
	backup, _ := Known("etc/shadow-")
	gshadow, _ := Known("etc/gshadow")
	org, _ := Known("etc/shadow.org")
	history, _ := Known("etc/security/opasswd")
	if got := history.Main(); got != history.String() {
		t.Errorf("former passwords are a backup of %s", got)
	}
	if got := history.Omit(nil, []byte("root:0:1:$6$root\n"), nil); len(got) > 0 {
		t.Errorf("former passwords are packed: %s", got)
	}
	for _, main := range []string{"passwd", "group", "shadow", "gshadow"} {
		if d, _ := Known("etc/" + main + ".org"); !d.IsBackup() || d.Main() != "etc/"+main {
			t.Errorf("%q is a backup of %s", d, d.Main())
		}
	}
	if got := string(org.Omit([]byte("root:$6$root:1::\n"), []byte("root:$6$root:1::\n"), nil)); got != "root:*omitted*:1::\n" {
		t.Errorf("a backup is packed as %s", got)
	}
	for _, d := range []Database{shadow, backup, gshadow, org, history} {
		if !d.HasSecrets() {
			t.Errorf("%s has no secrets", d)
		}
	}
	if d, _ := Known("var/lib/dpkg/status-old"); d.HasSecrets() {
		t.Errorf("%s has secrets", d)
	}
	const (
		before = "root:$6$root:1::\ndaemon:*:1::\nalice:$6$alice:1::\nempty::1::\n"
		after  = "root:$6$root:2::\ndaemon:*:1::\nalice:$6$new:3::\nempty::1::\nbob:$6$bob:3::\n"
		packed = "root:*omitted*:2::\ndaemon:*:1::\nalice:$6$new:3::\nempty::1::\nbob:$6$bob:3::\n"
	)
	if got := string(shadow.Omit([]byte(before), []byte(after), nil)); got != packed {
		t.Errorf("packed is\n%s", got)
	}
	if got := string(shadow.Omit([]byte(after), []byte(after), func(key string) bool { return key == "bob" })); got != "root:*omitted*:2::\ndaemon:*:1::\nalice:*omitted*:3::\nempty::1::\nbob:$6$bob:3::\n" {
		t.Errorf("packed by a later step is\n%s", got)
	}
	if got, all := shadow.Fill([]byte(before), []byte(packed)); string(got) != after || !all {
		t.Errorf("filled is\n%s%t", got, all)
	}
	locked := "root:!$6$root:1::\n"
	if got := string(shadow.Omit([]byte(before), []byte(locked), nil)); got != "root:!*omitted*:1::\n" {
		t.Errorf("a locked account is\n%s", got)
	}
	if got, _ := shadow.Fill([]byte(before), []byte("root:!*omitted*:1::\n")); string(got) != locked {
		t.Errorf("a locked account becomes\n%s", got)
	}
	if got, all := shadow.Fill(nil, []byte(packed)); string(got) != packed || all {
		t.Errorf("filled from nothing is\n%s%t", got, all)
	}
	if got := string(gshadow.Omit([]byte("sudo:$6$s:root:alice\n"), []byte("sudo:$6$s:root:alice,bob\nbob:!::\n"), nil)); got != "sudo:*omitted*:root:alice,bob\nbob:!::\n" {
		t.Errorf("gshadow is\n%s", got)
	}
	if got := string(shadow.Omit([]byte("no database"), []byte("no database\n\n#x:y\n"), nil)); got != "no database\n\n#x:y\n" {
		t.Errorf("what is none became\n%s", got)
	}
}
