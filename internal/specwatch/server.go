package specwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/httpget"
	"github.com/cdigen/cdigen/internal/promtext"
)

// Health answers /healthz (the loop runs) and /readyz (a true spec is in place) with
// 200 or 503 and a line of text, and /metrics in the text format of Prometheus. A source
// that is down has a stand-in, so /readyz only names it.
func Health(l *Loop, m *Metrics) func(path string) httpget.Answer {
	return func(path string) httpget.Answer {
		switch path {
		case "/healthz":
			if since, hangs := l.Hangs(); hangs {
				return httpget.Text(httpget.ServiceUnavailable, "a generation has been running since "+since.Format(time.RFC3339))
			}
			return httpget.Text(httpget.OK, "ok")
		case "/readyz":
			s := l.State()
			status, parts := httpget.OK, []string{string(s.Condition)}
			if !s.Ready {
				status = httpget.ServiceUnavailable
			}
			for _, name := range s.Down() {
				parts = append(parts, "the source "+name+" is down")
			}
			return httpget.Text(status, strings.Join(parts, "; "))
		case "/metrics":
			return httpget.Answer{Status: httpget.OK, ContentType: promtext.ContentType, Body: m.text()}
		}
		return httpget.Text(httpget.NotFound, "there are /healthz, /readyz and /metrics")
	}
}

const statusPath = "/status"

// Ask answers /status with the [Status] in JSON.
func Ask(status func() Status) func(path string) httpget.Answer {
	return func(path string) httpget.Answer {
		if path != statusPath {
			return httpget.Text(httpget.NotFound, "there is "+statusPath)
		}
		data, err := json.Marshal(status())
		if err != nil {
			panic(err) // it has no value that JSON lacks
		}
		return httpget.Answer{Status: httpget.OK, ContentType: "application/json", Body: append(data, '\n')}
	}
}

// Status is what a running watcher reports.
type Status struct {
	PID     int    `json:"pid"`
	Version string `json:"version"`
	// Spec is the path of the published spec.
	Spec string `json:"spec"`
	State
}

// maxStatus bounds the answer of a watcher, in bytes: a process of another user may have
// the socket.
const maxStatus = 16 << 20

// AskStatus returns the status of the watcher that listens on a unix socket. The error is
// an [fs.ErrNotExist] if none does.
func AskStatus(ctx context.Context, socket string) (*Status, error) {
	data, err := httpget.Get(ctx, socket, statusPath, maxStatus)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("no watcher listens on %s: %w", socket, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the watcher on %s: %w", socket, err)
	}
	var s Status
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("ask the watcher on %s: the answer is not valid JSON: %w", socket, err)
	}
	return &s, nil
}

// Listen listens on "unix:PATH" or "[HOST]:PORT"; without HOST only this machine can
// connect. A socket that no process listens on any more is replaced.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	path, local := strings.CutPrefix(address, "unix:")
	if !local {
		if strings.HasPrefix(address, ":") {
			address = "localhost" + address
		}
		return lc.Listen(ctx, "tcp", address)
	}
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%s: use an absolute path", address)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("%s: the file that is there is not a socket", address)
		}
		// A process that is too busy to answer listens, too.
		switch c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); {
		case err == nil:
			_ = c.Close()
			return nil, fmt.Errorf("%s: another process listens there", address)
		case !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("%s: it is not known whether another process listens there: %w", address, err)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return lc.Listen(ctx, "unix", path)
}
