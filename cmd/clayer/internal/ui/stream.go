package ui

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// unread is how long output waits, after the program was interrupted, for a reader
// that does not read.
const unread = 500 * time.Millisecond

// A stream is stdout or stderr. A write to a pipe that nobody reads would keep the
// program from ending: the system call can't be interrupted.
type stream struct {
	file   *os.File
	turn   chan struct{} // holds one while a write is under way
	giveUp <-chan struct{}
	stuck  atomic.Bool // a write was given up
	cause  func() error
}

// Streams returns what writes to out and err until some time after ctx has ended.
// What is no file waits for nobody, and is returned as it is.
func Streams(ctx context.Context, out, err io.Writer) (io.Writer, io.Writer) {
	giveUp := make(chan struct{})
	context.AfterFunc(ctx, func() { time.AfterFunc(unread, func() { close(giveUp) }) })
	wrap := func(w io.Writer) io.Writer {
		f, ok := w.(*os.File)
		if !ok {
			return w
		}
		return &stream{file: f, turn: make(chan struct{}, 1), giveUp: giveUp, cause: func() error { return context.Cause(ctx) }}
	}
	return wrap(out), wrap(err)
}

// Fd is for who asks whether this is a terminal.
func (s *stream) Fd() uintptr { return s.file.Fd() }

func (s *stream) Write(p []byte) (int, error) {
	giveUp := s.giveUp
	select {
	case <-giveUp:
		if !s.stuck.Load() { // the program took its time to end, and somebody may read
			late := make(chan struct{})
			defer time.AfterFunc(unread, func() { close(late) }).Stop()
			giveUp = late
		}
	default:
	}
	select {
	case s.turn <- struct{}{}:
	case <-giveUp:
		s.stuck.Store(true)
		return 0, s.cause()
	}
	type answer struct {
		n   int
		err error
	}
	wrote := make(chan answer, 1)
	p = bytes.Clone(p) // the write may outlive this call
	go func() {
		n, err := s.file.Write(p)
		<-s.turn
		wrote <- answer{n, err}
	}()
	select {
	case a := <-wrote:
		return a.n, a.err
	case <-giveUp:
		s.stuck.Store(true)
		return 0, s.cause()
	}
}
