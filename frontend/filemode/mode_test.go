package filemode

import "testing"

func TestModes(t *testing.T) {
	for _, tt := range []struct {
		mode      string
		bits      uint32
		file, dir uint32
	}{
		{"0755", 0o644, 0o755, 0o755},
		{"4711", 0o644, 0o4711, 0o4711},
		{"0", 0o644, 0, 0},
		{"u=rwX,go=rX", 0o600, 0o644, 0o755},
		{"u=rwX,go=rX", 0o700, 0o755, 0o755},
		{"go-r,u=rwX", 0o644, 0o600, 0o700},
		{"u+s,g=u,o=", 0o755, 0o4770, 0o4770},
		{"+t", 0o755, 0o1755, 0o1755},
	} {
		m, err := Parse(tt.mode)
		if err != nil {
			t.Errorf("%s: %v", tt.mode, err)
			continue
		}
		change, err := m.Change()
		if err != nil {
			t.Errorf("%s: %v", tt.mode, err)
			continue
		}
		if file, dir := change(tt.bits, false), change(tt.bits, true); file != tt.file || dir != tt.dir {
			t.Errorf("%s of %o: a file gets %o and a directory %o, want %o and %o", tt.mode, tt.bits, file, dir, tt.file, tt.dir)
		}
	}
}

// One mode has one key.
func TestModesHaveOneText(t *testing.T) {
	for _, s := range []string{"755", "0755", "00755"} {
		if m, err := Parse(s); err != nil || m != "755" {
			t.Errorf("Parse(%q) = %q, %v", s, m, err)
		}
	}
}
