package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	slash "path"
	"path/filepath"
	"slices"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/clayer/clayer/internal/safefile"
)

// A Login is a user of a registry. The zero Login is anonymous.
type Login struct {
	From   string // where it was found, in words; "" for none
	Helper string // the program that Docker would ask for it, and that is not run; "" for none

	credential auth.Credential
}

// Secrets returns what must not be printed or leave the machine.
func (l Login) Secrets() []string {
	var all []string
	for _, v := range []string{l.credential.Password, l.credential.RefreshToken, l.credential.AccessToken} {
		if v != "" {
			all = append(all, v)
		}
	}
	return all
}

// The variables with a login.
const (
	UserVariable     = "CLAYER_OCI_USERNAME"
	PasswordVariable = "CLAYER_OCI_PASSWORD"
)

// FindLogin looks for the login of a registry: in the variables
// CLAYER_OCI_USERNAME and CLAYER_OCI_PASSWORD, else in $REGISTRY_AUTH_FILE, in the file that
// `docker login` writes, $DOCKER_CONFIG/config.json or ~/.docker/config.json, and in those of
// `podman login`. Of a file only what is written there itself is used: the credential helpers
// that it names are programs, and not run.
func FindLogin(ref Repository, getenv func(string) string) (Login, error) {
	user, password := getenv(UserVariable), getenv(PasswordVariable)
	switch {
	case user != "" && password != "":
		return Login{From: "$" + UserVariable, credential: auth.Credential{Username: user, Password: password}}, nil
	case user != "" || password != "":
		return Login{}, fmt.Errorf("$%s and $%s go together: one of them is not set", UserVariable, PasswordVariable)
	}
	var login Login
	for _, path := range loginFiles(getenv) {
		l, err := readLogin(path, ref)
		if login.Helper == "" {
			login.Helper = l.Helper
		}
		if err != nil || l.From != "" {
			l.Helper = login.Helper
			return l, err
		}
	}
	return login, nil
}

// loginFiles returns the files that may have a login, those that the user names first.
func loginFiles(getenv func(string) string) (files []string) {
	home := getenv("HOME")
	add := func(dir string, parts ...string) {
		if dir != "" {
			files = append(files, filepath.Join(append([]string{dir}, parts...)...))
		}
	}
	add(getenv("REGISTRY_AUTH_FILE"))
	if dir := getenv("DOCKER_CONFIG"); dir != "" {
		add(dir, "config.json")
	} else {
		add(home, ".docker", "config.json")
	}
	add(getenv("XDG_RUNTIME_DIR"), "containers", "auth.json")
	add(home, ".config", "containers", "auth.json")
	return files
}

// readLogin looks for a login in a file: of the repository or what it is in, as podman has it, or
// of the registry.
func readLogin(path string, ref Repository) (Login, error) {
	data, err := safefile.Read(path, 4<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return Login{}, nil
	}
	if err != nil {
		return Login{}, fmt.Errorf("logins of registries: %w", err)
	}
	var helpers struct {
		Store string                     `json:"credsStore"`
		Hosts map[string]string          `json:"credHelpers"`
		Auths map[string]json.RawMessage `json:"auths"`
	}
	if err := json.Unmarshal(data, &helpers); err != nil {
		// The parser's error may quote what it stumbled on.
		return Login{}, fmt.Errorf("logins of registries: %s is not the JSON that docker login writes", path)
	}
	address := credentials.ServerAddressFromRegistry(ref.Registry)
	login := Login{Helper: cmp.Or(helpers.Hosts[address], helpers.Store)}
	if login.Helper != "" {
		login.Helper = "docker-credential-" + login.Helper
	}
	store, err := credentials.NewFileStore(path)
	if err != nil {
		return login, fmt.Errorf("logins of registries: %s is not the JSON that docker login writes", path)
	}
	var names []string
	for name := ref.Registry + "/" + ref.Repository; name != "." && name != ref.Registry; name = slash.Dir(name) {
		names = append(names, name)
	}
	for _, name := range append(names, address, ref.Registry) {
		// The store also takes what begins with the name of a host, as old files have it: a login
		// of one repository would be that of all.
		if !slices.ContainsFunc(slices.Collect(maps.Keys(helpers.Auths)), func(k string) bool { return k == name || hostOfURL(k) == name }) {
			continue
		}
		login.credential, err = store.Get(context.Background(), name)
		if err != nil {
			return login, fmt.Errorf("logins of registries: what %s has for %s can't be read: log in again with docker login", path, name)
		}
		if login.credential != auth.EmptyCredential {
			login.From = path
			break
		}
	}
	return login, nil
}

// hostOfURL returns the host that a login is for whose name is a URL, as docker has written
// them; "" for another name.
func hostOfURL(name string) string {
	_, rest, _ := strings.Cut(name, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}
