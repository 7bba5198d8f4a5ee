// Package ownedits reads the edits that a user adds to a spec, and leaves out what is not trusted
// or with which no container would start.
package ownedits
