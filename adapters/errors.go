package adapters

import (
	"errors"
	"reflect"
)

// joined is the type of what errors.Join returns. An error that wraps several in one sentence
// (fmt.Errorf with more than one %w) has the same method and another type.
var joined = reflect.TypeOf(errors.Join(errors.ErrUnsupported))

// Joined takes an error of errors.Join apart, whatever its depth, so that each can be told at its place.
func Joined(err error) []error {
	if err == nil {
		return nil
	}
	if reflect.TypeOf(err) != joined {
		return []error{err}
	}
	var all []error
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		all = append(all, Joined(e)...)
	}
	return all
}
