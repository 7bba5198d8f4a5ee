package httpget

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func answers(path string) Answer {
	if path == "/x" {
		return Answer{OK, "application/json", []byte(`{"a": 1}`)}
	}
	return Text(NotFound, "there is /x")
}

// start serves on a socket and returns its path.
func start(t *testing.T, get func(string) Answer) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, listener, get) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return socket
}

// client is the standard library's for a socket.
func client(socket string) *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
}

func TestClientsOfTheStandardLibraryAreAnswered(t *testing.T) {
	c := client(start(t, answers))
	for _, want := range []struct {
		method, path, contentType, body string
		status                          int
	}{
		{"GET", "/x", "application/json", `{"a": 1}`, 200},
		{"GET", "/x?y=z", "application/json", `{"a": 1}`, 200},
		{"HEAD", "/x", "application/json", "", 200},
		{"GET", "/", "text/plain; charset=utf-8", "there is /x\n", 404},
		{"POST", "/x", "text/plain; charset=utf-8", "405 Method Not Allowed\n", 405},
	} {
		request, err := http.NewRequest(want.method, "http://cdigen"+want.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept-Encoding", "gzip")
		response, err := c.Do(request)
		if err != nil {
			t.Errorf("%s %s: %v", want.method, want.path, err)
			continue
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != want.status || string(body) != want.body || response.Header.Get("Content-Type") != want.contentType {
			t.Errorf("%s %s: %d %q, %q, %v", want.method, want.path, response.StatusCode, body, response.Header.Get("Content-Type"), err)
		}
		if date, err := http.ParseTime(response.Header.Get("Date")); err != nil || time.Since(date).Abs() > time.Hour {
			t.Errorf("Date: %v, %v", date, err)
		}
		if allow := response.Header.Get("Allow"); (want.status == 405) != (allow == "GET, HEAD") {
			t.Errorf("%s %s: Allow: %q", want.method, want.path, allow)
		}
	}
}

func TestGetReadsWhatServersAnswer(t *testing.T) {
	socket := start(t, answers)
	if data, err := Get(t.Context(), socket, "/x", 1000); err != nil || string(data) != `{"a": 1}` {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := Get(t.Context(), socket, "/y", 1000); err == nil || !strings.Contains(err.Error(), NotFound) {
		t.Errorf("%q, %v; want %s", data, err, NotFound)
	}
	// One of net/http would answer so much in chunks to a request of version 1.1.
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 100_000)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, long) }))
	server.Listener = listener
	server.Start()
	defer server.Close()
	if data, err := Get(t.Context(), listener.Addr().String(), "/x", 1<<20); err != nil || string(data) != long {
		t.Errorf("%d bytes, %v; want %d", len(data), err, len(long))
	}
	if data, err := Get(t.Context(), listener.Addr().String(), "/x", 1000); err != nil || len(data) > 1000 {
		t.Errorf("%d bytes, %v; want at most 1000", len(data), err)
	}
}

// connection is a request, and the answer to it.
type connection struct {
	io.Reader
	answer bytes.Buffer
}

func (c *connection) Write(p []byte) (int, error) { return c.answer.Write(p) }

func TestOtherRequestsAreRefused(t *testing.T) {
	for request, want := range map[string]string{
		"": badRequest, "\r\n\r\n": badRequest, "GET\r\n\r\n": badRequest, "GET /x\r\n\r\n": badRequest, "GET x HTTP/1.1\r\n\r\n": badRequest,
		"GET /x HTTP/2.0\r\n\r\n": badRequest, "\x16\x03\x01\x02\x00\x01": badRequest,
		"GET /" + strings.Repeat("x", 20_000) + " HTTP/1.1\r\n\r\n":            tooLarge,
		"GET /x HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 5000) + "\r\n":      tooLarge,
		"DELETE /x HTTP/1.1\r\n\r\n":                                           methodNotAllowed,
		"GET /x HTTP/1.0\n\n":                                                  OK,
		"GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n": OK,
	} {
		c := &connection{Reader: strings.NewReader(request)}
		serve(c, answers)
		if got := c.answer.String(); !strings.HasPrefix(got, "HTTP/1.1 "+want+"\r\n") || strings.Count(got, "HTTP/1.1 ") != 1 {
			t.Errorf("%.60q: %q; want %s", request, got, want)
		}
	}
}

// Connections that ask for nothing keep no other from being answered for long.
func TestManyIdleConnectionsAreBounded(t *testing.T) {
	socket := start(t, answers)
	for range maxConnections {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	response, err := client(socket).Get("http://cdigen/x")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %d", response.StatusCode)
	}
}

// The standard library's client can read the answer to any request, and there is one.
func FuzzServe(f *testing.F) {
	f.Add("GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
	f.Add("HEAD /\r\n\r\n")
	f.Add("HEAD\n")
	f.Add("\x00 / HTTP/1.\n")
	f.Fuzz(func(t *testing.T, request string) {
		c := &connection{Reader: strings.NewReader(request)}
		serve(c, answers)
		line, _, _ := strings.Cut(request, "\n")
		method, _, _ := strings.Cut(strings.TrimSuffix(line, "\r"), " ")
		r := &http.Request{Method: "GET"}
		if method == "HEAD" {
			r.Method = "HEAD"
		}
		response, err := http.ReadResponse(bufio.NewReader(&c.answer), r)
		if err != nil {
			t.Fatalf("%v in %q", err, c.answer.String())
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || r.Method == "GET" && strconv.Itoa(len(body)) != response.Header.Get("Content-Length") {
			t.Errorf("%q, %v", body, err)
		}
	})
}
