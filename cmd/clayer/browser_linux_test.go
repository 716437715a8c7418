package main

import (
	"context"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// chromium returns the program of a headless Chromium, or skips.
func chromium(t *testing.T) string {
	for _, name := range []string{"chromium-headless-shell", "chromium", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("no Chromium: the page of plan --html is not looked at")
	return ""
}

// TestPlanPageInABrowser opens the page of plan --html as a user does: every
// step and source is drawn in the colour of its state, and nothing is complained of.
func TestPlanPageInABrowser(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	w := newWorkspace(t)
	w.write("file", "a file\n")
	w.write("Containerfile", "ENV LANG=C.UTF-8\nRUN echo '<one> & \"two\"' > /one\nCOPY file /etc/\n")
	w.write("Containerfile.mojo", "FROM base\nRUN echo mojo > /mojo\n")
	if _, stderr, code := w.run("solve", "--root=root"); code != 0 {
		t.Fatal(stderr)
	}
	if _, stderr, code := w.run("undo", "--root=root"); code != 0 {
		t.Fatal(stderr)
	}
	page, stderr, code := w.run("plan", "--html", "--root=root", "Containerfile", "Containerfile.mojo")
	if code != 0 {
		t.Fatal(stderr)
	}
	w.write("plan.html", page)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	open := func(args ...string) string {
		t.Helper()
		args = append([]string{
			"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--user-data-dir=" + w.path("profile"),
			"--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1200,900",
		}, args...)
		cmd := exec.CommandContext(ctx, browser, append(args, "file://"+w.path("plan.html"))...)
		cmd.Dir = w.dir
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, errs.String())
		}
		if strings.Contains(errs.String(), ":CONSOLE") {
			t.Errorf("the page is complained of:\n%s", errs.String())
		}
		return string(out)
	}
	dom := open("--dump-dom")
	if n := strings.Count(dom, "<rect"); n != 5 { // four steps and a source
		t.Errorf("%d boxes, want 5:\n%s", n, dom)
	}
	if n := strings.Count(dom, "<td class=\"step\">"); n != 4 {
		t.Errorf("%d rows, want 4:\n%s", n, dom)
	}
	open("--screenshot=" + w.path("plan.png"))
	f, err := os.Open(w.path("plan.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[color.RGBA]int)
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			count[color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)]++
		}
	}
	for name, c := range map[string]color.RGBA{"cached": {0xd5, 0xe8, 0xd4, 0xff}, "to run": {0xff, 0xe6, 0xcc, 0xff}} {
		if count[c] < 2000 { // a box has about ten thousand
			t.Errorf("%d pixels in the colour of %q", count[c], name)
		}
	}
}
