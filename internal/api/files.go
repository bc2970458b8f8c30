package api

import (
	"mime"
	"net/http"
	"time"
)

// file downloads a stored file. It is never shown in place: its content comes from agents.
func (a *API) file(w http.ResponseWriter, r *http.Request) error {
	f, err := a.Conversations.File(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
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
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.Name}))
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("ETag", `"`+f.SHA256+`"`)
	h.Set("Cache-Control", "private, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, content)
	return nil
}
