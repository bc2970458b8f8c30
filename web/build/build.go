package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/evanw/esbuild/pkg/api"
)

// Build returns the files of web/dist by their names. The same sources give the same bytes.
func Build(web string) (map[string][]byte, error) {
	if err := verify(filepath.Join(web, "vendor")); err != nil {
		return nil, err
	}
	web, err := filepath.Abs(web)
	if err != nil {
		return nil, err
	}
	src := filepath.Join(web, "src")
	r := api.Build(api.BuildOptions{
		AbsWorkingDir: web,
		EntryPoints:   []string{filepath.Join(src, "main.tsx"), filepath.Join(src, "style/main.css")},
		Outdir:        filepath.Join(web, "dist"),
		EntryNames:    "[name]-[hash]",
		ChunkNames:    "[name]-[hash]",
		AssetNames:    "[name]-[hash]",
		Bundle:        true,
		Splitting:     true, // each import() is a file of its own, loaded when it is needed
		Format:        api.FormatESModule,
		Target:        api.ES2023,
		// Nesting, layers and light-dark() are left to browsers: those that know ES2023 know them.
		Supported:         map[string]bool{"nesting": true},
		MinifyWhitespace:  true,
		MinifyIdentifiers: true,
		MinifySyntax:      true,
		LegalComments:     api.LegalCommentsEndOfFile,
		JSX:               api.JSXAutomatic,
		JSXImportSource:   "preact",
		NodePaths:         []string{filepath.Join(web, "vendor")},
		TsconfigRaw:       "{}", // tsconfig.json is for the type checker
		Metafile:          true,
		LogLevel:          api.LogLevelSilent,
	})
	if len(r.Errors) > 0 {
		return nil, errors.New(strings.Join(api.FormatMessages(r.Errors, api.FormatMessagesOptions{Kind: api.ErrorMessage}), "\n"))
	}
	files := map[string][]byte{}
	for _, f := range r.OutputFiles {
		files[filepath.Base(f.Path)] = f.Contents
	}
	script, style, err := entries(r.Metafile)
	if err != nil {
		return nil, err
	}
	page, err := os.ReadFile(filepath.Join(src, "index.html"))
	if err != nil {
		return nil, err
	}
	page = bytes.ReplaceAll(page, []byte("SCRIPT"), []byte(script))
	files["index.html"] = bytes.ReplaceAll(page, []byte("STYLE"), []byte(style))
	return files, compress(files)
}

// entries returns the names of the script and the style that the page loads.
func entries(metafile string) (script, style string, err error) {
	var m struct {
		Outputs map[string]struct{ EntryPoint string }
	}
	if err := json.Unmarshal([]byte(metafile), &m); err != nil {
		return "", "", err
	}
	for name, o := range m.Outputs {
		switch o.EntryPoint {
		case "src/main.tsx":
			script = filepath.Base(name)
		case "src/style/main.css":
			style = filepath.Base(name)
		}
	}
	if script == "" || style == "" {
		return "", "", errors.New("the bundle has no main script or style")
	}
	return script, style, nil
}

// compress adds each file as gzip and Brotli. The page itself is small and filled in when it is served.
func compress(files map[string][]byte) error {
	for name, data := range files {
		if name == "index.html" || strings.HasSuffix(name, ".gz") || strings.HasSuffix(name, ".br") {
			continue
		}
		var gz, br bytes.Buffer
		zw, err := gzip.NewWriterLevel(&gz, gzip.BestCompression)
		if err != nil {
			return err
		}
		bw := brotli.NewWriterLevel(&br, brotli.BestCompression)
		for _, w := range []interface {
			Write([]byte) (int, error)
			Close() error
		}{zw, bw} {
			if _, err := w.Write(data); err != nil {
				return err
			}
			if err := w.Close(); err != nil {
				return err
			}
		}
		files[name+".gz"], files[name+".br"] = gz.Bytes(), br.Bytes()
	}
	return nil
}

// verify compares what others have written with the hashes that are committed beside it.
func verify(vendor string) error {
	sums, err := os.ReadFile(filepath.Join(vendor, "SHA256SUMS"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(sums)) {
		want, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		data, err := os.ReadFile(filepath.Join(vendor, name))
		if err != nil {
			return err
		}
		if got := sha256.Sum256(data); hex.EncodeToString(got[:]) != want {
			return fmt.Errorf("web/vendor/%s is not what it was; web/vendor/update.sh fetches it again", strings.TrimPrefix(name, "./"))
		}
	}
	return nil
}
