package filelist

import "github.com/clayer/clayer/internal/inroot"

// xattrs returns the extended attributes of a file.
func (s *scan) xattrs(name string) (map[string]string, error) {
	f, err := openRegular(s.root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := inroot.Sys{}.ListXattrs(int(f.Fd()))
	if len(list) == 0 || err != nil {
		return nil, err
	}
	all := make(map[string]string)
	for name, value := range list {
		all[name] = string(value)
	}
	return all, nil
}

// isCopied reports whether snapshots hold attributes of that name.
func isCopied(name string) bool { return inroot.Managed(name) }
