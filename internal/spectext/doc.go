// Package spectext writes, reads and checks the text of CDI specs, YAML or JSON.
//
// [Encode] writes a spec in bytes that depend on nothing but the spec, and faster than a YAML
// library, which it falls back to. [Parse] reads it with the CDI library, whose validation is the
// judge of every spec; a [Text] was checked by it.
package spectext
