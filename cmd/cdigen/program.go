package main

import (
	"errors"
	"fmt"
)

// version is set by the Makefile.
var version = "devel"

// Exit statuses, documented in the README and in cdigen help generate.
const (
	exitFailed    = 1
	exitUsage     = 2
	exitNoDevices = 3
	exitStrict    = 4
	exitStale     = 5
	exitBroken    = 6
	exitNoCUDA    = 7
)

// exitError is an error with an exit status. Without an error the output has been
// printed, and only the status remains.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// isNoDevices reports whether an error has the status of a host without devices.
func isNoDevices(err error) bool {
	e := (*exitError)(nil)
	return errors.As(err, &e) && e.status == exitNoDevices
}

func usageError(err error) error { return &exitError{exitUsage, err} }
