package spec

// YAMLOf is for tests of what needs the YAML library.
var YAMLOf = yamlOf

// Unchecked is for tests of how texts are written, which may be of anything.
func Unchecked(data []byte) Text { return Text{data} }
