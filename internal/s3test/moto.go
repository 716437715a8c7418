package s3test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"go/build"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// listens is where moto says that it does.
var listens = regexp.MustCompile(`Running on (http://127\.0\.0\.1:\d+)`)

// NewMoto starts moto, a service with buckets by other authors than versitygw's, which ends
// with the test. It takes whatever credentials there are. The test is skipped where it is not
// installed: .ci/long does that.
func NewMoto(t testing.TB) (url string) {
	t.Helper()
	path, err := exec.LookPath("moto_server")
	if err != nil {
		path = filepath.Join(build.Default.GOPATH, "clayer-tools", "moto", "bin", "moto_server")
		if _, err := os.Stat(path); err != nil {
			t.Skip("moto is not installed; .ci/long does that")
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, "-H", "127.0.0.1", "-p", "0")
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); { // to its end: it says a line for each request
			if m := listens.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case said <- m[1]:
				default: // once is enough
				}
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = cmd.Wait() // it was killed
	})
	select {
	case url := <-said:
		return url
	case <-ended:
		t.Fatal("moto ended at once")
	case <-time.After(2 * time.Minute):
		t.Fatal("moto does not listen")
	}
	panic("not reached")
}

// MakeBucket makes a bucket of a service that takes any credentials.
func MakeBucket(ctx context.Context, url, name string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url+"/"+name, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(fmt.Sprint("make a bucket: ", resp.Status))
	}
	return nil
}
