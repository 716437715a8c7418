package render

import (
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/clayer/clayer/dag"
)

// TestPictureIsWellFormed: whatever an instruction says, the picture is XML, and
// neither it nor the page asks for anything from elsewhere.
func TestPictureIsWellFormed(t *testing.T) {
	g, k := build(t, "Containerfile:\nRUN echo '<script>alert(1)</script>' \"&&\" ]]> \u202e\nFETCH https://example.com/a?x=1&y=<2> /a\n",
		"Containerfile.x:\nFROM base\nFETCH https://example.com/a?x=1&y=<2> /b\nCOPY <<f /x\n<svg>\nf\n", "Containerfile.empty:\nARG X\n")
	p := dag.NewPlan(g, k, dag.Answers{})
	var svg, page strings.Builder
	if err := errors.Join(SVG(&svg, p), HTML(&page, p)); err != nil {
		t.Fatal(err)
	}
	boxes := 0
	for d := xml.NewDecoder(strings.NewReader(svg.String())); ; {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, svg.String())
		}
		if e, ok := tok.(xml.StartElement); ok {
			switch e.Name.Local {
			case "rect":
				boxes++
			case "script", "image", "foreignObject":
				t.Errorf("element %s", e.Name.Local)
			}
		}
	}
	if want := len(g.Steps()) + len(g.Sources); boxes != want {
		t.Errorf("%d boxes, want %d", boxes, want)
	}
	if strings.Contains(page.String(), "<script") || regexp.MustCompile(`(?i)\b(src|href)\s*=|url\(["']?http`).MatchString(page.String()) {
		t.Errorf("the page is not self-contained:\n%s", page.String())
	}
}
