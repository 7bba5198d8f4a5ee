// Package httpget is the part of HTTP/1.1 that probes, scrapes of metrics and cdigen status
// need: GET and HEAD of a few paths, one request for each connection (RFC 9112). Package
// net/http takes a third of what starting a program in Go takes, in each command.
package httpget

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// The statuses of answers.
const (
	OK                 = "200 OK"
	badRequest         = "400 Bad Request"
	NotFound           = "404 Not Found"
	methodNotAllowed   = "405 Method Not Allowed"
	tooLarge           = "431 Request Header Fields Too Large"
	ServiceUnavailable = "503 Service Unavailable"
)

// Answer is what is at a path.
type Answer struct {
	Status      string
	ContentType string
	Body        []byte
}

// Text is an answer of one line.
func Text(status, line string) Answer {
	return Answer{status, "text/plain; charset=utf-8", []byte(line + "\n")}
}

const (
	// maxRequest bounds a request, in bytes.
	maxRequest = 16 << 10
	// maxConnections are served at a time; others wait.
	maxConnections = 32
	// timeLimit is for a request and its answer.
	timeLimit = 5 * time.Second
)

// Serve answers requests with what is at their path, without a query, until ctx ends.
func Serve(ctx context.Context, listener net.Listener, get func(path string) Answer) error {
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	free := make(chan struct{}, maxConnections)
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // too many open files
			time.Sleep(100 * time.Millisecond)
			continue
		}
		free <- struct{}{}
		go func() {
			defer func() { <-free }()
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(timeLimit))
			serve(conn, get)
		}()
	}
}

// serve answers one request.
func serve(conn io.ReadWriter, get func(path string) Answer) {
	method, path, refused := request(conn)
	if refused == "" && method != "GET" && method != "HEAD" {
		refused = methodNotAllowed
	}
	var a Answer
	if refused != "" {
		a = Text(refused, refused)
	} else {
		a = get(path)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n",
		a.Status, time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), a.ContentType, len(a.Body))
	if refused == methodNotAllowed {
		b.WriteString("Allow: GET, HEAD\r\n")
	}
	b.WriteString("\r\n")
	if method != "HEAD" {
		b.Write(a.Body)
	}
	_, _ = io.WriteString(conn, b.String())
}

// request reads the head of a request. Refused is the status of one that is not answered.
func request(conn io.Reader) (method, path, refused string) {
	limited := &io.LimitedReader{R: conn, N: maxRequest}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxRequest)
	lines.Scan()
	method, rest, _ := strings.Cut(lines.Text(), " ")
	target, version, _ := strings.Cut(rest, " ")
	for lines.Scan() && lines.Text() != "" { // no header matters
	}
	switch {
	case limited.N == 0 || lines.Err() != nil:
		return method, "", tooLarge
	case !strings.HasPrefix(version, "HTTP/1.") || !strings.HasPrefix(target, "/"):
		return method, "", badRequest
	}
	path, _, _ = strings.Cut(target, "?")
	return method, path, ""
}

// Get returns what a server on a unix socket has at a path. The answer is bounded by limit,
// in bytes.
func Get(ctx context.Context, socket, path string, limit int64) ([]byte, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_ = conn.SetDeadline(time.Now().Add(timeLimit))
	// To version 1.0 no server answers in chunks.
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(conn, limit))
	if err != nil {
		return nil, err
	}
	head, body, _ := strings.Cut(string(data), "\r\n\r\n")
	status, _, _ := strings.Cut(head, "\r\n")
	if _, status, _ = strings.Cut(status, " "); status != OK {
		return nil, fmt.Errorf("the answer is %q", status)
	}
	return []byte(body), nil
}
