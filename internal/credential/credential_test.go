package credential

import "testing"

func TestCredentials(t *testing.T) {
	for name, want := range map[string]bool{
		"GH_TOKEN": true, "AWS_SECRET_ACCESS_KEY": true, "CLIENT_SECRET": true, "AZURE_PAT": true,
		"PGPASSWORD": true, "UV_INDEX_X_PASSWORD": true, "PASSPHRASE": true, "npm_config__password": true,
		"PATH": false, "TOKEN_COUNT": false, "AWS_ACCESS_KEY_ID": false, "KEYBOARD": false, "PATTERN": false,
	} {
		if got := IsName(name); got != want {
			t.Errorf("IsName(%s) = %t", name, got)
		}
	}
	for value, want := range map[string]bool{
		"https://me:secret@example.com/simple":        true,
		"https://token@example.com":                   true,
		"https://a.example/ https://u:p@b.example/":   true,
		"postgres://u:p@db/x":                         true,
		"https://example.com/a@b":                     false,
		"https://example.com/?mail=me@example.com":    false,
		"me@example.com":                              false,
		"":                                            false,
		"git@github.com:o/r.git https://example.com/": false,
	} {
		if got := IsValue(value); got != want {
			t.Errorf("IsValue(%s) = %t", value, got)
		}
	}
}
