package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/clayer/clayer/internal/ocitest"
)

// cmdImage pushes an image to the registry of the script; $IMAGE_DIGEST is then its digest.
func cmdImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: image NAME[:TAG] [config=FILE] [DIR]...")
	}
	name, tag, _ := strings.Cut(args[0], ":")
	var im ocitest.Image
	for _, arg := range args[1:] {
		if file, ok := strings.CutPrefix(arg, "config="); ok {
			ts.Check(json.Unmarshal([]byte(ts.ReadFile(file)), &im.Config))
			continue
		}
		layer, err := tarOf(ts.MkAbs(arg))
		ts.Check(err)
		im.Layers = append(im.Layers, ocitest.Gzip(layer))
	}
	repo, err := remote.NewRepository(ts.Getenv("REGISTRY") + "/" + name)
	ts.Check(err)
	repo.PlainHTTP = true
	repo.Client = &auth.Client{Credential: auth.StaticCredential(ts.Getenv("REGISTRY"), auth.Credential{Username: ocitest.User, Password: ocitest.Password})}
	d, err := ocitest.Push(context.Background(), repo, im)
	ts.Check(err)
	if tag == "" {
		tag = "latest"
	}
	ts.Check(repo.Tag(context.Background(), d, tag))
	ts.Setenv("IMAGE_DIGEST", d.Digest.String())
}

// tarOf packs what is in a directory, as root's.
func tarOf(dir string) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target := ""
		if d.Type() == fs.ModeSymlink {
			if target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		h.Name, _ = filepath.Rel(dir, path)
		h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
		if err := w.WriteHeader(h); err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil {
			_, err = w.Write(data)
		}
		return err
	})
	if err == nil {
		err = w.Close()
	}
	return out.Bytes(), err
}
