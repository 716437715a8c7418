//go:build linux

package durability

import (
	"path/filepath"
	"testing"
)

func TestPolicy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	for _, tt := range []struct {
		name   string
		policy Policy
		dir    string
		want   Mode
	}{
		{"a setting counts before all", Policy{Setting: Always, Sign: "$CI"}, "/", Durable},
		{"at the end", Policy{Setting: AtEnd}, dir, Ephemeral},
		{"never", Policy{Setting: Never}, dir, NoSync},
		{"the file system of / on a machine that ends with its session", Policy{Sign: "$CI"}, "/", Ephemeral},
		{"another file system there may be a volume", Policy{Sign: "$CI"}, "/proc", Durable},
		{"what is in memory is gone with the power", Policy{}, "/dev/shm/a/b", Ephemeral},
	} {
		if got, why := tt.policy.Of(tt.dir); got != tt.want || why == "" {
			t.Errorf("%s: %s (%s), want %s", tt.name, got, why, tt.want)
		}
	}
	if _, overlay := kindOf("/"); !overlay {
		if got, why := (Policy{}).Of("/"); got != Durable {
			t.Errorf("without a sign: %s (%s)", got, why)
		}
	}
	if Boot() == "" {
		t.Error("no name for the run of the kernel")
	}
}
