package shim

import (
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/clayer/clayer/frontend/edit"
)

// find returns the program of that name that a shell would run were there no
// shims in dir: the first after dir on path, or, where dir is not on it, the
// first of all. Shims of another directory are none. "" means there is none.
func find(name, dir, path string) string {
	own, _ := os.Stat(dir)
	isOwn := func(p string) bool {
		if p == dir {
			return true
		}
		info, err := os.Stat(p)
		return own != nil && err == nil && os.SameFile(own, info)
	}
	list := filepath.SplitList(path)
	if i := slices.IndexFunc(list, isOwn); i >= 0 {
		list = list[i+1:]
	}
	for _, p := range list {
		if p == "" {
			continue // the working directory, which is never meant
		}
		file := filepath.Join(p, name)
		info, err := os.Stat(file)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 || isOwn(p) || isShimFile(file) {
			continue
		}
		if abs, err := filepath.Abs(file); err == nil {
			return abs
		}
	}
	return ""
}

func isShimFile(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false // a program that can be run and not be read
	}
	defer f.Close()
	head := make([]byte, len("#!/bin/sh\n")+len(edit.ShimMark))
	n, _ := io.ReadFull(f, head)
	return isShim(head[:n])
}
