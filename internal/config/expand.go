package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxSecretFile bounds what ${file:...} reads, in bytes.
const maxSecretFile = 64 << 10

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces the references in one scalar value:
//
//	${NAME}           the variable; unset or empty is an error
//	${NAME:-default}  the default if the variable is unset or empty
//	${file:/path}     the content of a file, without the line breaks at its end
//	$${               a literal ${
//
// What comes out is not looked at again. The second result says whether there was a
// reference. Errors name variables and files, never their content.
func (e environment) expand(s string) (string, bool, error) {
	var (
		out     strings.Builder
		refs    bool
		missing []error
	)
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			out.WriteString(s)
			return out.String(), refs, errors.Join(missing...)
		}
		if i > 0 && s[i-1] == '$' {
			out.WriteString(s[:i-1] + "${")
			s = s[i+2:]
			continue
		}
		out.WriteString(s[:i])
		ref, rest, closed := strings.Cut(s[i+2:], "}")
		if !closed {
			return "", true, errors.New("${ without a closing }; write $${ for a literal ${")
		}
		refs, s = true, rest
		value, err := e.resolve(ref)
		if err != nil {
			missing = append(missing, err)
		}
		out.WriteString(value)
	}
}

// resolve gives the value of what stands between ${ and }.
func (e environment) resolve(ref string) (string, error) {
	name, fallback, hasFallback := strings.Cut(ref, ":-")
	if file, ok := strings.CutPrefix(ref, "file:"); ok && name != "file" {
		return e.readSecret(file)
	}
	if !variableName.MatchString(name) {
		return "", fmt.Errorf("${%s} is neither ${NAME}, ${NAME:-default} nor ${file:/path}; write $${ for a literal ${", printable(ref))
	}
	if strings.Contains(fallback, "${") {
		return "", fmt.Errorf("the default of ${%s:-...} contains another ${; references cannot be nested", name)
	}
	switch value := e.get(name); {
	case value != "":
		return value, nil
	case hasFallback:
		return fallback, nil
	}
	return "", fmt.Errorf("the environment variable %s is unset or empty; set it or write ${%s:-default}", name, name)
}

// readSecret reads a regular file, so that a mistaken path can neither block nor
// fill the memory.
func (e environment) readSecret(name string) (string, error) {
	path, err := e.path(name)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("${file:%s} needs an absolute path", printable(name))
	}
	switch info, err := os.Stat(path); {
	case err != nil:
		return "", fmt.Errorf("${file:...}: %w", err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("${file:%s} is not a regular file", printable(path))
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("${file:...}: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	switch text := strings.TrimRight(string(data), "\r\n"); {
	case err != nil:
		return "", fmt.Errorf("${file:...}: %w", err)
	case len(data) > maxSecretFile:
		return "", fmt.Errorf("${file:%s} has more than %v", printable(path), Size(maxSecretFile))
	case text == "":
		return "", fmt.Errorf("${file:%s} is empty", printable(path))
	case !utf8.ValidString(text):
		return "", fmt.Errorf("${file:%s} is not valid UTF-8", printable(path))
	default:
		return text, nil
	}
}

// path expands ~ and ~/x.
func (e environment) path(p string) (string, error) {
	if p != "~" && !strings.HasPrefix(p, "~/") {
		return p, nil
	}
	home := e.get("HOME")
	if home == "" {
		return "", errors.New("~ cannot be expanded because HOME is not set")
	}
	return filepath.Join(home, p[1:]), nil
}
