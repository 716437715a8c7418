package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/internal/printable"
)

// evil is what a terminal would obey: CSI, OSC, C1 controls as UTF-8 and as a byte,
// a change of direction, and others.
const evil = "e\x1b[31mX\x1b]0;t\x07\u009b1m\x9b2m\u202eY\u2066\b\x7f"

// evilText is evil without what a Containerfile, a JSON text or a header can't hold.
var evilText = strings.ToValidUTF8(evil, "")

// evilServer answers with control characters.
func evilServer(t *testing.T) *httptest.Server {
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/v2/"):
			rw.Header().Set("Www-Authenticate", `Bearer realm="`+"\u202e"+`"`)
			rw.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(rw, `{"errors":[{"code":"DENIED","message":%s}]}`, quoteJSON(evilText))
		case strings.HasPrefix(r.URL.Path, "/api/"):
			rw.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(rw, `{"message":%s}`, quoteJSON(evilText))
		case strings.HasSuffix(r.URL.Path, "/tar"):
			_, _ = rw.Write(evilArchive(t))
		default:
			http.Error(rw, evil, http.StatusNotFound)
		}
	}))
	t.Cleanup(web.Close)
	return web
}

// evilStore is the local store of w, with a layer whose texts hold control characters.
func evilStore(t *testing.T, w *workspace) {
	store, err := dir.Open(w.path("cache/store"), dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d, blob := storetest.Step(evilText, "content")
	d.Layer = evilText
	m := storetest.Layer(evilText, 1, d)
	m.Platform = evilText
	if err := store.Put(t.Context(), d, blob); err != nil {
		t.Fatal(err)
	}
	if err := store.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	// A cache mount of that name, here and in a store.
	sum := sha256.Sum256([]byte(evilText))
	mount := w.path("cache/mounts/" + hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(filepath.Join(mount, evil), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mount+".id", []byte(`{"id": `+quoteJSON(evilText)+`}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := w.run("cache", "mounts", "push", "--store=dir:"+w.path("mounts")); code != 0 {
		t.Fatal(stderr)
	}
}

// evilFiles are Containerfiles that hold control characters, or name what does.
func evilFiles(t *testing.T, w *workspace, url string) {
	w.write(evil, "x")
	w.write("Containerfile", "# "+evilText+"\nENV E='"+evilText+"'\nRUN echo '"+evilText+"' && cp /bin/busybox \"/opt/$(printf 'e\\033[31mX\\033]0;t\\007\\302\\2331m\\2332m\\342\\200\\256Y\\342\\201\\246\\b\\177')\"\nWORKDIR /"+evilText+"\n")
	w.write("Containerfile.bad", "RUNN "+evilText+"\n"+evilText+" x\nCOPY "+evilText+" /x\nRUN --mount=type="+evilText+" x\nFROM a #"+evilText+"\nWORKDIR ${N:?"+evilText+"}\n")
	w.write("Containerfile.fails", "RUN printf 'a\\033[31m\\302\\2331m\\342\\200\\256\\n'; exit 3 # "+evilText+"\n")
	w.write("Containerfile.gone", "FETCH "+url+"/nothing /opt\n")
	w.write("Containerfile.tar", "FETCH "+url+"/tar /opt\n")
	w.write("Containerfile.lint", "RUN cd '"+evilText+"'\nRUN pip install numpy\nFETCH github:me/x /y\n")
	w.write("Containerfile."+evil, "RUN true\n")
	w.write("Containerfile.over", "RUN mkdir -p '/opt/"+evilText+"'\nCOPY "+"Containerfile"+" '/opt/"+evilText+"'\n")
	for _, dir := range []string{".claude", "settings", "unknown"} {
		if err := os.MkdirAll(w.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.write("settings/clayer.toml", "base-id = "+quoteJSON(evil)+"\n")
	w.write("unknown/clayer.toml", quoteJSON(evil)+" = "+quoteJSON(evil)+"\n")
	w.write(".claude/container-layers.json", `{"layers": ["base", `+quoteJSON(evilText)+`], `+quoteJSON(evilText)+`: 1}`)
}

// evilCommands are command lines, without their command, that meet evilServer,
// evilStore and evilFiles.
func evilCommands(w *workspace, host string) map[string][][]string {
	root, dest := "--root="+w.path("root"), "--dest="+w.path("out")
	oci, repo := "--store=oci:"+host+"/me/env", "--repo=me/env"
	return map[string][][]string{
		"solve": {
			{root, "-f", "Containerfile"}, {root, "-f", "Containerfile", "--json", "--progress=json"}, {dest, "-f", "Containerfile.over"},
			{root, "-f", "Containerfile.bad"}, {root, "-f", "Containerfile.fails"}, {root, "-f", "Containerfile.fails", "--progress=json"}, {root, "-f", "Containerfile.gone"},
			{root, "-f", "Containerfile.tar"}, {root, "-f", evil}, {root, "-f", "Containerfile." + evil}, {root, "-f", "Containerfile", oci}, {root, "-f", "Containerfile", repo, "--no-cache"},
			{"--root=" + evil}, {root, "--" + evil}, {root, "--store=" + evil}, {root, "--progress=" + evil}, {root, "--sandbox=" + evil}, {root, "--secret=id=" + evil + ",src=" + evil},
		},
		"compose": {{root}, {root, evil}},
		"plan": {
			{root}, {root, "--json"}, {root, "--html"}, {root, "--graph=dot"}, {root, "--graph=mermaid"}, {root, "--graph=svg"}, {root, "--graph=" + evil},
			{root, "-f", "Containerfile.bad"}, {root, "-f", "Containerfile." + evil}, {root, "-f", "Containerfile.gone"}, {root, "-f", "Containerfile", oci}, {root, "-f", "Containerfile", repo},
		},
		"build":             {{root, "Containerfile"}, {root, "Containerfile.fails"}},
		"restore":           {{root, "Containerfile"}, {root, evil}},
		"hash":              {{root, "Containerfile"}, {root, "Containerfile", "Containerfile." + evil, "--full"}, {root, "--json", "Containerfile"}, {root, "--legacy", "Containerfile"}},
		"inspect":           {{root, "Containerfile"}, {root, "--json", "Containerfile"}, {root, "Containerfile.bad"}},
		"status":            {{root}, {root, "--json"}, {root, "--exit-code", "-f", "Containerfile"}, {root, "--exit-code", "-f", "Containerfile", "--json"}},
		"wait":              {{root}, {root, "--timeout=" + evil}, {evil}},
		"base export":       {{root}, {root, evil}, {root, "--exclude=" + evil}, {"--root=" + evil}, {root, "--yes", evil + ".tar"}},
		"doctor":            {{root}, {root, "--json"}, {root, oci, repo}},
		"verify":            {{root}, {root, "--json"}},
		"diff":              {{root}, {root, "--all"}, {root, "--json"}},
		"check":             {{"Containerfile"}, {"Containerfile.bad"}, {"Containerfile.lint"}, {"Containerfile.lint", "--json"}, {"Containerfile.bad", "--format=sarif"}, {"--rules"}, {evil}, {"Containerfile." + evil}, {"--format=" + evil}},
		"run":               {{root, "-f", "Containerfile", "--", "true"}, {root, "-f", "Containerfile.fails", "--at", "1", "--", "true"}, {root, "-f", "Containerfile", "--", evil}},
		"shell":             {{root, "-f", "Containerfile.bad"}},
		"capture":           {{root, "-f", "none"}, {root, "-f", "none", "--json"}, {root, "--since=" + evil}},
		"init":              {{evil}, {"--help"}, {"skill", evil}, {"skill", evil, evil}, {"skill", evilText}, {"skill", "--print", "--store=dir:" + evil}, {"claude", "--release=" + evil}, {"codex", evil}},
		"shim install":      {{"--dir", w.path(evil + "shims"), "-f", evil}},
		"shim uninstall":    {{"--dir", w.path(evil + "shims")}},
		"cache ls":          {{}, {"--json"}, {evil}, {oci}, {repo}, {"--store=dir:" + w.path("other"), "--json"}},
		"cache rm":          {{evil}, {"nosuch"}, {oci, evil}},
		"cache prune":       {{"--dry-run", "--keep=0"}, {oci}, {repo}, {"--older-than=" + evil}},
		"cache push":        {{"--store=dir:" + w.path("other")}, {oci}, {"--store=dir:" + w.path("other"), evil}},
		"cache pull":        {{"--store=dir:" + w.path("other")}, {oci}, {evil}},
		"cache export":      {{"--oci", evil + ".tar", "-f", "Containerfile"}, {"--oci", "x.tar", evil}, {"--oci", "x.tar", evilText}, {"--oci", "y.tar", "-f", "Containerfile." + evil}},
		"cache copy":        {{"dir:" + w.path("other"), "dir:" + w.path("copied")}, {"dir:" + w.path("other"), evil}, {"local", "dir:" + w.path("copied"), evil}, {oci, "local"}},
		"cache mounts ls":   {{}, {"--json"}, {"--store=dir:" + w.path("mounts")}, {evil}},
		"cache mounts push": {{"--store=dir:" + w.path("mounts")}, {oci}, {"--store=dir:" + w.path("mounts"), evil}, {"--max-size=" + evil}},
		"cache mounts pull": {{"--store=dir:" + w.path("mounts")}, {oci}, {oci, evil}, {"--store=dir:" + w.path("mounts"), evil}},
		"cache mounts rm":   {{evil}, {oci, evil}, {"--store=dir:" + w.path("mounts"), evil}},
		"config ls":         {{"--base-id=" + evil}, {"--base-id=" + evil, "--json"}, {"-f", "settings/Containerfile"}, {"-f", "unknown/Containerfile"}, {evil}},
		"man":               {{evil}, {}},
		"self update":       {{evil, "--offline"}, {"--offline"}, {"v1.2.3", "--pins-file=" + evil}},
		"self uninstall":    {{evil}},
		"version":           {{}, {"--json"}, {evil}},
		"undo":              {{root}, {root, "--" + evil}},
		"completion bash":   {{}}, "completion zsh": {{}}, "completion fish": {{}}, "completion powershell": {{}},
		"help":       {{}, {evil}},
		"__complete": {{"cache", "rm", evil}, {"plan", "-f", evil}},
		evil:         {{}},
		"env":        {{root, "-f", "Containerfile.bad"}, {root, "-f", "Containerfile", "--shell=" + evil}, {root, "-f", "Containerfile", "--json"}},
		"shim env":   {{"--shell=" + evil}},
	}
}

// TestNoCommandPrintsControlCharacters feeds evil through every command: names in
// a store, of files and of an archive's members, Containerfiles, and what servers
// say. No command prints it raw; those that print for programs are named.
func TestNoCommandPrintsControlCharacters(t *testing.T) {
	w := newWorkspace(t)
	web := evilServer(t)
	host := strings.TrimPrefix(web.URL, "http://")
	evilStore(t, w)
	put := func(dest string) { // what a RUN makes, and somebody changes afterwards
		path := filepath.Join(dest, "opt", evil)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("changed"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	evilFiles(t, w, web.URL)
	t.Setenv("GITHUB_API_URL", web.URL+"/api/v3")
	t.Setenv("GITHUB_SERVER_URL", web.URL)
	t.Setenv("SOME_VARIABLE", evil)

	tests := evilCommands(w, host)
	// These print for programs, byte by byte; their errors are tested above.
	exact := map[string]bool{"shim source": true}

	// undo is last: what others show is in the root until then.
	order := []string{"solve"}
	var walk func(c *cobra.Command, path string)
	walk = func(c *cobra.Command, path string) {
		for _, sub := range c.Commands() {
			name := strings.TrimSpace(path + " " + sub.Name())
			if sub.HasSubCommands() {
				walk(sub, name)
				continue
			}
			if tests[name] == nil && !exact[name] {
				t.Errorf("%s: no test feeds evil to it", name)
			}
			if name != "solve" && name != "undo" {
				order = append(order, name)
			}
		}
	}
	cmd := newRoot()
	cmd.InitDefaultHelpCmd()
	cmd.InitDefaultCompletionCmd()
	walk(cmd, "")
	order = append(order, "__complete", evil, "undo")
	shown := false
	for _, name := range order {
		for _, args := range tests[name] {
			if name == "verify" || name == "diff" {
				put(w.path("root"))
			}
			line := append(strings.Split(name, " "), args...)
			if name == evil {
				line = []string{evil}
			}
			stdout, stderr, _ := w.run(line...)
			for stream, text := range map[string]string{"stdout": stdout, "stderr": stderr} {
				if got := printable.Text(text); got != text {
					t.Errorf("clayer %q: raw control characters on %s: %q", line, stream, text)
				}
			}
			shown = shown || name == "cache ls" && strings.Contains(stdout, `layer-e\x1b[31mX`)
		}
	}
	if !shown {
		t.Error("cache ls does not show the layer of the store: nothing was tested")
	}
}

func quoteJSON(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// evilArchive is a tar with a member whose name is refused, and shown.
func evilArchive(t *testing.T) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "/" + evilText, Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	return b.Bytes()
}
