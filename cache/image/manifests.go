package image

import (
	"fmt"
	"strings"

	"github.com/clayer/clayer/cache"
)

// Of returns layers that stores have, in the order in which they are
// given, as an image. Its config says nothing: the stores have no values of
// variables.
func Of(ms []cache.Manifest) (Image, error) {
	var img Image
	for i, m := range ms {
		p := cache.OCIPlatform(m.Platform)
		if i > 0 && (p.OS != img.Platform.OS || p.Architecture != img.Platform.Architecture) {
			return img, fmt.Errorf("%s is for %s/%s, and %s for %s/%s", m.Tag(), p.OS, p.Architecture, ms[0].Tag(), img.Platform.OS, img.Platform.Architecture)
		}
		if len(m.LeftOut) > 0 {
			return img, fmt.Errorf("%s: %s is in no store, since it installed nothing where it ran: solve the layer on a machine that lacks what it installs, then export it", m.Tag(), m.LeftOut[0].Text)
		}
		img.Platform, img.Name = p, m.Tag()
		for _, d := range m.Steps {
			word, _, _ := strings.Cut(d.Text, " ")
			img.Steps = append(img.Steps, Step{Descriptor: d, Text: d.Text, AllForRoot: strings.EqualFold(word, "SNAPSHOT")})
		}
	}
	return img, nil
}
