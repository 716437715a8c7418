package sizes

import "testing"

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		s    string
		kilo float64
		want int64 // 0: not a size
	}{
		{"10GiB", 1000, 10 << 30},
		{"500MB", 1000, 500e6},
		{"1.5 kB", 1000, 1500},
		{"12", 1000, 12},
		{"12b", 1000, 12},
		{"64m", 1024, 64 << 20},
		{"1.5g", 1024, 3 << 29},
		{"1Ki", 1024, 1 << 10},
		{"2t", 1000, 2e12},
		{"lots", 1000, 0},
		{"", 1000, 0},
		{"MB", 1000, 0},
		{"-1", 1000, 0},
		{"NaN", 1000, 0},
		{"1kk", 1000, 0},
		{"1ib", 1000, 0},
		{"1e30", 1000, 0},
	} {
		if n, ok := Parse(tt.s, tt.kilo); ok != (tt.want > 0) || ok && n != tt.want {
			t.Errorf("Parse(%q, %v) = %d, %t, want %d", tt.s, tt.kilo, n, ok, tt.want)
		}
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9950: "10 kB", 41_000_000: "41 MB", 999_600_000: "1.0 GB", 1 << 62: "4.6 EB"} {
		if got := Format(n); got != want {
			t.Errorf("Format(%d) = %q, want %q", n, got, want)
		}
	}
}
