package hook

import (
	_ "embed"
	"strings"
)

//go:embed prebuild.sh
var prebuildScript string

// prebuild is a workflow of GitHub Actions that builds the layers for all machines with a base.
var prebuild = &host{name: "github", at: ".github/clayer-prebuild.sh", strict: true, files: forPrebuild, template: prebuildScript}

// workflow is what runs the script. A run that has begun ends, and one more waits for it.
const workflow = `# Builds the layers on the base of the agents, and stores them. Written by "clayer init github --prebuild".
name: clayer prebuild
on:
  push:
    branches: [main, master]
  schedule:
    - cron: "23 4 * * *"
  workflow_dispatch:
concurrency: clayer-prebuild
permissions:
  contents: write
  packages: read
jobs:
  prebuild:
    runs-on: ubuntu-latest
    timeout-minutes: 120
    steps:
      - uses: actions/checkout@v5
`

// login is for a base in GitHub's own registry, which may be private.
const login = `      - name: log in to the registry of the base
        run: echo "$GH_TOKEN" | sudo buildah login --username "$GITHUB_ACTOR" --password-stdin ghcr.io
        env:
          GH_TOKEN: ${{ github.token }}
`

func forPrebuild(h *host, o Options) []File {
	text := workflow
	if strings.HasPrefix(o.Base, "docker://ghcr.io/") {
		text += login
	}
	text += `      - name: build and push
        run: sudo --preserve-env sh ` + h.at + `
        env:
          GH_TOKEN: ${{ github.token }}
`
	return []File{{Path: ".github/workflows/clayer-prebuild.yml", Text: []byte(text), Mode: 0o644}}
}
