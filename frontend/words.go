package frontend

import (
	"slices"

	"github.com/agext/levenshtein"
)

// ignored are the Dockerfile's words that have no effect here.
var ignored = []string{
	"CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME",
}

// words are all that an instruction may begin with.
var words = slices.Concat(ignored, []string{
	"ADD", "ARG", "COPY", "ENV", "FETCH", "FROM", "RUN", "SHELL", "SNAPSHOT", "WORKDIR",
})

// nearest returns the known word that s may be a slip of, "" for none.
func nearest(s string, known []string) string {
	best, least := "", 1+max(1, len(s)/3)
	for _, k := range known {
		if d := levenshtein.Distance(s, k, nil); d < least {
			best, least = k, d
		}
	}
	return best
}
