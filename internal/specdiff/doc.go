// Package specdiff compares two CDI specs part by part, so that a change can be told in words:
// [Diff] returns the changes, [WithoutDriver] those that do not follow from another version of the
// driver alone.
package specdiff
