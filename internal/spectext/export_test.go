package spectext

// YAMLOf is for tests of what needs the YAML library.
var YAMLOf = yamlOf
