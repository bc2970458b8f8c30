package openapi

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
)

// Page returns the document for people: one page of HTML that loads nothing and runs no script,
// and the Content-Security-Policy that says so.
func (d Document) Page() (page []byte, policy string, err error) {
	t, err := template.New("page").Funcs(template.FuncMap{"prose": prose, "kind": kind, "anchor": anchor}).Parse(pageHTML)
	if err != nil {
		return nil, "", err
	}
	v := view{
		Title: d.get("info").text("title"), About: d.get("info").text("description"), Style: template.CSS(pageCSS), //nolint:gosec // it is ours
		Error: ref("Error"), Schemas: d.schemaViews(),
	}
	for _, r := range refusalTexts {
		v.Errors = append(v.Errors, responseView{Status: strconv.Itoa(r.status), Text: r.text})
	}
	for _, g := range groups {
		s := section{Name: g.name, Text: g.text}
		for _, o := range g.operations {
			if method, path, ok := d.where(o); ok {
				s.Operations = append(s.Operations, d.operationView(method, path))
			}
		}
		v.Sections = append(v.Sections, s)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256([]byte(pageCSS))
	return b.Bytes(), "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", nil
}

// What the template shows.
type (
	view struct {
		Title, About string
		Style        template.CSS
		Error        object // the schema of errors
		Errors       []responseView
		Sections     []section
		Schemas      []schemaView
	}
	section struct {
		Name, Text string
		Operations []operationView
	}
	operationView struct {
		ID, Method, Path, Summary, Text string
		Needs                           string // which credentials
		Parameters                      []parameterView
		Bodies                          []contentView
		Optional                        bool // the body may be missing
		Responses                       []responseView
		Errors                          []string // statuses of what many routes refuse
	}
	parameterView struct {
		Name, In, Text string
		Required       bool
		Schema         object
	}
	responseView struct {
		Status, Text string
		Bad          bool
		Contents     []contentView
	}
	contentView struct {
		Media  string
		Schema object
		Events []parameterView
	}
	schemaView struct {
		Name, Text string
		Fields     []parameterView
		Choice     []object
	}
)

// operationView reads an operation back from the document, so that the page says what that says.
func (d Document) operationView(method, path string) operationView {
	o := d.get("paths").get(path).get(strings.ToLower(method))
	v := operationView{ID: o.text("operationId"), Method: method, Path: path, Summary: o.text("summary"), Text: o.text("description"), Needs: needed(o)}
	for _, p := range o.list("parameters") {
		v.Parameters = append(v.Parameters, parameterView{Name: p.text("name"), In: p.text("in"), Text: p.text("description"), Required: p.flag("required"), Schema: p.get("schema")})
	}
	if body := o.get("requestBody"); body != nil {
		v.Bodies, v.Optional = contents(body), !body.flag("required")
	}
	for _, m := range o.get("responses") {
		r := m.value.(object)
		bad := m.name >= "400"
		if r.text("$ref") != "" {
			v.Errors = append(v.Errors, m.name)
			continue
		}
		v.Responses = append(v.Responses, responseView{Status: m.name, Text: r.text("description"), Bad: bad, Contents: contents(r)})
	}
	return v
}

// needed says in words which credentials an operation asks for.
func needed(o object) string {
	security := o.list("security")
	if len(security) == 0 {
		return "no credentials"
	}
	say := "credentials"
	if role := o.text("x-role"); role != "" {
		say = "the role " + role
	}
	if scopes := security[0][0].value.([]string); len(scopes) > 0 {
		say += "; of a token that has scopes, the scope " + strings.Join(scopes, ", ")
	}
	return say
}

func contents(o object) []contentView {
	var all []contentView
	for _, m := range o.get("content") {
		c := m.value.(object)
		v := contentView{Media: m.name, Schema: c.get("schema")}
		for _, e := range c.get("x-events") {
			v.Events = append(v.Events, parameterView{Name: e.name, Schema: e.value.(object)})
		}
		all = append(all, v)
	}
	return all
}

func (d Document) schemaViews() []schemaView {
	var all []schemaView
	for _, m := range d.get("components").get("schemas") {
		s := m.value.(object)
		v := schemaView{Name: m.name, Text: s.text("description"), Choice: s.list("oneOf")}
		v.Fields = fieldViews(s)
		all = append(all, v)
	}
	return all
}

// fieldViews are the fields of an object, those of objects inside of it included.
func fieldViews(s object) []parameterView {
	var all []parameterView
	for _, p := range s.get("properties") {
		of := p.value.(object)
		all = append(all, parameterView{Name: p.name, Text: of.text("description"), Required: slices.Contains(s.words("required"), p.name), Schema: of})
		if of.text("type") == "array" {
			of = of.get("items")
		}
		for _, f := range fieldViews(of) {
			f.Name = p.name + "." + f.Name
			all = append(all, f)
		}
	}
	return all
}

// list returns the objects that a member is.
func (o object) list(name string) []object {
	for _, m := range o {
		if m.name == name {
			v, _ := m.value.([]object)
			return v
		}
	}
	return nil
}

func (o object) words(name string) []string {
	for _, m := range o {
		if m.name == name {
			v, _ := m.value.([]string)
			return v
		}
	}
	return nil
}

func (o object) flag(name string) bool {
	for _, m := range o {
		if m.name == name {
			v, _ := m.value.(bool)
			return v
		}
	}
	return false
}

// anchor is where an operation or a schema is on the page.
func anchor(name string) string { return strings.ReplaceAll(strings.ToLower(name), " ", "-") }

// kind says in a few words what a schema allows.
func kind(s object) template.HTML {
	switch {
	case s.text("$ref") != "":
		name := strings.TrimPrefix(s.text("$ref"), "#/components/schemas/")
		return template.HTML(fmt.Sprintf(`<a href="#schema-%s">%s</a>`, anchor(name), name)) //nolint:gosec // names of ours
	case s.list("oneOf") != nil:
		var all []string
		for _, c := range s.list("oneOf") {
			all = append(all, string(kind(c)))
		}
		return template.HTML(strings.Join(all, " or ")) //nolint:gosec // likewise
	case s.text("type") == "array":
		return "list of " + kind(s.get("items"))
	}
	say := s.text("type")
	if t := s.words("type"); t != nil {
		say = strings.Join(t, " or ")
	}
	if f := s.text("format"); f != "" && f != "int64" {
		say = f
	}
	if s.text("contentEncoding") != "" {
		say = s.text("contentEncoding")
	}
	for _, m := range s {
		switch m.name {
		case "enum":
			b, _ := json.Marshal(m.value) // words always can
			say = strings.ReplaceAll(strings.Trim(string(b), "[]"), ",", ", ")
		case "const":
			b, _ := json.Marshal(m.value)
			say = string(b)
		case "maxLength":
			say += fmt.Sprintf(", at most %d", m.value)
		case "default":
			say += fmt.Sprintf(", else %v", m.value)
		}
	}
	if say == "" {
		say = "anything"
	}
	return template.HTML(template.HTMLEscapeString(say)) //nolint:gosec // escaped
}

var codeSpan = regexp.MustCompile("`([^`]*)`")

// prose is text with code in it, in paragraphs.
func prose(s string) template.HTML {
	return template.HTML(strings.ReplaceAll(codeSpan.ReplaceAllString(template.HTMLEscapeString(s), "<code>$1</code>"), "\n\n", "</p><p>")) //nolint:gosec // escaped
}
