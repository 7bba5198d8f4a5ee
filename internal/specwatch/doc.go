// Package specwatch keeps a published CDI spec up to date while the machine changes.
//
// Sources ([Source]) notice that something may have changed: [Uevents] of the kernel,
// [Files] that the last generation looked up, [Specs] in the directories that engines read,
// [Mounts] over either, [Procfs], which is polled, and the [KernelLog]. The loop ([Loop])
// gathers their events and regenerates. A generation, not a source, determines what the
// host has, so a source may report too much but must not miss a change.
//
// What happens when is decided by pure functions of what the loop knows and the time:
// when the next generation is due by a schedule, and whether its result is published,
// held back or delayed by decide. The loop carries it out, and a [Generator] does the
// work. Limits bound what other users, and storms of changes, can cause.
package specwatch
