package contract

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"coven-gateway/proto/coven"
)

// firstAddition is the lowest field number that is ours to give away. Lower ones
// belong to the protocol that all existing programs speak.
const firstAddition = 100

// addedRPCs are methods of our own in services that existing programs call.
var addedRPCs = []wireKey{{"rpc", "coven.ClientService", "CancelTurn"}}

// A wireKey names an item of the protocol.
type wireKey struct{ kind, parent, name string }

func (k wireKey) String() string { return k.kind + " " + k.parent + "." + k.name }

// A wireRow is what other programs rely on in an item of the protocol. Columns
// that do not apply are "-", as in testdata/wire.tsv.
type wireRow struct {
	number, typ, label, oneof    string
	request, response, streaming string
}

func newWireRow() wireRow { return wireRow{"-", "-", "-", "-", "-", "-", "-"} }

// TestWire compares the protocol that the gateway speaks with the table of what
// existing programs speak.
func TestWire(t *testing.T) {
	for _, d := range wireDifferences(describe(coven.File_coven_proto), readWireTable(t)) {
		t.Error(d)
	}
}

// TestWireTableIsExact alters every cell of the table, and leaves out every row:
// TestWire has to notice each time.
func TestWireTableIsExact(t *testing.T) {
	ours, table := describe(coven.File_coven_proto), readWireTable(t)
	if len(table) != 291 {
		t.Errorf("the table has %d rows, want 291", len(table))
	}
	for key, row := range table {
		for i, cell := range []*string{
			&row.number, &row.typ, &row.label, &row.oneof, &row.request, &row.response, &row.streaming,
		} {
			old := *cell
			*cell += "9"
			table[key] = row
			if len(wireDifferences(ours, table)) == 0 {
				t.Errorf("%s: a change of column %d goes unnoticed", key, i+4)
			}
			*cell = old
		}
		delete(table, key)
		if len(wireDifferences(ours, table)) == 0 {
			t.Errorf("%s: not missed when it is not in the table", key)
		}
		for _, renamed := range []wireKey{
			{key.kind + "9", key.parent, key.name},
			{key.kind, key.parent + "9", key.name},
			{key.kind, key.parent, key.name + "9"},
		} {
			table[renamed] = row
			if len(wireDifferences(ours, table)) == 0 {
				t.Errorf("%s: renaming it to %s goes unnoticed", key, renamed)
			}
			delete(table, renamed)
		}
		table[key] = row
	}
}

// wireDifferences says where the protocol leaves the table: whatever is in the
// table must be the same, and whatever is not in it must be a field from
// firstAddition on, one of addedRPCs, or belong to a type that only such fields
// and methods use.
func wireDifferences(ours, table map[wireKey]wireRow) []string {
	var diffs []string
	shared := map[string]bool{ // these two are empty, so the table has no row for them
		"coven.DeleteBindingResponse":   true,
		"coven.DeletePrincipalResponse": true,
	}
	for key, want := range table {
		for _, name := range []string{key.parent, want.typ, want.request, want.response} {
			shared[name] = true
		}
		if got, ok := ours[key]; !ok {
			diffs = append(diffs, fmt.Sprintf("%s is missing", key))
		} else if got != want {
			diffs = append(diffs, fmt.Sprintf("%s is %v, must be %v", key, got, want))
		}
	}

	// What is left of ours are additions. Their types are additions, too, unless
	// they are shared.
	added := make(map[string]bool)
	for key, row := range ours {
		if _, ok := table[key]; !ok {
			added[row.typ], added[row.request], added[row.response] = true, true, true
		}
	}
	for key, row := range ours {
		if _, ok := table[key]; ok || added[key.parent] && !shared[key.parent] || slices.Contains(addedRPCs, key) {
			continue
		}
		if n, err := strconv.Atoi(row.number); err != nil || key.kind != "message-field" || n < firstAddition {
			diffs = append(diffs, fmt.Sprintf("%s is neither in the table nor a field from %d on", key, firstAddition))
		}
	}
	slices.Sort(diffs)
	return diffs
}

// describe returns what the table holds, taken from a descriptor.
func describe(file protoreflect.FileDescriptor) map[wireKey]wireRow {
	rows := make(map[wireKey]wireRow)
	for m := range each(file.Messages()) {
		describeMessage(rows, m)
	}
	for e := range each(file.Enums()) {
		describeEnum(rows, e)
	}
	for s := range each(file.Services()) {
		for m := range each(s.Methods()) {
			row := newWireRow()
			row.request = string(m.Input().FullName())
			row.response = string(m.Output().FullName())
			row.streaming = fmt.Sprintf("client=%t,server=%t", m.IsStreamingClient(), m.IsStreamingServer())
			rows[wireKey{"rpc", string(s.FullName()), string(m.Name())}] = row
		}
	}
	return rows
}

func describeMessage(rows map[wireKey]wireRow, m protoreflect.MessageDescriptor) {
	if m.IsMapEntry() {
		return
	}
	for f := range each(m.Fields()) {
		row := newWireRow()
		row.number = strconv.Itoa(int(f.Number()))
		row.typ = typeName(f)
		row.label = label(f)
		if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
			row.oneof = string(o.Name())
		}
		rows[wireKey{"message-field", string(m.FullName()), string(f.Name())}] = row
	}
	for o := range each(m.Oneofs()) {
		if !o.IsSynthetic() {
			rows[wireKey{"oneof", string(m.FullName()), string(o.Name())}] = newWireRow()
		}
	}
	for n := range each(m.Messages()) {
		describeMessage(rows, n)
	}
	for e := range each(m.Enums()) {
		describeEnum(rows, e)
	}
}

func describeEnum(rows map[wireKey]wireRow, e protoreflect.EnumDescriptor) {
	for v := range each(e.Values()) {
		row := newWireRow()
		row.number = strconv.Itoa(int(v.Number()))
		rows[wireKey{"enum-value", string(e.FullName()), string(v.Name())}] = row
	}
}

func typeName(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "map<" + typeName(f.MapKey()) + "," + typeName(f.MapValue()) + ">"
	case f.Message() != nil:
		return string(f.Message().FullName())
	case f.Enum() != nil:
		return string(f.Enum().FullName())
	default:
		return f.Kind().String()
	}
}

func label(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "map"
	case f.IsList():
		return "repeated"
	case f.HasOptionalKeyword():
		return "optional"
	default:
		return "singular"
	}
}

// each iterates over one of protoreflect's lists.
func each[T any](list interface {
	Len() int
	Get(i int) T
},
) func(yield func(T) bool) {
	return func(yield func(T) bool) {
		for i := range list.Len() {
			if !yield(list.Get(i)) {
				return
			}
		}
	}
}

func readWireTable(t *testing.T) map[wireKey]wireRow {
	t.Helper()
	data, err := os.ReadFile("testdata/wire.tsv")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[wireKey]wireRow)
	for line := range strings.Lines(string(data)) {
		c := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(c) != 10 {
			t.Fatalf("%d columns, want 10: %s", len(c), line)
		}
		key := wireKey{c[0], c[1], c[2]}
		if _, ok := rows[key]; ok {
			t.Fatalf("two rows for %s", key)
		}
		rows[key] = wireRow{c[3], c[4], c[5], c[6], c[7], c[8], c[9]}
	}
	return rows
}
