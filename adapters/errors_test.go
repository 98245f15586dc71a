package adapters_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"gateway/adapters"
)

func TestJoinedErrorsAreTakenApart(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	if got := adapters.Joined(errors.Join(a, errors.Join(b, c))); !slices.Equal(got, []error{a, b, c}) {
		t.Errorf("%v", got)
	}
	if sentence := fmt.Errorf("%w: %w", a, b); !slices.Equal(adapters.Joined(sentence), []error{sentence}) {
		t.Errorf("%v is one", sentence)
	}
	if got := adapters.Joined(a); !slices.Equal(got, []error{a}) {
		t.Errorf("%v", got)
	}
	if got := adapters.Joined(nil); got != nil {
		t.Errorf("%v", got)
	}
}
