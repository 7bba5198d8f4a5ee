// Package userfile decodes the YAML that users write or send: edits and captures. The
// fields have the names that they have in JSON, and unknown ones are errors.
//
// Specs are not decoded here but with go.yaml.in/yaml/v3, as in the CDI library, so that
// cdigen takes a spec for what engines take it for.
package userfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	tree "go.yaml.in/yaml/v3" // has the lines of what sigs.k8s.io/yaml turns into JSON
	"sigs.k8s.io/yaml"

	"github.com/cdigen/cdigen/internal/limits"
)

// Decode decodes a text in YAML, or JSON. An error names the field and, where it can be
// found, the line. An empty text leaves the value as it is.
func Decode(text []byte, value any) error {
	if err := limits.YAML(text); err != nil {
		return err
	}
	var root tree.Node
	switch err := tree.NewDecoder(bytes.NewReader(text)).Decode(&root); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	if expanded(&root, map[*tree.Node]int{}) > limits.MaxBytes {
		return fmt.Errorf("its aliases expand to more than %d MiB", limits.MaxBytes>>20)
	}
	if n := find(&root, ambiguous); n != nil {
		return fmt.Errorf("line %d: put %s in quotes, or write true or false", n.Line, n.Value)
	}
	return explain(yaml.UnmarshalStrict(text, value), &root)
}

// expanded returns about how many bytes of JSON a node becomes, with a copy of what each
// alias leads to.
func expanded(n *tree.Node, known map[*tree.Node]int) int {
	if size, ok := known[n]; ok {
		return size
	}
	size := len(n.Value) + 4 // quotes and what separates values
	known[n] = size          // a node in itself is the parser's to refuse
	for _, inner := range n.Content {
		size = min(size+expanded(inner, known), limits.MaxBytes+1)
	}
	if n.Alias != nil {
		size = expanded(n.Alias, known)
	}
	known[n] = size
	return size
}

// find returns the first node that is as asked for; nil: none is.
func find(n *tree.Node, is func(*tree.Node) bool) *tree.Node {
	if is(n) {
		return n
	}
	for _, inner := range n.Content {
		if found := find(inner, is); found != nil {
			return found
		}
	}
	return nil
}

// ambiguous reports whether a node is a word such as no, which is a boolean in YAML 1.1, and
// would silently become "false" in a list of texts.
func ambiguous(n *tree.Node) bool {
	return n.Kind == tree.ScalarNode && n.Style == 0 && slices.Contains([]string{"yes", "no", "on", "off", "y", "n"}, strings.ToLower(n.Value))
}

// explain returns an error of the library in fewer words, with the line of the field.
func explain(err error, root *tree.Node) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, prefix := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field == "" {
			return fmt.Errorf("line %d: unexpected %s", root.Line, wrong.Value)
		}
		name := wrong.Field[strings.LastIndexByte(wrong.Field, '.')+1:]
		return fmt.Errorf("%sfield %s: unexpected %s", line(root, name), wrong.Field, wrong.Value)
	}
	if name, unknown := strings.CutPrefix(text, `json: unknown field "`); unknown {
		name = strings.TrimSuffix(name, `"`)
		return fmt.Errorf("%sfield %s not found", line(root, name), name)
	}
	return errors.New(text)
}

// line returns "line N: " for the first mapping that has a key.
func line(root *tree.Node, name string) string {
	var key *tree.Node
	find(root, func(n *tree.Node) bool {
		if n.Kind != tree.MappingNode {
			return false
		}
		for i := 0; i < len(n.Content) && key == nil; i += 2 {
			if n.Content[i].Value == name {
				key = n.Content[i]
			}
		}
		return key != nil
	})
	if key == nil {
		return ""
	}
	return fmt.Sprintf("line %d: ", key.Line)
}
