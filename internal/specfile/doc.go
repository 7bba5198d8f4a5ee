// Package specfile puts the text of a CDI spec at its place and removes it, in one step and only
// when something changes. Package change does the work; this one says what is in the way of a
// spec and what to do about it.
package specfile
