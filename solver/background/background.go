// Package background is work that goes on when the command that began it has ended: one job
// at a time for each root, in a session of its own and at a low priority. The job has a lock
// as long as it runs, which the kernel ends with it.
package background

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/safefile"
)

// A Job is a command of this program.
type Job struct {
	Args []string  `json:"args"` // without the program
	Dir  string    `json:"dir"`
	Env  []string  `json:"env"` // beside the environment of who runs it
	PID  int       `json:"pid"`
	At   time.Time `json:"at"` // when it began
}

// A Place is where the job of a root is noted, in a cache directory.
type Place struct{ Cache, Root string }

// nice is the priority of a job, below that of the session.
const nice = 10

const maxJob = 1 << 20

func (p Place) name(suffix string) string {
	return fmt.Sprintf("%x%s", sha256.Sum256([]byte(p.Root)), suffix)
}

func (p Place) dir() string { return filepath.Join(p.Cache, "background") }

// Log is the file that gets what the job prints.
func (p Place) Log() string { return filepath.Join(p.dir(), p.name(".log")) }

// Start starts a job with env, unless one of the root runs: then it returns false. The job
// does not end with this process, nor with its session.
func (p Place) Start(j Job, env ...string) (started bool, err error) {
	dir, err := safefile.MakeDir(p.dir(), 0o700)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	lock, err := safefile.TryLock(dir, p.name(".lock"), unix.LOCK_EX)
	if errors.Is(err, safefile.ErrLocked) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer lock.Close() // the job has it too
	log, err := safefile.OpenFile(dir, p.name(".log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return false, err
	}
	defer log.Close()
	exe, err := os.Executable()
	if err != nil {
		return false, err
	}
	cmd := exec.Command(exe, j.Args...)
	cmd.Dir, cmd.Env = j.Dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	j.At = time.Now().UTC()
	data, err := json.Marshal(j) // before it starts: a full disk has no space for it
	if err == nil {
		err = safefile.WriteFile(dir, p.name(".json"), "job-", data)
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return false, err
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, cmd.Process.Pid, nice)
	j.PID = cmd.Process.Pid
	if data, err = json.Marshal(j); err == nil {
		_ = safefile.WriteFile(dir, p.name(".json"), "job-", data) // it is named without its number then
	}
	return true, cmd.Process.Release()
}

// Find returns the job of the root that was started last, and whether it runs; nil for none.
func (p Place) Find() (j *Job, runs bool) {
	dir, err := safefile.OpenDir(p.dir())
	if err != nil {
		return nil, false
	}
	defer dir.Close()
	data, err := safefile.ReadFile(dir, p.name(".json"), maxJob)
	if err != nil {
		return nil, false
	}
	j = new(Job)
	if json.Unmarshal(data, j) != nil {
		return nil, false
	}
	lock, err := safefile.TryLock(dir, p.name(".lock"), unix.LOCK_SH)
	if err == nil {
		lock.Close()
	}
	return j, errors.Is(err, safefile.ErrLocked)
}

// Wait waits until no job of the root runs, and returns the one that was started last; nil
// for none.
func (p Place) Wait(ctx context.Context) (*Job, error) {
	dir, err := safefile.OpenDir(p.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	lock, err := safefile.Lock(ctx, dir, p.name(".lock"), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	j, _ := p.Find() // two that wait do not see each other: both locks are shared
	return j, lock.Close()
}

// Forget forgets the job of the root that was started last.
func (p Place) Forget() error {
	err := os.Remove(filepath.Join(p.dir(), p.name(".json")))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
