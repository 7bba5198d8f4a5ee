// Command site renders the documentation as a web site and checks its links:
//
//	go -C internal/site run . REPOSITORY OUTPUT
//
// The pages are README.md, docs/*.md and the other Markdown files beside README.md, which
// stay readable where they are. docs/README.md is the navigation. Every link to a file of the
// repository, and to a heading of a page, must lead somewhere; headings have the anchors that
// GitHub gives them. Links to other sites are not followed.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	renderer "github.com/yuin/goldmark/renderer/html"
	"github.com/yuin/goldmark/text"
)

// source is where files that are not part of the site are shown.
const source = "https://github.com/cdigen/cdigen/blob/main/"

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: site REPOSITORY OUTPUT")
		os.Exit(2)
	}
	if err := build(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "site:", err)
		os.Exit(1)
	}
}

// page is a Markdown file.
type page struct {
	name    string // in the repository, with slashes
	title   string
	source  []byte
	tree    ast.Node
	anchors map[string]bool
}

// site is all pages by name.
type site struct {
	root  string
	pages map[string]*page
	md    goldmark.Markdown
}

// build renders the pages of a repository.
func build(root, output string) error {
	s, err := read(root)
	if err != nil {
		return err
	}
	var errs []error
	var names []string
	for name := range s.pages {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		errs = append(errs, s.resolve(s.pages[name]))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.RemoveAll(output); err != nil {
		return err
	}
	for _, name := range names {
		data, err := s.render(s.pages[name])
		if err == nil {
			err = write(filepath.Join(output, filepath.FromSlash(target(name))), data)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	pictures, err := filepath.Glob(filepath.Join(root, "docs", "*.svg"))
	for _, picture := range pictures {
		var data []byte
		if data, err = os.ReadFile(picture); err == nil {
			err = write(filepath.Join(output, "docs", filepath.Base(picture)), data)
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		fmt.Printf("%d pages in %s, all links lead somewhere\n", len(names), output)
	}
	return err
}

func write(file string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // public
		return err
	}
	return os.WriteFile(file, data, 0o644) //nolint:gosec // public
}

// target is the file of a page on the site.
func target(name string) string {
	if path.Base(name) == "README.md" {
		return path.Join(path.Dir(name), "index.html")
	}
	return strings.TrimSuffix(name, ".md") + ".html"
}

// read parses all pages.
func read(root string) (*site, error) {
	s := &site{root: root, pages: map[string]*page{}, md: goldmark.New(
		goldmark.WithExtensions(extension.GFM), goldmark.WithParserOptions(parser.WithAutoHeadingID()),
		goldmark.WithRendererOptions(renderer.WithUnsafe()))}
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			name, err := filepath.Rel(root, file)
			if err != nil {
				return nil, err
			}
			p := &page{name: filepath.ToSlash(name), source: data, anchors: map[string]bool{}}
			p.tree = s.md.Parser().Parse(text.NewReader(data), parser.WithContext(parser.NewContext(parser.WithIDs(&ids{p.anchors}))))
			p.title = title(p)
			s.pages[p.name] = p
		}
	}
	if len(s.pages) == 0 {
		return nil, errors.New("there are no pages")
	}
	return s, nil
}

// title is the first heading of a page.
func title(p *page) (found string) {
	found = p.name
	_ = ast.Walk(p.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if h, ok := n.(*ast.Heading); ok && entering {
			found = plain(h, p.source)
			return ast.WalkStop, nil
		}
		return ast.WalkContinue, nil
	})
	return found
}

// plain is the text in a node.
func plain(n ast.Node, source []byte) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := n.(*ast.Text); ok && entering {
			b.Write(t.Segment.Value(source))
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// ids gives headings the anchors of GitHub.
type ids struct{ used map[string]bool }

func (i *ids) Generate(value []byte, _ ast.NodeKind) []byte {
	anchor := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-', r == '_', unicode.IsLetter(r), unicode.IsNumber(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(string(value)))
	id := anchor
	for n := 1; i.used[id]; n++ {
		id = fmt.Sprintf("%s-%d", anchor, n)
	}
	i.used[id] = true
	return []byte(id)
}

func (i *ids) Put(value []byte) { i.used[string(value)] = true }

// resolve checks the links of a page and makes them those of the site, which loads no pictures
// from elsewhere: their texts stand for them.
func (s *site) resolve(p *page) error {
	var errs []error
	var foreign []*ast.Image
	err := ast.Walk(p.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		var destination *[]byte
		switch n := n.(type) {
		case *ast.Link:
			destination = &n.Destination
		case *ast.Image:
			destination = &n.Destination
		}
		if destination == nil || !entering {
			return ast.WalkContinue, nil
		}
		link, err := s.link(p, string(*destination))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", p.name, *destination, err))
		}
		*destination = []byte(link)
		if image, ok := n.(*ast.Image); ok && strings.Contains(link, "://") {
			foreign = append(foreign, image)
		}
		return ast.WalkContinue, nil
	})
	for _, image := range foreign {
		image.Parent().ReplaceChild(image.Parent(), image, image.FirstChild())
	}
	return errors.Join(append(errs, err)...)
}

// link returns a link of a page as it is on the site.
func (s *site) link(p *page, destination string) (string, error) {
	u, err := url.Parse(destination)
	switch {
	case err != nil:
		return "", err
	case u.Scheme != "":
		return destination, nil
	case u.Path == "" && !p.anchors[u.Fragment]:
		return "", errors.New("the page has no such heading")
	case u.Path == "":
		return destination, nil
	}
	name := path.Join(path.Dir(p.name), u.Path)
	if to := s.pages[name]; to != nil {
		if u.Fragment != "" && !to.anchors[u.Fragment] {
			return "", fmt.Errorf("%s has no such heading", name)
		}
		u.Path = relative(p.name, target(name))
		return u.String(), nil
	}
	if _, err := os.Stat(filepath.Join(s.root, filepath.FromSlash(name))); errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("there is no such file")
	} else if err != nil {
		return "", err
	}
	if path.Ext(name) == ".svg" {
		return relative(p.name, name), nil
	}
	return source + name, nil
}

// relative is the path of a file of the site from a page.
func relative(from, to string) string {
	up := strings.Repeat("../", strings.Count(from, "/"))
	if dir := path.Dir(from); dir != "." && strings.HasPrefix(to, dir+"/") {
		return strings.TrimPrefix(to, dir+"/")
	}
	return up + to
}

// index is the page that is the navigation.
const index = "docs/README.md"

// navigation has the headings and links of the index.
func (s *site) navigation(current *page) string {
	p := s.pages[index]
	if p == nil {
		return ""
	}
	var b strings.Builder
	done := map[string]bool{"index.html": true} // which is the first link
	_ = ast.Walk(p.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n := n.(type) {
		case *ast.Heading:
			if entering && n.Level == 2 {
				fmt.Fprintf(&b, "<h2>%s</h2>\n", html.EscapeString(plain(n, p.source)))
			}
		case *ast.Link:
			// The tree has been resolved: it is a link of the site, from docs/.
			to := path.Join("docs", string(n.Destination))
			file, _, anchor := strings.Cut(to, "#")
			if !entering || anchor || strings.Contains(string(n.Destination), "://") || done[file] {
				break
			}
			done[file] = true
			class := ""
			if file == target(current.name) {
				class = " class=\"here\""
			}
			fmt.Fprintf(&b, "<a%s href=%q>%s</a>\n", class, relative(current.name, file), html.EscapeString(s.titleOf(file)))
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// titleOf is the title of the page that is a file of the site.
func (s *site) titleOf(file string) string {
	for _, p := range s.pages {
		if target(p.name) == file {
			return p.title
		}
	}
	return file
}

func (s *site) render(p *page) ([]byte, error) {
	var body bytes.Buffer
	if err := s.md.Renderer().Render(&body, p.source, p.tree); err != nil {
		return nil, err
	}
	home := relative(p.name, "index.html")
	var b bytes.Buffer
	fmt.Fprintf(&b, `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%s - cdigen</title>
<style>
%s</style>
</head>
<body>
<nav>
<a class="home" href=%q>cdigen</a>
<a href=%q>Documentation</a>
%s</nav>
<main>
%s</main>
</body>
</html>
`, html.EscapeString(p.title), style, home, relative(p.name, target(index)), s.navigation(p),
		strings.NewReplacer("<table>", "<div class=\"wide\"><table>", "</table>", "</table></div>").Replace(words(body.String())))
	return b.Bytes(), nil
}

var (
	code = regexp.MustCompile(`(?:<pre>)?<code>[^<]*</code>`)
	word = regexp.MustCompile(`[^\s<>]+`)
)

// words keeps browsers from breaking a flag or another word of code at its hyphens. A long word may
// be broken there, and behind slashes and underscores.
func words(body string) string {
	return code.ReplaceAllStringFunc(body, func(span string) string {
		text, inline := strings.CutPrefix(span, "<code>")
		if !inline {
			return span // a block, which keeps its lines
		}
		return "<code>" + word.ReplaceAllStringFunc(strings.TrimSuffix(text, "</code>"), func(word string) string {
			switch long := utf8.RuneCountInString(word) > 30; {
			case long:
				return strings.NewReplacer("_", "_<wbr>", "/", "/<wbr>").Replace(word)
			case strings.Contains(word, "-"):
				return "<span>" + word + "</span>"
			}
			return word
		}) + "</code>"
	})
}

const style = `:root { color-scheme: light dark; --text: #1f2328; --back: #fff; --soft: #f6f8fa; --line: #d1d9e0; --link: #0969da }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --back: #0d1117; --soft: #161b22; --line: #30363d; --link: #4493f8 } }
* { box-sizing: border-box }
body { margin: 0; display: flex; font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back) }
nav { flex: 0 0 16rem; padding: 1.5rem 1rem; background: var(--soft); border-right: 1px solid var(--line); position: sticky; top: 0; height: 100vh; overflow-y: auto; font-size: 0.9rem }
nav a { display: block; padding: 0.1rem 0.5rem; color: var(--text); border-radius: 4px }
nav a.home { font-size: 1.3rem; font-weight: bold }
nav a.here { background: var(--line) }
nav h2 { font-size: 0.75rem; text-transform: uppercase; letter-spacing: 0.04em; margin: 1.2rem 0.5rem 0.2rem; opacity: 0.7 }
main { flex: 1 1 auto; min-width: 0; max-width: 60rem; padding: 1.5rem 2rem; overflow-wrap: break-word }
a { color: var(--link); text-decoration: none }
a:hover { text-decoration: underline }
h1, h2 { border-bottom: 1px solid var(--line); padding-bottom: 0.2rem }
code { font: 0.85em ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; background: var(--soft); padding: 0.1em 0.3em; border-radius: 4px }
pre { background: var(--soft); padding: 0.8rem; overflow-x: auto; border-radius: 6px }
code span { white-space: nowrap }
pre code { background: none; padding: 0 }
.wide { overflow-x: auto; overflow-wrap: normal }
table { border-collapse: collapse; font-size: 0.92rem }
th, td { border: 1px solid var(--line); padding: 0.3rem 0.6rem; text-align: left; vertical-align: top }
th { background: var(--soft) }
main img { max-width: 100% }
@media (max-width: 50rem) { body { flex-direction: column } nav { order: 1; flex: none; position: static; height: auto; border: 0 } main { padding: 1rem } }
`
