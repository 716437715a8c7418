package image

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/image-spec/specs-go/v1"
)

// PlatformLabel is the label of an image that is the root of a machine: its platform, as
// keys have it.
const PlatformLabel = "dev.clayer.platform"

// ErrNoBase says that an image is not the root of a machine.
var ErrNoBase = errors.New("it is no base that clayer has exported: it has no label " + PlatformLabel)

// PlatformOf returns the platform of the machine whose root a layout holds: DIR, or DIR:TAG.
func PlatformOf(name string) (string, error) {
	b, err := openBase(name, specs.Platform{})
	if err != nil {
		return "", fmt.Errorf("base %s: %w", name, err)
	}
	if b.config.Config.Labels[PlatformLabel] == "" {
		return "", fmt.Errorf("base %s: %w", name, ErrNoBase)
	}
	return b.config.Config.Labels[PlatformLabel], nil
}
