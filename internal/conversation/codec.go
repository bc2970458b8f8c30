package conversation

import (
	"encoding/json"
	"fmt"
	"time"
)

// encode splits a body into what is stored: the text that people read and search, and the rest as
// JSON ("" where there is no rest).
func encode(b Body) (kind Kind, text, detail string, err error) {
	kind = b.kind()
	switch b := b.(type) {
	case Text:
		return kind, b.Text, "", nil
	case Thinking:
		return kind, b.Text, "", nil
	case Trouble:
		return kind, b.Text, "", nil
	case Message:
		text = b.Text
	case ToolCall:
		text = b.Input
	case ToolResult:
		text = b.Output
	case Approval:
		text = b.Input
	case Decision:
		text = b.Input
	case FileSent:
		text = b.File.Name
	case Ended:
		if !b.SameText {
			text = b.Response
		}
	}
	d, err := json.Marshal(b)
	if err != nil {
		return 0, "", "", fmt.Errorf("encode event of kind %d: %w", kind, err)
	}
	return kind, text, string(d), nil
}

// NewRecord returns a body as it is stored: as the event numbered seq, which stands for itself.
func NewRecord(ref Ref, seq int64, at time.Time, b Body) (Record, error) {
	kind, text, detail, err := encode(b)
	return Record{Ref: ref, Seq: seq, Last: seq, At: at, Kind: kind, Text: text, Detail: detail}, err
}

// decode is the inverse of encode.
func decode(kind Kind, text, detail string) (Body, error) {
	switch kind {
	case KindText:
		return Text{text}, nil
	case KindThinking:
		return Thinking{text}, nil
	case KindTrouble:
		return Trouble{text}, nil
	case KindMessage:
		b, err := detailOf[Message](detail)
		b.Text = text
		return b, err
	case KindToolCall:
		b, err := detailOf[ToolCall](detail)
		b.Input = text
		return b, err
	case KindToolState:
		return detailOf[ToolState](detail)
	case KindToolResult:
		b, err := detailOf[ToolResult](detail)
		b.Output = text
		return b, err
	case KindToolRun:
		return detailOf[ToolRun](detail)
	case KindApproval:
		b, err := detailOf[Approval](detail)
		b.Input = text
		return b, err
	case KindUsage:
		return detailOf[Usage](detail)
	case KindFile:
		return detailOf[FileSent](detail)
	case KindSession:
		return detailOf[Session](detail)
	case KindSessionOrphaned:
		return detailOf[SessionOrphaned](detail)
	case KindDecision:
		b, err := detailOf[Decision](detail)
		b.Input = text
		return b, err
	case KindEnqueued:
		return detailOf[Enqueued](detail)
	case KindDelivered:
		return detailOf[Delivered](detail)
	case KindAsked:
		return detailOf[Asked](detail)
	case KindAnswered:
		return detailOf[Answered](detail)
	case KindEnded:
		b, err := detailOf[Ended](detail)
		b.Response = text
		return b, err
	default:
		return nil, fmt.Errorf("unknown event kind %d: the database was written by a newer gateway", kind)
	}
}

func detailOf[B Body](detail string) (B, error) {
	var b B
	if err := json.Unmarshal([]byte(detail), &b); err != nil {
		return b, fmt.Errorf("decode event of kind %d: %w", b.kind(), err)
	}
	return b, nil
}
