package findings

import (
	"slices"
	"testing"

	"github.com/cdigen/cdigen/discover"
)

func finding(id discover.ID, severity discover.Severity, subject string) discover.Finding {
	return discover.Finding{ID: id, Severity: severity, Subject: subject, Message: "is wrong"}
}

func TestFindingsThatDifferInTheirSubjectsAreOneGroup(t *testing.T) {
	groups := Grouped([]discover.Finding{
		finding("a", discover.Note, "1"), finding("b", discover.Note, "1"), finding("a", discover.Note, "2"), finding("a", discover.Broken, "3"),
	})
	if len(groups) != 3 || !slices.Equal(groups[0].Subjects, []string{"1", "2"}) || groups[1].ID != "b" || groups[2].Severity != discover.Broken {
		t.Errorf("%+v", groups)
	}
}

func TestTheWorstFindingIsTheFirst(t *testing.T) {
	got := Sorted([]discover.Finding{
		finding("a", discover.Note, "1"), finding("b", discover.Warning, "1"), finding("c", discover.Broken, "1"), finding("d", discover.Note, "1"),
		finding("a", discover.Warning, "1"), // the first again, and worse
	})
	want := []discover.Finding{
		finding("c", discover.Broken, "1"), finding("a", discover.Warning, "1"), finding("b", discover.Warning, "1"), finding("d", discover.Note, "1"),
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v; want %v", got, want)
	}
}
