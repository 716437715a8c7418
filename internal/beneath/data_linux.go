package beneath

import "golang.org/x/sys/unix"

// An Extent is a part of a file: bytes from Offset on.
type Extent struct{ Offset, Length int64 }

// Data lists where an open file has data; nil if it has no holes.
func Data(fd int, size int64) ([]Extent, error) {
	data := []Extent{}
	for at := int64(0); at < size; {
		from, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // a hole up to the end
		}
		if err == unix.EINVAL {
			return nil, nil // the file system knows no holes
		}
		if err != nil {
			return nil, err
		}
		to, err := unix.Seek(fd, from, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		from, to = min(from, size), min(to, size)
		if to > from {
			data = append(data, Extent{Offset: from, Length: to - from})
		}
		at = to
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	if len(data) == 1 && data[0] == (Extent{Length: size}) {
		return nil, nil
	}
	return data, nil
}
