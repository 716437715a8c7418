//go:build !linux

package capture

import (
	"io/fs"
	"time"
)

func ctime(info fs.FileInfo) time.Time { return info.ModTime() }
