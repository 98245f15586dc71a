package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
	intern "unique"

	"gateway/adapters/hint"
)

// The decoder fills structs from the parsed file. The TOML library's own decoding ends at the first
// value of a wrong type and knows no position of an unknown key; this one goes on and reports all.
//
// A field's key is its toml tag. A table's struct may have
//   - a field At of type Place, which is set to the table's place;
//   - a method setDefaults, called before its keys are decoded;
//   - a method advice, which says what to do instead of a key that people try, or "".
//
// A type may decode itself by fromTOML (any TOML value) or UnmarshalText (a string).

type defaulter interface{ setDefaults() }

type advisor interface{ advice(key string) string }

type selfDecoder interface{ fromTOML(value any) error }

var placeType = reflect.TypeFor[Place]()

// decode fills the struct v from table.
func decode(v reflect.Value, table map[string]any, at Place) {
	if d, ok := v.Addr().Interface().(defaulter); ok {
		d.setDefaults()
	}
	fields := map[string]reflect.Value{}
	collect(v, fields, at)
	keys := make([]string, 0, len(table))
	for key := range table {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		field, ok := fields[key]
		if !ok {
			tail := suggest(key, fields)
			if a, ok := v.Addr().Interface().(advisor); ok {
				if advice := a.advice(key); advice != "" {
					tail = "; " + advice
				}
			}
			at.Errorf(key, "unknown key %q%s", key, tail)
			continue
		}
		decodeValue(field, table[key], at, key)
	}
}

// collect finds the keys of a struct, those of embedded structs among them.
func collect(v reflect.Value, fields map[string]reflect.Value, at Place) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Type == placeType && f.Name == "At" {
			v.Field(i).Set(reflect.ValueOf(at))
			continue
		}
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			if d, ok := v.Field(i).Addr().Interface().(defaulter); ok {
				d.setDefaults()
			}
			collect(v.Field(i), fields, at)
			continue
		}
		if key := f.Tag.Get("toml"); key != "" && key != "-" {
			fields[key] = v.Field(i)
		}
	}
}

// decodeValue sets v from one TOML value and reports what does not fit at the key.
func decodeValue(v reflect.Value, value any, at Place, key string) {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		decodeValue(v.Elem(), value, at, key)
		return
	}
	if d, ok := v.Addr().Interface().(selfDecoder); ok {
		if err := d.fromTOML(value); err != nil {
			at.Errorf(key, "%s: %v", key, err)
		}
		return
	}
	if d, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		text, isText := value.(string)
		if !isText {
			at.Errorf(key, "%s is %s, must be a string", key, describe(value))
		} else if err := d.UnmarshalText([]byte(text)); err != nil {
			at.Errorf(key, "%s: %v", key, err)
		}
		return
	}
	mismatch := func(want string) { at.Errorf(key, "%s is %s, must be %s", key, describe(value), want) }
	if v.Type() == reflect.TypeFor[time.Duration]() {
		text, ok := value.(string)
		d, err := time.ParseDuration(text)
		if !ok || err != nil {
			mismatch(`a duration such as "500ms", "5s" or "1h30m"`)
			return
		}
		v.SetInt(int64(d))
		return
	}
	switch v.Kind() {
	case reflect.String:
		if text, ok := value.(string); ok {
			v.SetString(own(text))
		} else {
			mismatch("a string")
		}
	case reflect.Bool:
		if b, ok := value.(bool); ok {
			v.SetBool(b)
		} else {
			mismatch("true or false")
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, ok := value.(int64)
		if !ok {
			mismatch("a whole number")
		} else if v.OverflowInt(n) {
			bits := v.Type().Bits()
			at.Errorf(key, "%s is %d, must be from %d to %d", key, n, -(int64(1) << (bits - 1)), int64(1)<<(bits-1)-1)
		} else {
			v.SetInt(n)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, ok := value.(int64)
		if !ok {
			mismatch("a whole number")
		} else if n < 0 || v.OverflowUint(uint64(n)) {
			most := uint64(math.MaxInt64)
			if bits := v.Type().Bits(); bits < 64 {
				most = 1<<bits - 1
			}
			at.Errorf(key, "%s is %d, must be from 0 to %d", key, n, most)
		} else {
			v.SetUint(uint64(n))
		}
	case reflect.Float32, reflect.Float64:
		switch n := value.(type) {
		case float64:
			if math.IsNaN(n) || math.IsInf(n, 0) {
				mismatch("a finite number")
			} else {
				v.SetFloat(n)
			}
		case int64:
			v.SetFloat(float64(n))
		default:
			mismatch("a number")
		}
	case reflect.Struct:
		table, ok := value.(map[string]any)
		if !ok {
			mismatch("a table")
			return
		}
		decode(v, table, at.below(key, -1, table))
	case reflect.Map:
		table, ok := value.(map[string]any)
		if !ok {
			mismatch("a table")
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for name, value := range table {
			item := reflect.New(v.Type().Elem()).Elem()
			decodeValue(item, value, at, join(key, name))
			v.SetMapIndex(reflect.ValueOf(own(name)), item)
		}
	case reflect.Slice:
		decodeSlice(v, value, at, key)
	case reflect.Interface:
		v.Set(reflect.ValueOf(value))
	default:
		panic("config: a field of type " + v.Type().String() + " cannot be decoded")
	}
}

// own returns a text that does not hold the whole file in memory, the same one for the same content: of
// thousands of points many are called alike.
func own(text string) string { return intern.Make(text).Value() }

func decodeSlice(v reflect.Value, value any, at Place, key string) {
	var items []any
	switch list := value.(type) {
	case []any:
		items = list
	case []map[string]any:
		for _, t := range list {
			items = append(items, t)
		}
	default:
		want := "a list"
		if v.Type().Elem().Kind() == reflect.Struct {
			want = fmt.Sprintf("a list of tables: [[%s]]", key)
		}
		at.Errorf(key, "%s is %s, must be %s", key, describe(value), want)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		table, isTable := item.(map[string]any)
		if isTable && v.Type().Elem().Kind() == reflect.Struct {
			if _, self := v.Index(i).Addr().Interface().(selfDecoder); !self {
				decode(v.Index(i), table, at.below(key, i, table))
				continue
			}
		}
		decodeValue(v.Index(i), item, at, join(key, fmt.Sprint(i)))
	}
}

// describe says what a TOML value is, for people.
func describe(value any) string {
	switch v := value.(type) {
	case string:
		return fmt.Sprintf("the string %q", v)
	case bool:
		return fmt.Sprintf("%t", v)
	case int64, float64:
		return fmt.Sprintf("the number %v", v)
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	}
	return "a list"
}

// suggest proposes the key that was probably meant.
func suggest(key string, fields map[string]reflect.Value) string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	if near := hint.DidYouMean(key, names); near != "" {
		return near
	}
	slices.Sort(names)
	return "; this table knows " + strings.Join(names, ", ")
}
