package e2e

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/hosttest"
)

const (
	// browserVariable asks for the tests of make e2e-browser where Chromium is not installed.
	browserVariable = "CDIGEN_E2E_BROWSER"
	// picturesVariable is a directory for pictures of the pages, to be looked at.
	picturesVariable = "CDIGEN_E2E_PICTURES"
)

// browser is a headless Chromium with one page, which is asked by the DevTools protocol
// (https://chromedevtools.github.io/devtools-protocol/).
type browser struct {
	t       *testing.T
	in      *os.File
	out     *bufio.Reader
	id      int
	session string
	// Since the last visit: what it has loaded, and its errors.
	requests, errors []string
	loaded           bool
}

// chromium returns the arguments that run Chromium, out of PATH or in a Debian of its own; nil:
// it has not been asked for.
func chromium(t *testing.T) []string {
	t.Helper()
	if work == "" {
		return nil
	}
	for _, name := range []string{"chromium", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return []string{path}
		}
	}
	if os.Getenv(browserVariable) == "" {
		return nil
	}
	requireCommands(t, "debootstrap", "chroot")
	// debootstrap finds no package that is only provided by others, such as dbus-session-bus.
	root, err := debootstrap(debianSuite, "-chromium", "chromium,dbus-x11,fonts-dejavu-core,fonts-wqy-microhei")
	if err != nil {
		missing(t, "no Debian root file system: "+err.Error())
	}
	for _, m := range []struct{ from, to, fs string }{{"/proc", "proc", ""}, {"/dev", "dev", ""}, {"tmpfs", "dev/shm", "tmpfs"}, {"tmpfs", "tmp", "tmpfs"}} {
		flags := uintptr(0)
		if m.fs == "" {
			flags = unix.MS_BIND
		}
		to := filepath.Join(root, m.to)
		if err := mount(m.from, to, m.fs, flags, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { check(t, unix.Unmount(to, unix.MNT_DETACH)) })
	}
	return []string{"chroot", root, "chromium"}
}

// newBrowser starts Chromium; nil: it has not been asked for.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	args := chromium(t)
	if args == nil {
		t.Logf("not run without root and Chromium in PATH or %s=1", browserVariable)
		return nil
	}
	in, toBrowser, err := os.Pipe()
	check(t, err)
	fromBrowser, out, err := os.Pipe()
	check(t, err)
	cmd := exec.Command(args[0], append(args[1:], "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--user-data-dir="+profileDir(t, args),
		"--remote-debugging-pipe", "about:blank")...)
	var log hosttest.Log
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &log, &log, []*os.File{in, out} // 3 and 4
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DBUS_SESSION_BUS_ADDRESS=disabled:")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	check(t, cmd.Start())
	check(t, errors.Join(in.Close(), out.Close()))
	b := &browser{t: t, in: toBrowser, out: bufio.NewReader(fromBrowser)}
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
		check(t, errors.Join(toBrowser.Close(), fromBrowser.Close()))
		if t.Failed() {
			t.Logf("Chromium: %s", lastBytes([]byte(log.String()), 2000))
		}
	})
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Network", "Log"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

// profileDir is where Chromium writes, by its name for Chromium.
func profileDir(t *testing.T, args []string) string {
	if len(args) == 1 {
		return t.TempDir()
	}
	return "/tmp/profile"
}

// message is what Chromium sends: an answer to a call, or an event.
type message struct {
	ID     int
	Method string
	Params json.RawMessage
	Result json.RawMessage
	Error  *struct{ Message string }
}

// receive reads a message, and remembers of an event what the tests ask for.
func (b *browser) receive() *message {
	b.t.Helper()
	text, err := b.out.ReadBytes(0)
	if err != nil {
		b.t.Fatalf("Chromium has ended: %v", err)
	}
	var m message
	check(b.t, json.Unmarshal(text[:len(text)-1], &m))
	var event struct {
		Request          struct{ URL string }
		ExceptionDetails json.RawMessage
		Entry            struct{ Level, Text, URL string }
	}
	switch m.Method {
	case "Network.requestWillBeSent", "Runtime.exceptionThrown", "Log.entryAdded":
		check(b.t, json.Unmarshal(m.Params, &event))
	}
	switch m.Method {
	case "Page.loadEventFired":
		b.loaded = true
	case "Network.requestWillBeSent":
		b.requests = append(b.requests, event.Request.URL)
	case "Runtime.exceptionThrown":
		b.errors = append(b.errors, string(event.ExceptionDetails))
	case "Log.entryAdded":
		if event.Entry.Level == "error" || event.Entry.Level == "warning" {
			b.errors = append(b.errors, event.Entry.Text+" "+event.Entry.URL)
		}
	}
	return &m
}

// call sends a command and waits for its answer.
func (b *browser) call(method string, params, result any) {
	b.t.Helper()
	b.id++
	command := map[string]any{"id": b.id, "method": method}
	if params != nil {
		command["params"] = params
	}
	if b.session != "" {
		command["sessionId"] = b.session
	}
	text, err := json.Marshal(command)
	check(b.t, err)
	_, err = b.in.Write(append(text, 0))
	check(b.t, err)
	for {
		m := b.receive()
		switch {
		case m.ID != b.id:
			continue
		case m.Error != nil:
			b.t.Fatalf("%s: %s", method, m.Error.Message)
		case result != nil:
			check(b.t, json.Unmarshal(m.Result, result))
		}
		return
	}
}

// visit loads a page in a window of a width and waits until it is there.
func (b *browser) visit(address string, width int, scheme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.requests, b.errors, b.loaded = nil, nil, false
	b.call("Page.navigate", map[string]any{"url": address}, nil)
	for !b.loaded {
		b.receive()
	}
}

// evaluate returns the sentences that a script returns.
func (b *browser) evaluate(script string) (list []string) {
	b.t.Helper()
	var answer struct {
		Result           struct{ Value []string }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true}, &answer)
	if answer.ExceptionDetails != nil {
		b.t.Fatalf("%s", answer.ExceptionDetails)
	}
	return answer.Result.Value
}

// picture writes what the page looks like, if that is asked for.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv(picturesVariable)
	if dir == "" {
		return
	}
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &shot)
	data, err := base64.StdEncoding.DecodeString(shot.Data)
	check(b.t, err)
	check(b.t, os.MkdirAll(dir, 0o755))
	check(b.t, os.WriteFile(filepath.Join(dir, name+".png"), data, 0o644))
}

// wrongInAnyPage returns what is wrong with how a page is laid out: something is wider than the
// window or than the box that it is scrolled in, or cannot be told from what is behind it (the
// contrast of WCAG 2, level AA).
const wrongInAnyPage = `(() => {
	const wrong = [], root = document.documentElement
	if (root.scrollWidth > root.clientWidth) wrong.push("the page is " + root.scrollWidth + " wide, the window " + root.clientWidth)
	const name = e => e.tagName + " " + JSON.stringify(e.textContent.trim().slice(0, 60))
	const scrolls = e => e && (getComputedStyle(e).overflowX == "auto" || scrolls(e.parentElement))
	const rgb = c => (c.match(/[\d.]+/g) || []).map(Number)
	const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b }
	const behind = e => {
		for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length && c[3] !== 0) return c }
		return [255, 255, 255]
	}
	const contrast = (a, b) => { const [x, y] = [light(a.slice(0, 3)), light(b.slice(0, 3))]; return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05) }
	for (const e of document.body.querySelectorAll("*")) {
		if (e.closest("title")) continue
		const box = e.getBoundingClientRect()
		if (box.right > root.clientWidth + 1 && !scrolls(e.parentElement)) wrong.push(name(e) + " ends at " + box.right)
		if (e.matches("td, th, p, li, h1, h2, h3, nav a") && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && !scrolls(e)) wrong.push(name(e) + " is wider than its box")
		if (![...e.childNodes].some(n => n.nodeType == Node.TEXT_NODE && n.data.trim())) continue
		const style = getComputedStyle(e), svg = e instanceof SVGElement
		let back = behind(e)
		if (svg) for (const r of e.ownerSVGElement.querySelectorAll("rect")) {
			const [a, t] = [r.getBoundingClientRect(), box]
			if (a.left <= t.left && a.right >= t.right && a.top <= t.top && a.bottom >= t.bottom && getComputedStyle(r).fill != "none") back = rgb(getComputedStyle(r).fill)
		}
		const ratio = contrast(rgb(svg ? style.fill : style.color), back)
		if (ratio < 4.5) wrong.push(name(e) + " has a contrast of " + ratio.toFixed(1))
	}
	return wrong
})()`

// wrongInThePicture returns what is wrong with the picture of the GPUs.
const wrongInThePicture = `(() => {
	const wrong = [], svg = document.querySelector("svg")
	if (!svg) return ["there is no picture"]
	const all = svg.getBoundingClientRect(), rects = [...svg.querySelectorAll("rect")], texts = [...svg.querySelectorAll("text")]
	if (!(all.width > 300 && all.height > 40)) wrong.push("the picture is " + all.width + " x " + all.height)
	const inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1
	const meet = (a, b) => a.left < b.right - 0.5 && b.left < a.right - 0.5 && a.top < b.bottom - 0.5 && b.top < a.bottom - 0.5
	const boxes = new Map([...rects, ...texts].map(e => [e, e.getBoundingClientRect()]))
	for (const e of [...rects, ...texts]) {
		const what = e.tagName + " " + JSON.stringify(e.textContent)
		if (!inside(boxes.get(e), all)) wrong.push(what + " is outside the picture")
		if (e.tagName == "text") {
			if (!(e.getComputedTextLength() > 0)) wrong.push(what + " cannot be seen")
			const size = parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a
			if (size < 9) wrong.push(what + " is " + size.toFixed(1) + " pixels high")
		}
	}
	for (const t of texts) for (const r of rects) {
		if (meet(boxes.get(t), boxes.get(r)) && !inside(boxes.get(t), boxes.get(r))) wrong.push(JSON.stringify(t.textContent) + " leaves the part " + JSON.stringify(r.textContent))
	}
	for (const list of [texts, rects]) list.forEach((a, i) => list.slice(i + 1).forEach(b => {
		if (meet(boxes.get(a), boxes.get(b))) wrong.push(JSON.stringify(a.textContent) + " is on " + JSON.stringify(b.textContent))
	}))
	return wrong
})()`

// looks visits a page in wide and narrow windows and in both color schemes. It may load only
// what allowed says.
func (b *browser) looks(name, address string, allowed func(url string) bool, scripts ...string) {
	b.t.Helper()
	for _, width := range []int{1280, 400} {
		for _, scheme := range []string{"light", "dark"} {
			b.visit(address, width, scheme)
			var wrong []string
			for _, script := range scripts {
				wrong = append(wrong, b.evaluate(script)...)
			}
			for _, url := range b.requests {
				if !allowed(url) {
					wrong = append(wrong, "it loads "+url)
				}
			}
			if wrong = append(wrong, b.errors...); wrong != nil {
				b.t.Errorf("%s, %d pixels wide, %s:\n%s", name, width, scheme, strings.Join(wrong, "\n"))
			}
			b.picture(fmt.Sprintf("%s-%d-%s", name, width, scheme))
		}
	}
}

// The page of cdigen report is whole in wide and narrow windows, light and dark, and loads
// nothing.
func TestReportInABrowser(t *testing.T) {
	b := newBrowser(t)
	if b == nil {
		return
	}
	pages := map[string][]byte{}
	for _, name := range []string{"h100x8", "h100x8-mig7", "a100-mixed-mig", "demo", "lost-gpu", "wide", "no-driver"} {
		pages[name] = reportOf(t, name)
	}
	// This has containers and each state of a device.
	sample, err := os.ReadFile(filepath.Join(repository(), "cmd/cdigen/testdata/report.html"))
	check(t, err)
	pages["sample"] = sample
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write(pages[strings.TrimPrefix(r.URL.Path, "/")])
	}))
	defer server.Close()
	for name := range pages {
		scripts := []string{wrongInAnyPage, wrongInThePicture}
		if name == "no-driver" {
			scripts = scripts[:1]
		}
		address := server.URL + "/" + name
		b.looks(name, address, func(url string) bool { return url == address }, scripts...)
	}
}

// reportOf is the page of a simulated host.
func reportOf(t *testing.T, name string) []byte {
	t.Helper()
	bin, err := build()
	check(t, err)
	nvml, err := fakenvml.Build()
	check(t, err)
	d, dir := hosttest.Load(t, strings.Replace(name, "wide", "demo", 1)), filepath.Join(workDir(t), "host")
	check(t, d.Build(dir, simhost.Options{NVMLLibrary: nvml}))
	if name == "wide" {
		files, err := filepath.Glob(filepath.Join(dir, "proc/driver/nvidia/gpus/*/information"))
		check(t, err)
		names := [...]string{"日本語の長い長い長い名前 H100 漢字 80GB 漢字の名前", "RTX PRO 6000 Blackwell Max-Q Workstation Edition"}
		for i, file := range files {
			edit(t, file, func(text string) string { return strings.Replace(text, "H100 80GB HBM3", names[i%2], 1) })
		}
	}
	cdigen := func(args ...string) error {
		return command(dir, filepath.Join(bin, "cdigen"), append(args, hosttest.Flags(d.DriverRoot(dir), dir)...)...)
	}
	if name != "no-driver" {
		check(t, cdigen("generate"))
		defer func() { check(t, os.Remove("/etc/cdi/nvidia.yaml")) }()
	}
	page := filepath.Join(dir, "page.html")
	check(t, cdigen("report", "--output", page, "--runtime-dir", dir))
	data, err := os.ReadFile(page)
	check(t, err)
	return data
}

// So are the pages of the documentation.
func TestDocumentationInABrowser(t *testing.T) {
	b := newBrowser(t)
	if b == nil {
		return
	}
	site := filepath.Join(workDir(t), "site")
	tree, err := filepath.Abs(repository())
	check(t, err)
	check(t, command(filepath.Join(tree, "internal/site"), "go", "run", ".", tree, site))
	server := httptest.NewServer(http.FileServer(http.Dir(site)))
	defer server.Close()
	for _, pattern := range []string{"*.html", "docs/*.html"} {
		files, err := filepath.Glob(filepath.Join(site, pattern))
		check(t, err)
		for _, file := range files {
			name, err := filepath.Rel(site, file)
			check(t, err)
			b.looks(strings.NewReplacer("/", "-", ".html", "").Replace(name), server.URL+"/"+strings.Replace(name, "index.html", "", 1),
				func(url string) bool { return strings.HasPrefix(url, server.URL+"/") }, wrongInAnyPage)
		}
	}
}
