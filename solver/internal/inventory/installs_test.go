package inventory

import (
	"testing"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
)

func graphOf(t *testing.T, text string) *dag.Graph {
	t.Helper()
	f, err := frontend.Parse("Containerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	g, err := dag.Build([]*frontend.File{f}, dag.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestInstalls(t *testing.T) {
	for _, tt := range []struct {
		name, text string // the last line counts
		want       bool
	}{
		{"a package manager", "RUN pip install numpy", true},
		{"in exec form", `RUN ["apt-get", "install", "-y", "jq"]`, true},
		{"behind others", "RUN set -e; apt-get update && apt-get install -y jq && rm -rf /var/lib/apt/lists/*", true},
		{"what may not come to run", "RUN command -v jq || apt-get install -y jq", true},
		{"in an if", "RUN if true; then npm install -g typescript; fi", true},
		{"a variable for the package", "ARG P=jq\nRUN apt-get install -y $P", true},
		{"by sudo", "RUN sudo -E pip install numpy", true},
		{"in a heredoc", "RUN <<EOF\napt-get update\napt-get install -y jq\nEOF", true},
		{"a script of its own", "RUN <<EOF\n#!/bin/bash\nuv pip install numpy\nEOF", true},
		{"a list of requirements", "RUN pip install -r requirements.txt", true},
		{"no install", "RUN apt-get update", false},
		{"words", "RUN echo pip install numpy", false},
		{"another program", "RUN make install", false},
		{"another language", "RUN <<EOF\n#!/usr/bin/python3\nprint('pip install numpy')\nEOF", false},
		{"no RUN", "WORKDIR /pip", false},
		{"named before", "RUN pip install numpy==2\nRUN pip3 install Numpy", false},
		{"one of two named before", "RUN pip install numpy\nRUN pip install numpy pandas", true},
		{"named before for another manager", "RUN apt-get install -y jq\nRUN npm install -g jq", true},
		{"requirements before do not name it", "RUN pip install -r requirements.txt\nRUN pip install numpy", true},
	} {
		steps := graphOf(t, tt.text).Steps()
		if got := Installs(steps[len(steps)-1]); got != tt.want {
			t.Errorf("%s: installs = %t", tt.name, got)
		}
	}
}
