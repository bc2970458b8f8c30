package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxFile bounds the configuration file, in bytes: the YAML parser needs memory in the
// square of the nesting depth.
const maxFile = 64 << 10

// Options say where to look.
type Options struct {
	// Path is the file that was asked for explicitly, "" if none was.
	Path string
	// LookupEnv is how environment variables are read; usually os.LookupEnv. An empty
	// variable counts as unset. Required.
	LookupEnv func(name string) (string, bool)
}

// Find says which file Load reads: Path, else COVEN_CONFIG, else
// $XDG_CONFIG_HOME/coven/gateway.yaml, else ~/.config/coven/gateway.yaml. The last two
// need not exist: explicit is false. The path is "" if HOME is needed and not set.
func (o Options) Find() (file string, explicit bool, err error) {
	env := environment(o.LookupEnv)
	for _, named := range []string{o.Path, env.get("COVEN_CONFIG")} {
		if named != "" {
			file, err = env.path(named)
			return file, true, err
		}
	}
	if dir := env.folder("XDG_CONFIG_HOME", ".config"); dir != "" {
		file = filepath.Join(dir, "coven", "gateway.yaml")
	}
	return file, false, nil
}

// Load reads the configuration: defaults, then the file (see [Options.Find]), then
// the environment variables COVEN_DB_PATH, COVEN_GATEWAY_URL, COVEN_MCP_ENDPOINT,
// COVEN_SECRETS_KEY and TS_AUTHKEY.
//
// A file that was asked for explicitly and does not exist is an error that matches
// [fs.ErrNotExist]. Everything that is wrong with the content comes in one error, a
// join of [*Complaint]; the Config is then of no use. Warnings are about keys that are
// accepted and have no effect.
func Load(o Options) (Config, []Warning, error) {
	file, explicit, err := o.Find()
	if err != nil {
		return Config{}, nil, fmt.Errorf("configuration file: %w", err)
	}
	var data []byte
	if file != "" {
		data, err = readFile(file)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !explicit:
			file = ""
		case err != nil:
			return Config{}, nil, fmt.Errorf("configuration file: %w", err)
		}
	}
	return load(file, data, environment(o.LookupEnv))
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %v", name, Size(maxFile))
	}
	return data, err
}

// load is Load once the file has been read; file is "" if there is none.
func load(file string, data []byte, env environment) (Config, []Warning, error) {
	c := Default()
	c.file = file
	c.origins = map[string]Origin{}
	l := loader{config: &c, env: env, fields: map[string]field{}, sections: map[string]bool{}, refused: map[string]bool{}}
	for _, f := range c.fields() {
		l.keys = append(l.keys, f.key)
		l.fields[f.key] = f
		for i, c := range f.key {
			if c == '.' {
				l.sections[f.key[:i]] = true
			}
		}
	}

	l.parse(data)
	l.overrides()
	l.derive()
	for _, broken := range c.broken() {
		if !l.refused[broken.Key] {
			l.complaints = append(l.complaints, broken)
		}
	}
	if err := joined(l.complaints); err != nil {
		return Config{}, l.warnings, err
	}
	return c, l.warnings, nil
}

// environment is a lookup of variables in which empty means unset.
type environment func(string) (string, bool)

func (e environment) get(name string) string {
	value, _ := e(name)
	return value
}

// folder is a base directory of the XDG specification, which wants relative ones to be
// ignored. It is "" if HOME is needed and not set.
func (e environment) folder(variable, below string) string {
	if dir := e.get(variable); filepath.IsAbs(dir) {
		return dir
	}
	if home := e.get("HOME"); home != "" {
		return filepath.Join(home, below)
	}
	return ""
}

// A loader fills a Config and gathers everything there is to say about it.
type loader struct {
	config   *Config
	env      environment
	keys     []string // as listed by Config.fields
	fields   map[string]field
	sections map[string]bool

	refused    map[string]bool // keys with a complaint; no rule is checked on top of it
	complaints []*Complaint
	warnings   []Warning
}

func (l *loader) refuse(at Origin, key, format string, args ...any) {
	l.refused[key] = true
	line := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	l.complaints = append(l.complaints, &Complaint{Origin: at, Key: key, Message: line})
}

func (l *loader) at(t *token.Token) Origin {
	o := Origin{File: l.config.file}
	if t != nil && t.Position != nil {
		o.Line, o.Column = t.Position.Line, t.Position.Column
	}
	return o
}

func (l *loader) parse(data []byte) {
	if !utf8.Valid(data) {
		l.refuse(l.at(nil), "", "not valid UTF-8")
		return
	}
	tokens := lexer.Tokenize(string(bytes.TrimPrefix(data, []byte("\ufeff"))))
	if !l.single(tokens) {
		return
	}
	doc, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		// The error's own text quotes the lines around the place, secrets included.
		if syntax, ok := errors.AsType[yaml.Error](err); ok {
			l.refuse(l.at(syntax.GetToken()), "", "not valid YAML: %s (is a quote missing around a value?)", printable(syntax.GetMessage()))
		} else {
			l.refuse(l.at(nil), "", "not valid YAML")
		}
		return
	}
	for _, d := range doc.Docs {
		if d.Body != nil {
			l.section("", d.Body)
		}
	}
}

// single refuses directives and a second document. The parser would take them, and
// lose everything behind an empty document without a word.
func (l *loader) single(tokens token.Tokens) bool {
	begun, ended := false, false
	for _, t := range tokens {
		switch {
		case t.Type == token.CommentType:
			continue
		case t.Type == token.DirectiveType:
			l.refuse(l.at(t), "", "YAML directives are not supported")
			return false
		case ended || begun && t.Type == token.DocumentHeaderType:
			l.refuse(l.at(t), "", "a second YAML document; there can be only one")
			return false
		}
		begun, ended = true, t.Type == token.DocumentEndType
	}
	return true
}

// section reads the keys below prefix, which is "" or ends in a dot.
func (l *loader) section(prefix string, n ast.Node) {
	for _, p := range l.pairs(prefix, n) {
		f, known := l.fields[p.key]
		switch {
		case known:
			l.value(f, p.value)
		case l.sections[p.key]:
			l.section(p.key+".", p.value)
		case p.key == "frontends":
			l.frontends(p.key, p.value)
		default:
			l.refuse(p.at, p.key, "unknown key%s", l.suggest(prefix, p.name))
		}
	}
}

// frontends warns of each key in the section that this gateway accepts and ignores.
func (l *loader) frontends(key string, n ast.Node) {
	if isSection(n) || key == "frontends" {
		for _, p := range l.pairs(key+".", n) {
			l.frontends(p.key, p.value)
		}
		return
	}
	what := strings.Split(key, ".")[1]
	switch what {
	case "slack":
		what = "Slack"
	case "matrix":
		what = "Matrix"
	}
	l.warnings = append(l.warnings, Warning{
		Origin: l.at(n.GetToken()), Key: key,
		Message: "the gateway has no " + what + " frontend of its own; run a bridge",
	})
}

// A pair is one entry of a mapping.
type pair struct {
	name  string
	key   string // with its sections; safe to print
	at    Origin // of the name
	value ast.Node
}

// pairs lists the entries of a mapping, and refuses what is not one and names that
// come twice. Nothing at all is an empty mapping.
func (l *loader) pairs(prefix string, n ast.Node) []pair {
	var list []pair
	first := map[string]int{} // name → line
	if !isSection(n) {
		if _, null := n.(*ast.NullNode); !null {
			what := strings.TrimSuffix(prefix, ".")
			l.refuse(l.at(n.GetToken()), what, "expected a section with keys below it, got %s", describe(n))
		}
		return nil
	}
	for it := n.(ast.MapNode).MapRange(); it.Next(); {
		k := it.Key()
		p := pair{name: k.GetToken().Value, at: l.at(k.GetToken()), value: it.Value()}
		if quoted, ok := k.(*ast.StringNode); ok {
			p.name = quoted.Value
		}
		p.key = prefix + p.name
		if printable(p.name) != p.name || strings.ContainsAny(p.name, ". :\"'") {
			p.key = prefix + fmt.Sprintf("%q", p.name)
		}
		switch k.(type) {
		case *ast.MergeKeyNode:
			l.refuse(p.at, p.key, "merge keys are not supported")
			continue
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		default:
			l.refuse(p.at, strings.TrimSuffix(prefix, "."), "a key must be a plain name")
			continue
		}
		if line, twice := first[p.name]; twice {
			l.refuse(p.at, p.key, "given twice, first on line %d", line)
			continue
		}
		first[p.name] = p.at.Line
		list = append(list, p)
	}
	return list
}

// value reads the scalar or the list of one field.
func (l *loader) value(f field, n ast.Node) {
	at := l.at(n.GetToken())
	l.config.origins[f.key] = at
	if list, is := n.(*ast.SequenceNode); is && f.setAll != nil {
		l.list(f, list)
	} else if s, ok := l.expanded(f, f.want, f.takes, n); ok {
		l.assign(f, at, s)
	}
}

// list reads the items of a list, each a string with a place of its own.
func (l *loader) list(f field, n *ast.SequenceNode) {
	items := make([]string, 0, len(n.Values))
	for i, v := range n.Values {
		at := l.at(v.GetToken())
		l.config.origins[itemKey(f.key, i)] = at
		if isSection(v) { // the parser takes a:b for one, in {x: [a:b]}
			l.refuse(at, f.key, "expected a string, got a section; a value with a colon needs quotes")
			continue
		}
		s, ok := l.expanded(f, "a string", isText, v)
		if !ok {
			continue
		}
		if err := f.item(s); err != nil {
			l.refuse(at, f.key, "%s", err)
		}
		items = append(items, s)
	}
	f.setAll(items)
}

// expanded gives the text of a scalar with its references replaced, or refuses what is
// not written as it must be. With a reference any kind will do, unless takes is 0.
func (l *loader) expanded(f field, want string, takes shape, n ast.Node) (string, bool) {
	at := l.at(n.GetToken())
	raw, is := scalar(n)
	var (
		s    string
		refs bool
		err  error
	)
	if takes != 0 {
		s, refs, err = l.env.expand(raw)
	}
	switch {
	case err != nil:
		l.refuse(at, f.key, "%s", err)
	case is == 0 || !refs && takes&is == 0 && f.secret:
		l.refuse(at, f.key, "expected %s, got %s", want, describe(n))
	case !refs && takes&is == 0:
		l.refuse(at, f.key, "expected %s, got %s %s", want, describe(n), excerpt(raw, is))
	default:
		return s, true
	}
	return "", false
}

func (l *loader) assign(f field, at Origin, s string) {
	l.config.origins[f.key] = at
	var err error
	if f.path {
		s, err = l.env.path(s)
	}
	if err == nil {
		err = f.set(s)
	}
	if err != nil {
		l.refuse(at, f.key, "%s", err)
	}
}

func (l *loader) overrides() {
	for _, key := range l.keys {
		if f := l.fields[key]; f.env != "" {
			if s := l.env.get(f.env); s != "" {
				l.assign(f, Origin{Env: f.env}, s)
			}
		}
	}
}

// derive fills in the defaults that depend on the environment or on other keys.
func (l *loader) derive() {
	c := l.config
	_, dataGiven := c.origins["data_dir"]
	_, pathGiven := c.origins["database.path"]
	switch {
	case dataGiven:
	case pathGiven && c.Database.Path != "" && c.Database.Path != ":memory:":
		c.DataDir = filepath.Dir(c.Database.Path)
		c.origins["data_dir"] = Origin{Via: "database.path"}
	default:
		if dir := l.env.folder("XDG_DATA_HOME", ".local/share"); dir != "" {
			c.DataDir = filepath.Join(dir, "coven")
		} else {
			l.refuse(Origin{}, "data_dir", "data_dir is required, because neither XDG_DATA_HOME nor HOME is set")
		}
	}
	if !pathGiven {
		if c.DataDir != "" {
			c.Database.Path = filepath.Join(c.DataDir, "gateway.db")
			c.origins["database.path"] = Origin{Via: "data_dir"}
		} else {
			l.refused["database.path"] = true // what is wrong with data_dir has been said
		}
	}
	if _, given := c.origins["tailscale.state_dir"]; !given {
		if home := l.env.get("HOME"); home != "" {
			c.Tailscale.StateDir = filepath.Join(home, ".local/share/coven-gateway/tailscale")
		}
	}
}

// suggest finds the known key that was probably meant by a name in a section.
func (l *loader) suggest(prefix, name string) string {
	if f, ok := l.fields[prefix+name]; ok {
		return fmt.Sprintf("; write %s as a key below %s", f.name(), strings.TrimSuffix(f.key, "."+f.name()))
	}
	best, least := "", 3 // two slips at most
	if len(name) < 6 {
		least = 2
	}
	for _, key := range l.keys {
		known, inside := strings.CutPrefix(key, prefix)
		known, _, _ = strings.Cut(known, ".")
		if d := distance(name, known); inside && d < least {
			best, least = prefix+known, d
		}
	}
	for _, key := range l.keys {
		if best == "" && l.fields[key].name() == name {
			best = key
		}
	}
	if best == "" {
		return ""
	}
	return ", did you mean " + best + "?"
}

// distance counts the letters to add, drop or change to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func isSection(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// scalar gives the text of a scalar and its kind; the kind is 0 for anything else.
func scalar(n ast.Node) (string, shape) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, isText
	case *ast.LiteralNode:
		return n.Value.Value, isText
	case *ast.BoolNode:
		return fmt.Sprint(n.Value), isBool
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, isNumber
	}
	return "", 0
}

// describe says what a node is, without its content.
func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return "the string"
	case *ast.BoolNode:
		return "the boolean"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number"
	case *ast.NullNode:
		return "nothing; remove it or give it a value"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a section"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode:
		return "an anchor or alias; they are not supported"
	case *ast.TagNode:
		return "a tag; they are not supported"
	}
	return "something else"
}

// excerpt is a value as it goes into a message.
func excerpt(s string, is shape) string {
	if is != isText {
		return printable(s)
	}
	if r := []rune(s); len(r) > 40 {
		s = string(r[:40]) + "…"
	}
	return fmt.Sprintf("%q", s)
}
