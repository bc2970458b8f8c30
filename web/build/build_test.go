package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
)

// TestCommitted: what is committed in web/dist is what the sources give.
func TestCommitted(t *testing.T) {
	files, err := Build("..")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("../dist", name))
		if err != nil {
			t.Error(err)
			continue
		}
		if strings.HasSuffix(name, ".gz") || strings.HasSuffix(name, ".br") {
			want, got = unpack(t, name, want), unpack(t, name, got) // another compressor may pack it differently
		}
		if !bytes.Equal(got, want) {
			t.Errorf("web/dist/%s is out of date: run make web", name)
		}
	}
	committed, err := os.ReadDir("../dist")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range committed {
		if _, ok := files[f.Name()]; !ok {
			t.Errorf("nothing makes web/dist/%s: run make web", f.Name())
		}
	}
}

func unpack(t *testing.T, name string, data []byte) []byte {
	t.Helper()
	var r io.Reader = brotli.NewReader(bytes.NewReader(data))
	if strings.HasSuffix(name, ".gz") {
		var err error
		if r, err = gzip.NewReader(bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// mostFirstLoad is how much the chat may load before it can be used, compressed, in bytes.
const mostFirstLoad = 150 << 10

// TestFirstLoad: what the chat page loads at once is small. Everything that comes later is imported on demand.
func TestFirstLoad(t *testing.T) {
	files, err := Build("..")
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	seen := map[string]bool{}
	var load func(name string)
	load = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		size += len(files[name+".br"])
		for _, m := range staticImport.FindAllSubmatch(files[name], -1) {
			load(string(m[1]))
		}
	}
	for _, m := range asset.FindAllSubmatch(files["index.html"], -1) {
		load(string(m[1]))
	}
	for name := range files { // the chat itself is a part of its own
		if strings.HasPrefix(name, "chat-") && strings.HasSuffix(name, ".js") {
			load(name)
		}
	}
	t.Logf("first load: %d bytes in %d files", size, len(seen))
	if len(seen) < 3 || size > mostFirstLoad {
		t.Errorf("the first load is %d bytes in %d files; at most %d are wanted", size, len(seen), mostFirstLoad)
	}
}
