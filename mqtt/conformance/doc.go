// Package conformance holds the normative statements of MQTT 5.0 and 3.1.1 as tables in testdata, and a test
// that finds for each the tests that cite it.
//
// A test cites a statement in its comment, its name, its body or a table that it uses: MQTT-3.3.1-4 for
// one of 5.0, "MQTT-3.1.2-22 of 3.1.1" for one that only 3.1.1 has. A statement of 3.1.1 that asks for
// the same as one of 5.0 is shown by the tests of that. What no test cites stands in testdata/uncovered.txt; the
// test fails when a statement that is not there loses its last test. See all with
//
//	go test -v -run Statements ./mqtt/conformance
package conformance
