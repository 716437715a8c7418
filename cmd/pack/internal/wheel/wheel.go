// Package wheel writes the wheels of PyPI, one a platform. The command that pip and uv
// install is the program itself: no Python starts with it.
package wheel

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/cmd/pack/internal/release"
	"github.com/clayer/clayer/internal/skill"
)

// module says to Python programs where the command is, and where the skill is.
//
//go:embed module.py
var module []byte

// FileName is that of the wheel of a program.
func FileName(r *release.Release, p *release.Program) string {
	return fmt.Sprintf("%s-%s-py3-none-%s.whl", distribution, r.Python(), p.Wheel)
}

// distribution is the name as file names have it.
var distribution = strings.ReplaceAll(release.Name, "-", "_")

// Write writes the wheels into dir. installer is install.sh, which the skill in them has.
func Write(r *release.Release, dir string, installer []byte) error {
	pins := make([]string, 0, len(r.Programs))
	for _, p := range r.Programs {
		pins = append(pins, p.SHA256)
	}
	scripts, err := skill.Files(skill.Options{Version: "v" + r.Version, Pins: pins, Installer: installer})
	if err != nil {
		return err
	}
	for _, p := range r.Programs {
		data, err := pack(r, p, scripts)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, FileName(r, p)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pack returns a wheel. The program is the first member, with its sizes before it, in
// its header: install.sh takes it out with head, tail and gzip.
func pack(r *release.Release, p *release.Program, scripts map[string][]byte) ([]byte, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	var record strings.Builder
	add := func(name string, data []byte, mode os.FileMode) error {
		sum := sha256.Sum256(data)
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", name, base64.RawURLEncoding.EncodeToString(sum[:]), len(data))
		return addMember(w, name, data, mode)
	}
	stem := distribution + "-" + r.Python()
	info := stem + ".dist-info/"
	var tags strings.Builder
	for tag := range strings.SplitSeq(p.Wheel, ".") {
		fmt.Fprintf(&tags, "Tag: py3-none-%s\n", tag)
	}
	type file struct {
		name, text string
		mode       os.FileMode
	}
	files := []file{
		{stem + ".data/scripts/clayer", string(p.Data), 0o755},
		{distribution + "/__init__.py", string(module), 0o644},
		{distribution + "/py.typed", "", 0o644},
		{info + "METADATA", fmt.Sprintf(`Metadata-Version: 2.1
Name: %s
Version: %s
Summary: %s
Home-page: %s
License: %s
Requires-Python: >=3.9
Classifier: Environment :: Console
Classifier: Operating System :: POSIX :: Linux
Classifier: Operating System :: MacOS
Description-Content-Type: text/markdown

%s. This package installs the command clayer. See <%[4]s>.
`, release.Name, r.Python(), release.Description, release.Home, release.License, release.Description), 0o644},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: clayer pack\nRoot-Is-Purelib: false\n" + tags.String(), 0o644},
	}
	for _, name := range slices.Sorted(maps.Keys(scripts)) { // the directory of the module is that of the skill
		files = append(files, file{distribution + "/" + name, string(scripts[name]), 0o644})
	}
	for _, f := range files {
		if err := add(f.name, []byte(f.text), f.mode); err != nil {
			return nil, err
		}
	}
	record.WriteString(info + "RECORD,,\n") // its own line has no digest
	if err := addMember(w, info+"RECORD", []byte(record.String()), 0o644); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

func addMember(w *zip.Writer, name string, data []byte, mode os.FileMode) error {
	packed, err := release.Deflate(data)
	if err != nil {
		return err
	}
	h := &zip.FileHeader{
		Name: name, Method: zip.Deflate, CRC32: crc32.ChecksumIEEE(data), CompressedSize64: uint64(len(packed)), UncompressedSize64: uint64(len(data)),
	}
	//lint:ignore SA1019 CreateRaw reads this alone, and adds no extra field
	h.ModifiedDate = 1<<5 | 2 // 1980-01-02, as release.Time
	h.SetMode(mode)
	m, err := w.CreateRaw(h)
	if err != nil {
		return err
	}
	_, err = m.Write(packed)
	return err
}
