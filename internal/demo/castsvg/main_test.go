package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// TestThePictureIsThatOfTheRecording: make docs writes both.
func TestThePictureIsThatOfTheRecording(t *testing.T) {
	cast, err := os.ReadFile("../../../docs/session.cast")
	if err != nil {
		t.Fatal(err)
	}
	want, err := draw(cast)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("../../../docs/session.svg"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/session.svg is not that of docs/session.cast: run make docs (%v)", err)
	}
	for d := xml.NewDecoder(bytes.NewReader(want)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestDraw(t *testing.T) {
	cast := `{"version": 2, "width": 9, "title": "a"}
[0.5, "o", "$ "]
[0.6, "o", "x"]
[1, "o", "\r\n\u001b[31mred\u001b[0m <&> 漢x\r\n"]
`
	picture, err := draw([]byte(cast))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`>$ x</text>`, `style="fill: #ff7b72">red</text>`, `>&lt;&amp;&gt;</text>`, `textLength="25.2"`, `>漢x</text>`,
	} {
		if !strings.Contains(string(picture), want) {
			t.Errorf("the picture has no %s:\n%s", want, picture)
		}
	}
	for _, wrong := range []string{"", "{}", "{\"version\": 2}\n[1]", "{\"version\": 2}\n[1, \"o\", \"\\u001b[2J\"]", "{\"version\": 2}\n[1, \"i\", \"x\"]", "{\"version\": 2}\n[1, \"o\", \"\\u0007\"]"} {
		if _, err := draw([]byte(wrong)); err == nil {
			t.Errorf("%q is drawn", wrong)
		}
	}
}
