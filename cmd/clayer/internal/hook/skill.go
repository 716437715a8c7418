package hook

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/internal/skill"
)

// SkillDir is where a skill is written if nothing else is said: Claude Code loads it there.
const SkillDir = ".claude/skills/container-layer"

// Skill returns the files of the skill container-layer in dir.
func Skill(dir string, o Options) ([]File, error) {
	s := skill.Options{Version: o.Version, Pins: o.Pins, Installer: []byte(installScript), Program: o.Program, Defaults: make(map[string]string)}
	for _, w := range slices.Concat([]string{o.Repo, o.DownloadURL}, o.Stores) {
		if w != "" && !plain().MatchString(w) {
			return nil, fmt.Errorf("%q can't stand in a script", w)
		}
	}
	for name, value := range map[string]string{"CLAYER_REPO": o.Repo, "CLAYER_DOWNLOAD_URL": o.DownloadURL, "CLAYER_STORE": strings.Join(o.Stores, "\n")} {
		if value != "" {
			s.Defaults[name] = value
		}
	}
	if s.Program != "" && !filepath.IsAbs(s.Program) && !filepath.IsAbs(dir) { // in the project: so that copies of the project have it
		rel, err := filepath.Rel(dir, s.Program)
		if err != nil {
			return nil, err
		}
		s.Program = rel
	}
	texts, err := skill.Files(s)
	if err != nil {
		return nil, err
	}
	files := make([]File, 0, len(texts))
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		files = append(files, File{Path: filepath.ToSlash(filepath.Join(dir, filepath.FromSlash(name))), Text: texts[name], Mode: 0o644})
	}
	return files, nil
}

// CheckOwn fails if a file is there that clayer init did not write: of the files, all are
// written or none.
func CheckOwn(files []File) error {
	for _, f := range files {
		old, err := safefile.Read(filepath.FromSlash(f.Path), frontend.MaxFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return usage.Errorf("%s: %w", f.Path, err)
		}
		if !bytes.Contains(old, []byte("clayer init")) {
			return errhint.With(usage.Errorf("%s: %w, and not of clayer init; nothing was written", f.Path, fs.ErrExist), "move it away, or name another directory")
		}
	}
	return nil
}
