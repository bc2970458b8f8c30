package gateway

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"coven-gateway/internal/config"
	"coven-gateway/internal/fault"
)

// bounded reports whether the requests of a method are checked here: those of people's programs. The
// services of agents and packs know what theirs may have.
func bounded(method string) bool {
	return strings.HasPrefix(method, "/coven.ClientService/") || strings.HasPrefix(method, "/coven.AdminService/")
}

// checkedElsewhere are the fields of requests whose limits whoever uses them knows.
var checkedElsewhere = map[protoreflect.FullName]bool{
	"coven.ClientSendMessageRequest.content":         true,
	"coven.ClientSendMessageRequest.attachments":     true,
	"coven.ClientSendMessageRequest.idempotency_key": true,
	"coven.CancelTurnRequest.reason":                 true,
	"coven.CreatePrincipalRequest.pubkey":            true,
	"coven.CreateBindingRequest.frontend":            true,
	"coven.CreateBindingRequest.channel_id":          true,
}

// longer are the fields of requests that may have more than [config.MaxWord] bytes, and how many.
var longer = map[protoreflect.FullName]int{
	"coven.AnswerQuestionRequest.selected":    4 << 10,
	"coven.AnswerQuestionRequest.custom_text": 64 << 10,
}

// checkLengths refuses a request with texts of more than [config.MaxWord] bytes or lists of more
// than [config.MaxWords] entries, except for the fields above.
func checkLengths(req any) (err error) {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		most, known := longer[f.FullName()]
		if !known {
			most = config.MaxWord
		}
		switch {
		case checkedElsewhere[f.FullName()]:
		case f.IsList():
			l := v.List()
			if l.Len() > config.MaxWords {
				err = fault.New(fault.Invalid, "%s must not have more than %d entries; this one has %d", f.Name(), config.MaxWords, l.Len())
				return false
			}
			for i := range l.Len() {
				if err = checkValue(f, l.Get(i), most); err != nil {
					return false
				}
			}
		case !f.IsMap():
			err = checkValue(f, v, most)
		}
		return err == nil
	})
	return err
}

func checkValue(f protoreflect.FieldDescriptor, v protoreflect.Value, most int) error {
	size := 0
	switch f.Kind() {
	case protoreflect.StringKind:
		size = len(v.String())
	case protoreflect.BytesKind:
		size = len(v.Bytes())
	case protoreflect.MessageKind:
		return checkLengths(v.Message().Interface())
	}
	if size > most {
		return fault.New(fault.Invalid, "%s must not be longer than %d bytes; this one has %d", f.Name(), most, size)
	}
	return nil
}
