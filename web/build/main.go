// Command build bundles the pages of the gateway: web/src and web/vendor become web/dist, which is
// committed, so that nothing but Go is needed to build the gateway.
//
// With -watch it builds again whenever a source changes.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"
)

func main() {
	log.SetFlags(0)
	web := flag.String("web", "..", "the folder web of the repository")
	watch := flag.Bool("watch", false, "build again whenever a source changes")
	flag.Parse()
	if err := once(*web); err != nil && !*watch {
		log.Fatal(err)
	} else if err != nil {
		log.Print(err)
	}
	for last := newest(*web); *watch; {
		time.Sleep(pollInterval)
		if at := newest(*web); at.After(last) {
			last = at
			if err := once(*web); err != nil {
				log.Print(err)
			}
		}
	}
}

// pollInterval is how often -watch looks for changes.
const pollInterval = 300 * time.Millisecond

func once(web string) error {
	files, err := Build(web)
	if err != nil {
		return err
	}
	return write(filepath.Join(web, "dist"), files)
}

// newest is when a source was changed last.
func newest(web string) (at time.Time) {
	_ = filepath.Walk(filepath.Join(web, "src"), func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.ModTime().After(at) { // a file that goes away meanwhile is no matter
			at = info.ModTime()
		}
		return nil
	})
	return at
}

// write makes a folder have these files and no others.
func write(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	old, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range old {
		if _, ok := files[f.Name()]; !ok {
			if err := os.RemoveAll(filepath.Join(dir, f.Name())); err != nil {
				return err
			}
		}
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("%d files in %s\n", len(files), dir)
	return nil
}
