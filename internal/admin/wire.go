package admin

import "coven-gateway/internal/fault"

// required refuses a field that is empty.
func required(name, value string) error {
	if value == "" {
		return fault.New(fault.Invalid, "%s required", name)
	}
	return nil
}

// notFound gives a NotFound fault the words that existing programs know.
func notFound(err error, text string) error {
	if fault.CodeOf(err) == fault.NotFound {
		return fault.Wrap(err, fault.NotFound, "%s", text)
	}
	return err
}
