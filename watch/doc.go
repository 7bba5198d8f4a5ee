// Package watch keeps a published CDI spec true while the machine changes.
//
// Sources ([Source]) notice that something may have changed: kernel uevents,
// inotify on the places that the last generation looked at, a poll of procfs,
// the kernel log, the spec's own directory. The loop ([Loop]) gathers what they
// say and regenerates; a generation, not a source, decides what is true, so a
// source may be wrong about a change but must not be silent about one.
package watch
