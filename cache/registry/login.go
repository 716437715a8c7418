package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

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
// CLAYER_OCI_USERNAME and CLAYER_OCI_PASSWORD, else in the file that `docker
// login` writes, $DOCKER_CONFIG/config.json or ~/.docker/config.json. Of the
// file only what is written there itself is used: the credential helpers that
// it names are programs, and not run.
func FindLogin(ref Repository, getenv func(string) string) (Login, error) {
	user, password := getenv(UserVariable), getenv(PasswordVariable)
	switch {
	case user != "" && password != "":
		return Login{From: "$" + UserVariable, credential: auth.Credential{Username: user, Password: password}}, nil
	case user != "" || password != "":
		return Login{}, fmt.Errorf("$%s and $%s go together: one of them is not set", UserVariable, PasswordVariable)
	}
	dir := getenv("DOCKER_CONFIG")
	if dir == "" {
		home := getenv("HOME")
		if home == "" {
			return Login{}, nil
		}
		dir = filepath.Join(home, ".docker")
	}
	path := filepath.Join(dir, "config.json")
	data, err := safefile.Read(path, 4<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return Login{}, nil
	}
	if err != nil {
		return Login{}, fmt.Errorf("logins of registries: %w", err)
	}
	var helpers struct {
		Store string            `json:"credsStore"`
		Hosts map[string]string `json:"credHelpers"`
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
	login.credential, err = store.Get(context.Background(), address)
	if err != nil {
		return login, fmt.Errorf("logins of registries: what %s has for %s can't be read: log in again with docker login", path, address)
	}
	if login.credential != auth.EmptyCredential {
		login.From = path
	}
	return login, nil
}
