package snapshot_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
)

func ExamplePack() {
	content := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("hello\n")), nil }
	changes := func(yield func(*snapshot.Entry, error) bool) {
		_ = yield(&snapshot.Entry{Path: "etc", Kind: snapshot.Dir, Implied: true, Mode: 0o755}, nil) &&
			yield(&snapshot.Entry{Path: "etc/motd", Kind: snapshot.File, Mode: 0o644, Size: 6, Open: content}, nil) &&
			yield(&snapshot.Entry{Path: "etc/old", Kind: snapshot.Delete}, nil)
	}
	var blob bytes.Buffer
	packed, err := snapshot.Pack(context.Background(), &blob, changes, snapshot.PackOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(packed.Entries, "entries,", packed.Bytes, "bytes of files")
	for e, err := range snapshot.Read(&blob) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Path, "deleted:", e.Kind == snapshot.Delete)
	}
	// Output:
	// 3 entries, 6 bytes of files
	// etc deleted: false
	// etc/motd deleted: false
	// etc/old deleted: true
}
