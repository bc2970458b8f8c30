package pack

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	pb "coven-gateway/proto/coven"
)

// defaultTimeout is how long a call of a tool may take that does not say.
const defaultTimeout = 30 * time.Second

// A Tool is something that agents can call.
type Tool struct {
	Name                 string          // 1 to 128 letters, digits, '_', '-' or '.'; unique at the gateway
	Description          string          // for the model that decides whether to call it
	InputSchema          json.RawMessage // JSON Schema of the input, an object; any object where empty
	RequiredCapabilities []string        // that a caller must have been granted, all of them
	Timeout              time.Duration   // of one call, waiting included; 30 s where 0; seconds on the wire

	// Call does it. The gateway has checked the input against the schema. The output is one JSON
	// document. An error is told to the caller in its own words. ctx ends after Timeout, when the
	// connection is lost, with the cause ErrDisconnected, and when the pack stops, with ErrStopped.
	Call func(ctx context.Context, input json.RawMessage) (output []byte, err error)

	err error // of Func
}

// Func makes a tool of a function. The schema is made from In, a struct: a field has the name of its
// json tag and, for the model, the text of its description tag; an enum tag lists the words that a
// string may be, separated by commas. A field is required unless it is a pointer or omitempty. Out
// is encoded as JSON. A type that has no schema is reported by [Run].
//
// Set further fields of the result where they are needed.
func Func[In, Out any](name, description string, fn func(ctx context.Context, in In) (Out, error)) Tool {
	schema, err := schemaOf[In]()
	return Tool{
		Name: name, Description: description, InputSchema: schema, err: err,
		Call: func(ctx context.Context, input json.RawMessage) ([]byte, error) {
			var in In
			if err := json.Unmarshal(input, &in); err != nil {
				return nil, fmt.Errorf("invalid input: %w", err)
			}
			out, err := fn(ctx, in)
			if err != nil {
				return nil, err
			}
			return json.Marshal(out)
		},
	}
}

func (t Tool) timeout() time.Duration {
	if t.Timeout == 0 {
		return defaultTimeout
	}
	return t.Timeout
}

func (t Tool) definition() *pb.ToolDefinition {
	return &pb.ToolDefinition{
		Name: t.Name, Description: t.Description, InputSchemaJson: string(t.InputSchema), RequiredCapabilities: t.RequiredCapabilities,
		TimeoutSeconds: int32((t.timeout() + time.Second - 1) / time.Second),
	}
}
