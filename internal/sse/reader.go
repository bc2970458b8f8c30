package sse

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// MaxEvent is the largest event a Reader takes, in bytes.
const MaxEvent = 32 << 20

// ErrTooLarge is returned for an event of more than MaxEvent bytes.
var ErrTooLarge = errors.New("sse: the event is too large")

// An Event is one event of a stream.
type Event struct {
	ID   string // the last id that the stream has set
	Name string // "message" where the stream names none
	Data []byte
}

// A Reader reads an event stream whose lines end with LF or CRLF. It belongs to one goroutine.
type Reader struct {
	r     *bufio.Reader
	id    string
	begun bool // the first line has been read
}

// NewReader returns a reader of the events in r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReader(r)} }

// Next returns the next event. At the end of the stream it returns io.EOF, or io.ErrUnexpectedEOF
// when the stream ends inside an event.
func (r *Reader) Next() (Event, error) {
	e := Event{Name: "message"}
	size, started, hasData := 0, false, false
	for {
		line, err := r.line(MaxEvent - size)
		if err != nil {
			if errors.Is(err, io.EOF) && (started || len(line) > 0) {
				err = io.ErrUnexpectedEOF
			}
			return Event{}, err
		}
		if len(line) == 0 {
			if hasData {
				e.ID = r.id
				return e, nil
			}
			e, size, started = Event{Name: "message"}, 0, false
			continue
		}
		if !r.begun {
			r.begun = true
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		size += len(line)
		field, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(field) {
		case "":
			continue // a comment
		case "event":
			if e.Name = string(value); e.Name == "" {
				e.Name = "message"
			}
		case "data":
			if hasData {
				e.Data = append(e.Data, '\n')
			}
			e.Data = append(e.Data, value...)
			hasData = true
		case "id":
			if !bytes.ContainsRune(value, 0) {
				r.id = string(value)
			}
		}
		started = true
	}
}

// line returns the next line without its end. At the end of the stream it returns what is left.
func (r *Reader) line(limit int) ([]byte, error) {
	line, err := r.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line = bytes.Clone(line) // the next read overwrites it
	}
	for errors.Is(err, bufio.ErrBufferFull) && len(line) <= limit {
		var part []byte
		part, err = r.r.ReadSlice('\n')
		line = append(line, part...)
	}
	if len(line) > limit {
		return nil, ErrTooLarge
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte{'\n'}), []byte{'\r'}), err
}
