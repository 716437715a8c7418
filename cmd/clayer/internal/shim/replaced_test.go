package shim

import (
	"slices"
	"testing"
)

func TestWhatAptWillReplace(t *testing.T) {
	const out = `NOTE: This is only a simulation!
Inst libssl3 [3.0.11-1~deb12u2] (3.0.15-1~deb12u1 Debian:12.8/stable [amd64]) []
Inst libjq1 (1.6-2.1 Debian:12.8/stable [amd64])
Remv mawk [1.3.4.20200120-3.1]
Inst libc6:i386 [2.36-9] (2.36-10 Debian:12.8/stable [i386])
Conf libssl3 (3.0.15-1~deb12u1 Debian:12.8/stable [amd64])
`
	if got, want := upgrades([]byte(out)), []string{"libssl3", "mawk", "libc6"}; !slices.Equal(got, want) {
		t.Errorf("upgrades = %q, want %q", got, want)
	}
}
