package preserved

import (
	"slices"
	"testing"

	"github.com/clayer/clayer/solver/rootfs"
)

func TestErrors(t *testing.T) {
	var got []string
	for _, err := range Errors([]rootfs.Preserved{
		{Path: "lib/numpy/core", Why: rootfs.NotEmpty},
		{Path: "lib/numpy", Why: rootfs.NotEmpty},
		{Path: "lib/numpy/conf", Why: "changed: content"},
		{Path: "library", Why: rootfs.NotEmpty},
		{Path: "etc/app", Why: rootfs.NotEmpty},
		{Path: "etc/app/x", Why: rootfs.NotEmpty},
		{Path: "etc/app.d", Why: "deleted"},
		{Path: "lib", Why: rootfs.NotEmpty},
		{Path: "library", Why: rootfs.NotEmpty},
	}) {
		got = append(got, err.Error())
	}
	want := []string{
		"preserved /lib/numpy/conf: changed: content",
		"preserved /library: " + rootfs.NotEmpty,
		"preserved /etc/app, with a directory in it: " + rootfs.NotEmpty,
		"preserved /etc/app.d: deleted",
		"preserved /lib, with 2 of the directories in it: " + rootfs.NotEmpty,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
