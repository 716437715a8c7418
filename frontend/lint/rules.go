package lint

// Rules are all rules, by name. docs/check.md lists them.
var Rules = []Rule{
	{"AptListsKept", Note, "The package lists that apt-get update brings, tens of MB, stay in the snapshot.", aptListsKept},
	{"AptNoUpdate", Warning, "apt-get install without apt-get update in the same RUN finds no packages on a fresh machine, or old ones.", aptNoUpdate},
	{"AptNoYes", Warning, "apt-get asks before it installs, and nobody answers in a RUN.", aptNoYes},
	{"CacheOrder", Warning, "A source that moves stands before a RUN that takes long: each of its moves runs that anew.", cacheOrder},
	{"FetchMovingRef", Warning, "FETCH github: without a tag or a commit: each push to the repository makes the step and what follows anew.", fetchMovingRef},
	{"FetchNoChecksum", Warning, "FETCH of a URL without --checksum takes whatever is there, and plan has to download it to know the key.", fetchNoChecksum},
	{"NoEffect", Note, "A Dockerfile instruction that does nothing here, but whose writer expects something.", noEffect},
	{"PipUnpinned", Warning, "A Python package without a version: what is installed depends on the day.", pipUnpinned},
	{secretRule, Warning, "A credential in a Containerfile is in every clone of it, and in snapshots.", secretInFile},
	{"ShellStateLost", Warning, "cd, export and their like end with the RUN that they stand in.", shellStateLost},
	{"SkipUnknown", Warning, "check=skip= names a rule that doesn't exist.", skipUnknown},
	{"SnapshotRepeats", Note, "SNAPSHOT of what is captured without it.", snapshotRepeats},
	{"UndefinedVar", Warning, "A variable that no ARG or ENV before the line sets.", undefinedVar},
	{"WritesExcluded", Warning, "A RUN that writes only where nothing is captured leaves an empty snapshot.", writesExcluded},
}
