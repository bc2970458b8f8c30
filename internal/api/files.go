package api

import (
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// file downloads a stored file. It is never shown in place: its content comes from agents.
func (a *API) file(w http.ResponseWriter, r *http.Request) error {
	f, err := a.Conversations.File(r.Context(), r.PathValue("id"))
	if err != nil {
		return orGone(r.Context(), err)
	}
	content, err := a.Files.Open(f.SHA256)
	if err != nil {
		return err
	}
	defer content.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	if _, _, err := mime.ParseMediaType(f.Type); err == nil {
		h.Set("Content-Type", f.Type)
	}
	h.Set("Content-Disposition", attachment(f.Name))
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox; frame-ancestors 'none'")
	h.Set("ETag", `"`+f.SHA256+`"`)
	h.Set("Cache-Control", "private, no-cache") // a copy may be kept, its use has to be asked for
	http.ServeContent(slowly{w}, r, "", time.Time{}, content)
	return nil
}

// slowly is a response that may take long, as long as it makes progress.
type slowly struct{ http.ResponseWriter }

// Write sends a part of the body.
func (w slowly) Write(b []byte) (int, error) {
	extendDeadline(w.ResponseWriter)
	return w.ResponseWriter.Write(b)
}

// attachment is the Content-Disposition of a download (RFC 6266): the name as it is, and for old
// clients in ASCII. A name is never a path.
func attachment(name string) string {
	full := strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
	if strings.Trim(full, ".") == "" {
		full = "file"
	}
	plain := strings.Map(func(r rune) rune {
		if r == '"' || r == '%' || r > unicode.MaxASCII { // some clients decode "%"
			return '_'
		}
		return r
	}, full)
	if plain == full {
		return `attachment; filename="` + plain + `"`
	}
	return `attachment; filename="` + plain + `"; filename*=UTF-8''` + strings.ReplaceAll(url.QueryEscape(full), "+", "%20")
}
