package api

import (
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"coven-gateway/internal/config"
	"coven-gateway/internal/fault"
)

// checkLengths refuses a body, a pointer to a struct, with texts or lists that are too long:
// [config.MaxWord] bytes and [config.MaxWords] entries are allowed, or the bytes that the tag "max"
// of a field says. Fields with the tag max:"-" are left to whoever knows their limits.
func checkLengths(body any) error {
	v := reflect.ValueOf(body).Elem()
	if v.Kind() != reflect.Struct {
		return nil
	}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		most := config.MaxWord
		if tag := field.Tag.Get("max"); tag == "-" {
			continue
		} else if n, err := strconv.Atoi(tag); err == nil {
			most = n
		}
		x := reflect.Indirect(v.Field(i)) // no value where a pointer is nil
		switch x.Kind() {
		case reflect.String:
			if err := checkLength(name, x.String(), most); err != nil {
				return err
			}
		case reflect.Slice:
			if x.Len() > config.MaxWords {
				return fault.New(fault.Invalid, "%s must not have more than %d entries; this one has %d", name, config.MaxWords, x.Len())
			}
			for j := range x.Len() {
				if err := checkLength(name+": an entry", x.Index(j).String(), most); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func checkLength(name, value string, most int) error {
	if len(value) > most {
		return fault.New(fault.Invalid, "%s must not be longer than %d bytes; this one has %d", name, most, len(value))
	}
	return nil
}

// pathParts are the names of the variable parts of a route's path.
func pathParts(route string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(route, -1) {
		names = append(names, m[1])
	}
	return names
}

// checkParameters refuses a request whose path or query has a value that is too long. What is
// searched for has a limit of its own.
func checkParameters(r *http.Request, parts []string) error {
	for _, name := range parts {
		if err := checkLength(name, r.PathValue(name), config.MaxWord); err != nil {
			return err
		}
	}
	if len(r.URL.RawQuery) <= config.MaxWord {
		return nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "the query cannot be read")
	}
	for name, values := range query {
		for _, v := range values {
			if name == "q" || name == "state" && strings.HasSuffix(r.URL.Path, "/oauth/authorize") || name == "state" && r.URL.Path == "/api/oauth/consent" {
				continue
			}
			if err := checkLength("query parameter "+strconv.Quote(name[:min(len(name), 50)]), v, config.MaxWord); err != nil {
				return err
			}
		}
	}
	return nil
}
