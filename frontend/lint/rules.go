package lint

// The names of rules to whose findings a program may add a hint of its own.
const (
	SecretRule = "SecretInFile"
	SkipRule   = "SkipUnknown"
	// IgnoredRule is BuildKit's for files that .dockerignore leaves out.
	IgnoredRule = "CopyIgnoredFile"
)

// Rules are all rules, by name. docs/check.md lists them.
var Rules = withBuildChecks([]Rule{
	{"AddNotUnpacked", Warning, "ADD of an archive by its URL stores it as it is, as in Docker: FETCH unpacks it, and so does ADD --unpack=true.", "", addNotUnpacked},
	{"AptListsKept", Note, "The package lists that apt-get update downloads, tens of MB, stay in the snapshot.", "", aptListsLeft},
	{"AptNoUpdate", Warning, "apt-get install without apt-get update in the same RUN finds no packages, or outdated ones, on a fresh machine.", "", aptNoUpdate},
	{"AptNoYes", Warning, "apt-get asks for confirmation, and nobody can answer in a RUN.", "", aptNoYes},
	{"CacheOrder", Warning, "A source that changes comes before a slow RUN: each change runs the RUN again.", "", cacheOrder},
	{"FetchMovingRef", Warning, "FETCH github: without a tag or commit, or oci: without a digest: each push there reruns the step and the steps after it.", "", fetchMovingRef},
	{"FetchNoChecksum", Warning, "FETCH of a URL without --checksum accepts any content, and plan must download it to compute the key.", "", fetchNoChecksum},
	{"NoEffect", Note, "A Dockerfile instruction that has no effect here, although its author expects one.", "", noEffect},
	{"PipUnpinned", Warning, "A Python package without a version: what is installed depends on the day.", "", pipUnpinned},
	{SecretRule, Warning, "A credential in a Containerfile ends up in every clone of it and in snapshots.", "", secretInFile},
	{"ShellStateLost", Warning, "The effect of cd, export and similar commands ends with their RUN.", "", shellStateLost},
	{SkipRule, Warning, "# check= names a rule or an option that does not exist.", "", skipUnknown},
	{"SnapshotRepeats", Note, "SNAPSHOT of a path that is captured anyway.", "", snapshotRepeats},
	{"SyntaxAhead", Note, "# syntax= asks for more than is there: the labs channel, a newer version, or another program that reads the file.", "", syntaxAhead},
	{"StageImage", Warning, "A stage that others copy from begins with an image, which is not there: its steps run on this machine.", "", stageImage},
	{"WritesExcluded", Warning, "A RUN that writes only to excluded paths has an empty snapshot.", "", writesExcluded},
})
