package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// restoringSuffix is appended to the name of a database while a restore puts it in place.
const restoringSuffix = ".restoring"

// stageName is the folder in which a restore prepares what it is going to put beside it.
const stageName = ".restore"

// interruptedRestore returns an error while a restore has been left half-way.
func interruptedRestore(database string) error {
	b, err := os.ReadFile(database + restoringSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("a restore was interrupted: restore again, with --force (%s)", b)
}

// Restored is what a restore did.
type Restored struct {
	Manifest Manifest
	Aside    []string // folders that have what was there before
}

// Restore puts the content of a backup, which it verifies first, into a place that no gateway
// uses. What it replaces is moved into a folder before-restore-<time>, beside where it was; a
// database is replaced only with force.
//
// Everything is prepared in folders of its own and moved to its place at the end, the database
// last. A restore that dies before has changed nothing; one that dies during the moves leaves a
// mark that keeps gateways from starting until a restore has succeeded.
func Restore(ctx context.Context, source string, to Place, force bool) (r Restored, err error) {
	if err := to.check(); err != nil {
		return r, err
	}
	if r.Manifest, err = VerifyBackup(ctx, source); err != nil {
		return r, fmt.Errorf("the backup is not good: %w", err)
	}
	dbDir, dbName := filepath.Split(filepath.Clean(to.Database))
	dbDir = filepath.Clean(dbDir)
	dirs := slices.Compact([]string{filepath.Clean(to.DataDir), dbDir})
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return r, err
		}
	}
	lock, err := acquireLock(to.Database + ".lock")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	if _, err := os.Lstat(to.Database); err == nil && !force {
		return r, fmt.Errorf("%s exists; with --force it is moved aside, and kept", to.Database)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	for _, dir := range dirs {
		stage := filepath.Join(dir, stageName)
		if err := os.RemoveAll(stage); err != nil { // of a restore that died
			return r, err
		}
		if err := os.Mkdir(stage, 0o700); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	}
	stagedDB := filepath.Join(dbDir, stageName, dbName)
	for _, f := range r.Manifest.Files {
		path := filepath.FromSlash(f.Path)
		staged := filepath.Join(to.DataDir, stageName, path)
		if f.Path == databaseName {
			staged = stagedDB
		}
		if err := context.Cause(ctx); err != nil {
			return r, err
		}
		size, sum, err := copyFile(filepath.Join(source, path), staged)
		if err != nil {
			return r, err
		}
		if size != f.Size || sum != f.SHA256 {
			return r, fmt.Errorf("%s has changed since it was verified", filepath.Join(source, path))
		}
	}
	for _, dir := range dirs {
		if err := syncFolders(filepath.Join(dir, stageName)); err != nil {
			return r, err
		}
	}
	moves, err := r.plan(to.DataDir, dbDir, dbName)
	if err != nil {
		return r, err
	}
	mark := to.Database + restoringSuffix
	if err := writeDurably(mark, fmt.Appendf(nil, "of %s; what was there before is in %v", source, r.Aside)); err != nil {
		return r, err
	}
	if undone, err := moveAll(moves); err != nil {
		if undone {
			err = errors.Join(err, os.Remove(mark))
		}
		return r, err
	}
	for _, dir := range append(dirs, r.Aside...) {
		if err := syncFolder(dir); err != nil {
			return r, err
		}
	}
	return r, errors.Join(os.Remove(mark), syncFolder(dbDir))
}

// A move gives a file or folder another name in the same file system.
type move struct{ from, to string }

// plan decides what is moved where: first what is in the way, then what is staged, the database
// last. It makes the folders for what is in the way.
func (r *Restored) plan(dataDir, dbDir, dbName string) ([]move, error) {
	staged, err := os.ReadDir(filepath.Join(dataDir, stageName))
	if err != nil {
		return nil, err
	}
	name := "before-restore-" + time.Now().UTC().Format("20060102T150405.000Z")
	var out, in []move
	aside := func(dir, file string) error {
		from := filepath.Join(dir, file)
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if !slices.Contains(r.Aside, to) {
			r.Aside = append(r.Aside, to)
			if err := os.Mkdir(to, 0o700); err != nil {
				return err
			}
		}
		out = append(out, move{from, filepath.Join(to, file)})
		return nil
	}
	for _, file := range append([]string{""}, companions[:3]...) {
		if err := aside(dbDir, dbName+file); err != nil {
			return nil, err
		}
	}
	replaced := []string{filesName} // also when the backup has none
	for _, e := range staged {
		if e.Name() == dbName && dbDir == filepath.Clean(dataDir) {
			continue
		}
		in = append(in, move{filepath.Join(dataDir, stageName, e.Name()), filepath.Join(dataDir, e.Name())})
		if e.Name() != filesName {
			replaced = append(replaced, e.Name())
		}
	}
	for _, file := range replaced {
		if err := aside(dataDir, file); err != nil {
			return nil, err
		}
	}
	in = append(in, move{filepath.Join(dbDir, stageName, dbName), filepath.Join(dbDir, dbName)})
	return append(out, in...), nil
}

// moveAll makes the moves in order. When one fails it undoes the earlier ones; undone is false
// when that failed too.
func moveAll(moves []move) (undone bool, err error) {
	for i, m := range moves {
		if err = m.make(); err == nil {
			continue
		}
		for _, m := range slices.Backward(moves[:i]) {
			if undo := (move{m.to, m.from}).make(); undo != nil {
				return false, errors.Join(err, undo)
			}
		}
		return true, err
	}
	return true, nil
}

func (m move) make() error {
	if _, err := os.Lstat(m.to); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s is in the way", m.to), err)
	}
	return os.Rename(m.from, m.to)
}
