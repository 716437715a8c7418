package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// tree measures one tree: packing, then restoring onto a directory and onto a fresh ext4.
func (b *bench) tree(name string, of func(...string) bool) error {
	tree := b.path(name)
	files, bytes := 0, int64(0)
	err := filepath.WalkDir(tree, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				files, bytes = files+1, bytes+info.Size()
			}
		}
		return err
	})
	if err != nil || !of("packing", "restoring", "ext4") {
		return err
	}
	what := fmt.Sprintf("%s: %d files, %d MB", name, files, bytes>>20)
	gz, zst, snap := b.path("tree.tar.gz"), b.path("tree.tar.zst"), b.path("tree.snapshot")
	packers := []*contender{
		{name: "tar -czf", run: func() (usage, error) { return command("tar", "-C", tree, "-czf", gz, ".") }},
		{name: "tar -I 'zstd -T0 -3'", run: func() (usage, error) { return command("tar", "-C", tree, "-I", "zstd -T0 -3", "-cf", zst, ".") }},
		{name: "clayer's snapshot", run: func() (usage, error) { return ownProcess("pack", tree, snap) }},
	}
	if has("bsdtar") {
		packers = append(packers, &contender{name: "bsdtar --zstd -cf", run: func() (usage, error) {
			return command("bsdtar", "-C", tree, "--zstd", "-cf", b.path("tree.bsd.tar.zst"), ".")
		}})
	}
	for _, p := range packers { // also what is restored
		if _, err := p.run(); err != nil {
			return err
		}
	}
	if of("packing") {
		note := fmt.Sprintf("%s. Bytes: tar.gz %d, tar.zst %d, snapshot %d.", what, size(gz), size(zst), size(snap))
		vs := b.vs
		b.vs = "" // it has no command that packs alone
		err := b.alternate("Packing "+name, note, packers, "tar -czf", "tar -I 'zstd -T0 -3'")
		if b.vs = vs; err != nil {
			return err
		}
	}
	if of("restoring") {
		if err := b.restore("Restoring "+name, what, tree, gz, zst, snap, b.fresh); err != nil {
			return err
		}
	}
	if !of("ext4") {
		return nil
	}
	if why := b.hasExt4(); why != "" {
		fmt.Fprintf(b.out, "Restoring %s onto ext4: skipped: %s\n\n", name, why)
		return nil
	}
	if err := b.restore("Restoring "+name+" onto a fresh ext4", what, tree, gz, zst, snap, b.freshExt4); err != nil {
		return err
	}
	return b.unmount()
}

// restore measures restoring a tree into a directory that fresh makes.
func (b *bench) restore(title, what, tree, gz, zst, snap string, fresh func(dir string) error) error {
	file, out := b.path("Containerfile"), b.path("out/root")
	text := fmt.Sprintf("RUN mkdir -p /opt && cp -a %s /opt/tree\n", tree)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	empty := func() error { // an ext4 has a directory of its own
		return errors.Join(fresh(b.path("out")), os.MkdirAll(out, 0o755))
	}
	if err := empty(); err != nil {
		return err
	}
	decoded, err := ownProcess("decode", snap, "-")
	if err != nil {
		return err
	}
	list := []*contender{
		{name: "tar -xzf", prepare: empty, run: func() (usage, error) { return command("tar", "-C", out, "-xzf", gz) }},
		{name: "tar --zstd -xf", prepare: empty, run: func() (usage, error) { return command("tar", "-C", out, "--zstd", "-xf", zst) }},
	}
	if has("bsdtar") {
		list = append(list, &contender{name: "bsdtar -xf", prepare: empty, run: func() (usage, error) { return command("bsdtar", "-C", out, "-xf", zst) }})
	}
	for _, c := range b.both("clayer solve", func(binary string) *contender {
		store := b.path("store-" + b.as(binary))
		solve := []string{binary, "solve", "--sandbox=overlay", "--cache-dir=" + store, "--dest=" + out, "-f", file}
		err := os.RemoveAll(store)
		if err == nil {
			_, err = command(solve...) // which stores it
		}
		return &contender{prepare: empty, run: func() (usage, error) {
			if err != nil {
				return usage{}, err
			}
			return command(solve...)
		}}
	}) {
		list = append(list, c)
	}
	list = append(list, &contender{name: "writing the files, all cores", prepare: empty, run: func() (usage, error) { return ownProcess("write", tree, out) }})
	if err := empty(); err != nil {
		return err
	}
	w, err := ownProcess("write", tree, out)
	if err != nil {
		return err
	}
	note := fmt.Sprintf("%s. The limit, (%.2f s of decoding on one core + %.2f CPU s of writing) / cores, is %.2f s.",
		what, decoded.cpu.Seconds(), w.cpu.Seconds(), (decoded.cpu+w.cpu).Seconds()/float64(runtime.GOMAXPROCS(0)))
	return b.alternate(title, note, list, "tar -xzf", "tar --zstd -xf", "clayer solve")
}

func has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

func size(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return info.Size()
}
