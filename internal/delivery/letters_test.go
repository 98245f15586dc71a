package delivery

import "testing"

// Letters marked to be sent again are older than those that came since. After a restart the next one
// took the number of the newest, and replaced it.
func TestALetterNeverTakesTheNumberOfAnother(t *testing.T) {
	dir := t.TempDir()
	put := func(reason string) {
		t.Helper()
		l, err := OpenLetters(dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Put(Letter{Reason: reason}); err != nil {
			t.Fatal(err)
		}
	}
	put("first")
	if _, err := RetryLetters(dir); err != nil {
		t.Fatal(err)
	}
	put("second")
	put("third")
	letters, err := ListLetters(dir)
	if err != nil || len(letters) != 2 || letters[0].Reason != "second" || letters[1].Reason != "third" {
		t.Errorf("%+v, %v", letters, err)
	}
}
