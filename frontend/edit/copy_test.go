package edit

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFilesOfThisMachine(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"requirements.txt": "numpy<2\n# c\nhttps://example.com/x.whl\n",
		"nested.txt":       "-r requirements.txt\n",
		"editable.txt":     "--editable=./lib\n",
		"secret.txt":       "--index-url https://me:pw@example.com/simple\n",
		"dist/x-1.whl":     "zip",
		"with space.txt":   "a\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), text, 0o644)
	}
	at := Place{Dir: filepath.Join(dir, "dist"), Context: dir}
	for _, tt := range []struct{ typed, want string }{
		{
			"pip install -r ../requirements.txt x",
			"COPY requirements.txt /usr/local/share/clayer/requirements.txt\nRUN pip install -r /usr/local/share/clayer/requirements.txt x\n",
		},
		{"uv pip install ./x-1.whl", "COPY dist/x-1.whl /usr/local/share/clayer/dist/x-1.whl\nRUN uv pip install --system /usr/local/share/clayer/dist/x-1.whl\n"},
		{"pip install -r ../nested.txt", "# not captured: pip install -r ../nested.txt: nested.txt names -r requirements.txt, which is of this machine\n"},
		{"pip install -r ../editable.txt", "# not captured: pip install -r ../editable.txt: editable.txt names --editable=./lib, which is of this machine\n"},
		{"pip install -r ../secret.txt", "# not captured: pip install -r ../secret.txt: secret.txt holds a credential\n"},
		{"pip install -r /etc/hostname", "# not captured: pip install -r /etc/hostname: /etc/hostname is not beside the Containerfile, so COPY can't copy it\n"},
		{"pip install -r https://example.com/r.txt", "RUN pip install -r https://example.com/r.txt\n"},
		{"pip install --target lib x", "RUN pip install -t " + filepath.Join(dir, "dist", "lib") + " x\n"},
	} {
		// Twice: what is written is found again.
		if got := session(t, "", at, tt.typed, tt.typed); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.typed, got, tt.want)
		}
	}
	in := Read([]string{"pip", "install", "-r", "with space.txt"}, Place{Dir: dir, Context: dir}).Install
	if out, _, err := Capture(nil, in, nil); err == nil {
		t.Errorf("%s", out)
	}
}

func TestVirtualEnvironments(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"p/.venv/bin", "p/sub", "q"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	venv := filepath.Join(dir, "p", ".venv")
	write(t, filepath.Join(venv, "pyvenv.cfg"), "", 0o644)
	env := func(vars map[string]string) func(string) string { return func(n string) string { return vars[n] } }
	none := env(nil)
	for _, tt := range []struct {
		name  string
		argv  []string
		place Place
		venv  string
	}{
		{"uv in a project", []string{"uv", "pip", "install", "x"}, Place{Dir: filepath.Join(dir, "p", "sub"), Getenv: none}, venv},
		{"uv beside it", []string{"uv", "pip", "install", "x"}, Place{Dir: filepath.Join(dir, "q"), Getenv: none}, ""},
		{"--system", []string{"uv", "pip", "install", "--system", "x"}, Place{Dir: filepath.Join(dir, "p"), Getenv: none}, ""},
		{"UV_SYSTEM_PYTHON", []string{"uv", "pip", "install", "x"}, Place{Dir: filepath.Join(dir, "p"), Getenv: env(map[string]string{"UV_SYSTEM_PYTHON": "1"})}, ""},
		{"VIRTUAL_ENV", []string{"uv", "pip", "install", "x"}, Place{Dir: "/", Getenv: env(map[string]string{"VIRTUAL_ENV": "/v"})}, "/v"},
		{"--python", []string{"uv", "pip", "install", "-p", venv, "x"}, Place{Dir: "/", Getenv: none}, venv},
		{"its own pip", []string{"pip", "install", "x"}, Place{Dir: "/", Program: venv + "/bin/pip", Getenv: none}, venv},
		{"its own pip, elsewhere", []string{"pip", "install", "--target", "/t", "x"}, Place{Dir: "/", Program: venv + "/bin/pip", Getenv: none}, ""},
		{"conda", []string{"conda", "install", "x"}, Place{Dir: "/", Getenv: env(map[string]string{"CONDA_DEFAULT_ENV": "w", "CONDA_PREFIX": "/w"})}, "/w"},
		{"conda's base", []string{"conda", "install", "x"}, Place{Dir: "/", Getenv: env(map[string]string{"CONDA_DEFAULT_ENV": "base", "CONDA_PREFIX": "/w"})}, ""},
	} {
		r := Read(tt.argv, tt.place)
		if r.Venv != tt.venv || (r.Verdict == Venv) != (tt.venv != "") {
			t.Errorf("%s: %+v, want %q", tt.name, r, tt.venv)
		}
	}
}
