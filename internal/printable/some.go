package printable

import (
	"fmt"
	"strings"
)

// Some returns the first of a list and how many others there are.
func Some(list []string) string {
	const enough = 3
	if len(list) <= enough+1 {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d others", strings.Join(list[:enough], ", "), len(list)-enough)
}
