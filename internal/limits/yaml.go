package limits

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// maxKeysYAML limits the keys of a mapping: the library compares each with every other,
// again for each alias.
const maxKeysYAML = 1 << 13

// YAML returns an [*Error] for a text in YAML or JSON that is too large or has too many
// values or keys, and for a mapping that has a key twice, which the library would report
// once for each pair. Invalid YAML is left to the parser. The library itself limits the
// depth and the expansion of aliases.
func YAML(text []byte) error {
	if err := size(text); err != nil {
		return err
	}
	s := scan{text: text, limit: maxValues}
	for i, c := range text {
		// One of these is between two values; "a":1, which needs no space, is in braces or
		// after a comma.
		separates := false
		switch c {
		case '[', '{', ',', '\n', '\r':
			separates = true
		case '-', ':', '?':
			separates = i+1 == len(text) || bytes.IndexByte([]byte(" \t\r\n"), text[i+1]) >= 0
		}
		if separates {
			if err := s.value(i); err != nil {
				return err
			}
		}
	}
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var document yaml.Node
		switch err := d.Decode(&document); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return nil //nolint:nilerr // the parser has the better error
		}
		if err := keys(&document); err != nil {
			return err
		}
	}
}

// keys checks the keys of all mappings below a node.
func keys(n *yaml.Node) error {
	for nodes := []*yaml.Node{n}; len(nodes) > 0; {
		n := nodes[len(nodes)-1]
		nodes = append(nodes[:len(nodes)-1], n.Content...)
		if n.Kind != yaml.MappingNode {
			continue
		}
		if len(n.Content)/2 > maxKeysYAML {
			return &Error{Message: fmt.Sprintf("line %d: it has more than %d keys", n.Line, maxKeysYAML)}
		}
		type id struct {
			kind  yaml.Kind
			value string
		}
		seen := map[id]int{} // lines, by what the library compares
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if line, twice := seen[id{key.Kind, key.Value}]; twice {
				return &Error{Message: fmt.Sprintf("line %d: mapping key %q already defined at line %d", key.Line, key.Value, line)}
			}
			seen[id{key.Kind, key.Value}] = key.Line
		}
	}
	return nil
}
