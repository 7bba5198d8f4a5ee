// A module of its own keeps the Markdown renderer out of cdigen's dependencies.
module github.com/cdigen/cdigen/internal/site

go 1.26.0

require github.com/yuin/goldmark v1.8.7
