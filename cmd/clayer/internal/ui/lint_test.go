package ui

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/lint"
	"github.com/clayer/clayer/internal/golden"
	"github.com/clayer/clayer/solver/doctor"
)

func TestFindings(t *testing.T) {
	src, err := os.ReadFile("../../../../frontend/lint/testdata/Containerfile.bad")
	if err != nil {
		t.Fatal(err)
	}
	f, err := frontend.Parse("Containerfile.bad", src)
	if err != nil {
		t.Fatal(err)
	}
	findings := lint.Check([]*frontend.File{f}, nil)
	for format, want := range map[string]string{"json": "--secret id=NAME", "sarif": "clayer check --rules"} {
		var b bytes.Buffer
		if err := WriteFindings(&b, findings, format, "v1"); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s has no %q", format, want)
		}
	}
	var b bytes.Buffer
	if err := WriteFindings(&b, findings, "text", "v1"); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/findings.txt", b.String())
}

func TestNameFlags(t *testing.T) {
	for _, tt := range []struct {
		finding doctor.Finding
		want    string
	}{
		{doctor.Finding{Name: "ephemeral", Text: "no sign of it", Cause: doctor.NotEphemeral}, "no sign of it: solve changes / only with --yes"},
		{doctor.Finding{Name: "root", Remedy: "space", Cause: doctor.LittleSpace}, "a smaller environment, or --dest on another disk"},
		{doctor.Finding{Name: "cache", Remedy: "space", Cause: doctor.LittleSpace}, "--cache-dir on another disk, or a smaller --cache-size"},
		{doctor.Finding{Name: "temporary files", Remedy: "TMPDIR on another disk", Cause: doctor.LittleSpace}, "TMPDIR on another disk"},
		{doctor.Finding{Name: "cache", Remedy: "another one", Cause: doctor.ReadOnly}, "--cache-dir DIR on a disk that can be written"},
		{doctor.Finding{Name: "API", Remedy: "a network", Cause: doctor.Unreachable}, "a network, or HTTPS_PROXY; without it, --store dir:PATH"},
		{doctor.Finding{Name: "clock", Remedy: "set the clock"}, "set the clock"},
	} {
		list := NameFlags([]doctor.Finding{tt.finding})
		if got := list[0].Text + list[0].Remedy; got != tt.want {
			t.Errorf("%s, %q: %q, want %q", tt.finding.Name, tt.finding.Cause, got, tt.want)
		}
	}
}
