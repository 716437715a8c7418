package settings

// A key is what a clayer.toml can set.
type key struct {
	name    string
	flag    string // "": of no flag
	project bool   // a project's file can set it
	user    bool   // the user's file can
	unless  string // a flag that contradicts it: where that is given, the file's value does not count
}

// keys are in the order in which they are listed. What a project's file cannot set is what
// would turn a project that somebody else wrote against its user: consent, credentials and
// where they go, and what the cache of other projects is made of.
var keys = []key{
	{name: "layers", project: true},
	{name: "stores", flag: "store", project: true, user: true},
	{name: "repo", flag: "repo", project: true, user: true},
	{name: "offline", flag: "offline", project: true, user: true},
	{name: "no-cache", flag: "no-cache", project: true, user: true, unless: "push"},
	{name: "share-mounts", flag: "share-mounts", project: true, user: true},
	{name: "require-cache", flag: "require-cache", project: true, user: true},
	{name: "compression", flag: "compression", project: true, user: true},
	{name: "jobs", flag: "jobs", project: true, user: true},
	{name: "timeout", flag: "timeout", project: true, user: true},
	{name: "budget", flag: "budget", project: true, user: true},
	{name: "project", flag: "project", project: true, user: true},
	{name: "best-effort", flag: "best-effort", project: true, user: true},
	{name: "finish-in-background", flag: "finish-in-background", project: true, user: true},
	{name: "sandbox", flag: "sandbox", project: true, user: true},
	{name: "compare", flag: "compare", project: true, user: true},
	{name: "hermetic", flag: "hermetic", project: true, user: true, unless: "inherit-env"},
	{name: "base-id", flag: "base-id", project: true, user: true},
	{name: "salt", flag: "salt", project: true, user: true},
	{name: "invalidate-on", flag: "invalidate-on", project: true, user: true},
	{name: "build-arg", flag: "build-arg", project: true, user: true},
	{name: "layer", flag: "probe", project: true},

	{name: "no-sync", flag: "no-sync", project: true, user: true},
	{name: "cache-dir", flag: "cache-dir", user: true},
	{name: "cache-size", flag: "cache-size", user: true},
	{name: "yes", flag: "yes", user: true},
	{name: "profile", flag: "profile", user: true},
	{name: "inherit-env", flag: "inherit-env", user: true, unless: "hermetic"},
	{name: "token", flag: "token", user: true},
	{name: "secret", flag: "secret", user: true},
	{name: "ssh", flag: "ssh", user: true},
	{name: "allow-secret", flag: "allow-secret", user: true},
	{name: "allow-redirect", flag: "allow-redirect", user: true},
}

// reserved are names that no file knows, and of which a project's says why.
var reserved = []string{"trust", "credentials"}

func keyOf(name string) *key {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}
