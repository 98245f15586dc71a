package modbus

import (
	"testing"

	"pgregory.net/rapid"
)

func regs(address ...uint16) []item {
	var all []item
	for _, a := range address {
		all = append(all, item{kind: Holding, address: a, count: 1})
	}
	return all
}

func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

var usual = limits{registers: 125, bits: 2000, hole: 16}

// thingsboard-gateway#406, #2052: register-by-register reading is too slow.
func TestAHundredRegistersAreOneRequest(t *testing.T) {
	var items []item
	for a := range uint16(100) {
		items = append(items, regs(99-a)...)
	}
	if b := plan(items, numbers(100), usual); len(b) != 1 || b[0].address != 0 || b[0].count != 100 {
		t.Errorf("%+v", b)
	}
}

func TestAHoleIsReadAlongUpToItsLimit(t *testing.T) {
	if b := plan(regs(0, 17), numbers(2), usual); len(b) != 1 || b[0].count != 18 {
		t.Errorf("16 registers between: %+v", b)
	}
	if b := plan(regs(0, 18), numbers(2), usual); len(b) != 2 {
		t.Errorf("17 registers between: %+v", b)
	}
}

func TestABlockKeepsTheDevicesLimit(t *testing.T) {
	items := regs(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	lim := usual
	lim.registers = 4
	b := plan(items, numbers(10), lim)
	if len(b) != 3 || b[0].count != 4 || b[1].count != 4 || b[2].count != 2 {
		t.Errorf("%+v", b)
	}
}

func TestABlockNeverCrossesTables(t *testing.T) {
	items := []item{{Input, 0, 1, 0}, {Holding, 1, 1, 0}, {Coil, 2, 1, 0}, {Discrete, 3, 1, 0}}
	if b := plan(items, numbers(4), usual); len(b) != 4 {
		t.Errorf("%+v", b)
	}
}

func TestAWideItemIsNeverCut(t *testing.T) {
	lim := usual
	lim.registers = 4
	items := []item{{Holding, 0, 2, 0}, {Holding, 2, 1, 0}, {Holding, 3, 2, 0}}
	b := plan(items, numbers(3), lim)
	if len(b) != 2 || b[0].count != 3 || b[1].address != 3 || b[1].count != 2 {
		t.Errorf("%+v", b)
	}
}

func TestAHoleWithABadAddressIsNotCrossed(t *testing.T) {
	lim := usual
	lim.avoid = func(k Kind, from, to int) bool { return from <= 3 && 3 < to }
	if b := plan(regs(0, 2, 5), numbers(3), lim); len(b) != 2 || b[0].count != 3 || b[1].address != 5 {
		t.Errorf("%+v", b)
	}
}

// Whatever the points and limits: every item is covered by exactly one block, whole, and no block
// breaks a limit; and no two blocks that follow each other could have been one.
func TestPlansCoverEverythingWithinTheLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "items")
		var items []item
		for range n {
			k := Kind(rapid.IntRange(0, 3).Draw(t, "kind"))
			count := 1
			if !k.Bits() {
				count = rapid.IntRange(1, 4).Draw(t, "count")
			}
			items = append(items, item{k, uint16(rapid.IntRange(0, 300).Draw(t, "address")), count, 0})
		}
		lim := limits{registers: rapid.IntRange(4, 125).Draw(t, "registers"), bits: rapid.IntRange(1, 2000).Draw(t, "bits"), hole: rapid.IntRange(0, 20).Draw(t, "hole")}
		blocks := plan(items, numbers(n), lim)
		covered := make([]int, n)
		for _, b := range blocks {
			most, hole := lim.of(b.kind)
			if b.count < 1 || b.count > most {
				t.Fatalf("a block of %d, at most %d", b.count, most)
			}
			end := int(b.address)
			for _, i := range b.items {
				it := items[i]
				covered[i]++
				if it.kind != b.kind || it.address < b.address || it.end() > int(b.address)+b.count {
					t.Fatalf("%+v is not in %+v", it, b)
				}
				if int(it.address)-end > hole {
					t.Fatalf("a hole of %d in %+v", int(it.address)-end, b)
				}
				end = max(end, it.end())
			}
		}
		for i, c := range covered {
			if c != 1 {
				t.Fatalf("item %d is covered %d times", i, c)
			}
		}
	})
}

func TestNotation(t *testing.T) {
	for _, c := range []struct {
		text    string
		kind    Kind
		address uint16
	}{
		{"40001", Holding, 0}, {"30001", Input, 0}, {"10001", Discrete, 0}, {"00001", Coil, 0},
		{"49999", Holding, 9998}, {"410000", Holding, 9999}, {"465536", Holding, 65535}, {"000010", Coil, 9},
	} {
		k, a, err := ParseNotation(c.text)
		if err != nil || k != c.kind || a != c.address {
			t.Errorf("%s: %v %d, %v", c.text, k, a, err)
		}
	}
	if got := Holding.Notation(0); got != "40001" {
		t.Errorf("holding 0 is %s", got)
	}
	if got := Input.Notation(9999); got != "310000" {
		t.Errorf("input 9999 is %s", got)
	}
	for _, bad := range []string{"", "4001", "40000", "20001", "465537", "4000x", "4000001"} {
		if _, _, err := ParseNotation(bad); err == nil {
			t.Errorf("%q is an address", bad)
		}
	}
}

func FuzzParseNotation(f *testing.F) {
	f.Add("40001")
	f.Add("465536")
	f.Fuzz(func(t *testing.T, s string) {
		k, a, err := ParseNotation(s)
		if err != nil {
			return
		}
		k2, a2, err := ParseNotation(k.Notation(a))
		if err != nil || k2 != k || a2 != a {
			t.Errorf("%q is %v %d, written %s, read %v %d", s, k, a, k.Notation(a), k2, a2)
		}
	})
}
