//go:build !linux

package sandbox

import (
	"fmt"
	"os"
)

// NewOverlay returns an error that wraps ErrUnavailable on this system.
func NewOverlay(Options) (Sandbox, error) {
	return nil, fmt.Errorf("overlay %w: it needs Linux", ErrUnavailable)
}

// NewInPlace returns an error that wraps ErrUnavailable on this system.
func NewInPlace(Options) (Sandbox, error) {
	return nil, fmt.Errorf("inplace %w: it needs Linux", ErrUnavailable)
}

// Check returns an error that wraps ErrUnavailable on this system.
func Check(string, Options) (name, how, why string, err error) {
	_, err = NewInPlace(Options{})
	return "", "", "", err
}

// RemoveAll is os.RemoveAll on this system.
func RemoveAll(dir string) error { return os.RemoveAll(dir) }

// A Finding is something that decides how RUN is run here.
type Finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"` // what would change it
}

// Diagnose tells that nothing is to be had on this system.
func Diagnose(Options, string) []Finding {
	_, err := NewInPlace(Options{})
	return []Finding{{"sandbox", false, err.Error(), "Linux"}}
}
