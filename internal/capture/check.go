package capture

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// pathFields are the fields that are paths, or lists of them. Others are texts.
var pathFields = map[string]bool{"librarySearchPath": true, "configSearchPath": true, "mpsPipeDirectory": true, "path": true, "link": true, "soname": true}

// check returns an error for the first identifier that is left in a capture. It looks at
// the encoded capture, so that no field is forgotten.
func (c *Capture) check(n names) error {
	data, err := c.Encode()
	if err != nil {
		return err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return err
	}
	return n.check(&root, "", "")
}

// check looks at a node of YAML. place is its path, field the name of the field it is in.
func (n names) check(node *yaml.Node, place, field string) error {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(node.Content); i += 2 {
			key, value := node.Content[i], node.Content[i+1]
			in, name := strings.TrimPrefix(place+"."+key.Value, "."), key.Value
			if field == "files" { // the name of a file, not of a field
				in, name = fmt.Sprintf("%s[%q]", place, key.Value), ""
				if n.path(key.Value) != key.Value || len(n.redactor.Left(key.Value)) > 0 {
					return left(in)
				}
			}
			if err := n.check(value, in, name); err != nil {
				return err
			}
		}
	case yaml.ScalarNode:
		replaced := n.text
		if pathFields[field] {
			replaced = n.path
		}
		if replaced(node.Value) != node.Value || pathFields[field] && len(n.redactor.Left(node.Value)) > 0 {
			return left(place)
		}
	default:
		for _, inner := range node.Content {
			if err := n.check(inner, place, field); err != nil {
				return err
			}
		}
	}
	return nil
}

func left(place string) error {
	return fmt.Errorf("%s: this may identify the host and cannot be replaced: nothing is recorded", place)
}
