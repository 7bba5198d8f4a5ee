package inject

import (
	"fmt"
	"os"
	"testing"
)

// Variables that make the test binary a program that exchanges a place and a link.
const (
	placeVariable = "CDIGEN_EXCHANGE_PLACE"
	linkVariable  = "CDIGEN_EXCHANGE_LINK"
)

func TestMain(m *testing.M) {
	place := os.Getenv(placeVariable)
	if place == "" {
		os.Exit(m.Run())
	}
	if err := exchange(place, os.Getenv(linkVariable)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
