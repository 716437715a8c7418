//go:build !linux

package testexec

// released does nothing: a program that is written can be executed at once here.
func released(string) error { return nil }
