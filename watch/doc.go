// Package watch keeps a published CDI spec true while the machine changes.
//
// Sources ([Source]) notice that something may have changed: kernel uevents,
// inotify on the places that the last generation looked at, a poll of procfs,
// the kernel log, the spec's own directory. The loop ([Loop]) gathers their events
// and regenerates. A generation, not a source, determines what the host has, so a
// source may report a change that is none but must not miss one.
//
// What happens when is decided by pure functions of what the loop knows and the time:
// when the next generation is due by a schedule, and whether its result is published,
// held back or delayed by decide. The loop carries it out, and a [Generator] does the
// work. Limits bound what other users, and storms of changes, can cause.
package watch
