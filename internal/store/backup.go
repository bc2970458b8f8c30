package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A Place is where a gateway keeps its data.
type Place struct {
	DataDir  string // has files/ and what identifies the gateway
	Database string // path of the database, which need not be in DataDir
}

// Names in a backup. Everything else in it has the name it has in the data directory.
const (
	databaseName = "gateway.db"
	filesName    = "files"
	backupLock   = ".lock" // appended to filesName: held while contents must stay
	manifestName = "manifest.json"
)

// backupFormat is the format of the backups that are made here, and the newest one that is read.
const backupFormat = 1

// A Manifest says what is in a backup. It is written last: a folder without one is no backup.
type Manifest struct {
	Format    int          `json:"format"`
	CreatedAt time.Time    `json:"created_at"` // when the database was about to be copied
	Gateway   string       `json:"gateway_version"`
	Schema    int64        `json:"schema_version"`
	Counts    Counts       `json:"counts"`
	Files     []BackupFile `json:"files"`
	SHA256    string       `json:"sha256"` // of the manifest as it is with "" here
}

// Counts are the rows of the tables that people have a notion of.
type Counts struct {
	Conversations int64 `json:"conversations"`
	Threads       int64 `json:"threads"`
	Turns         int64 `json:"turns"`
	Events        int64 `json:"events"` // a block of increments is one
	Files         int64 `json:"files"`  // sent or received; the same content twice is two
}

// A BackupFile is one file of a backup, the manifest excepted.
type BackupFile struct {
	Path   string `json:"path"` // below the backup, with slashes
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Size is how many bytes the files of the backup have.
func (m Manifest) Size() int64 {
	var n int64
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// Backup copies what a gateway keeps into the folder target, which must not exist or be empty. The
// gateway may run: the database is copied as it is at one moment, without the lock. Contents of
// files are durable before the row that refers to them, never change, and are not removed meanwhile,
// so that those of the copied database can be copied after it.
//
// target appears when everything in it is durable and has been verified. Until then there is
// target.partial; on an error that is removed.
func Backup(ctx context.Context, from Place, target, version string) (m Manifest, err error) {
	if err := from.check(); err != nil {
		return m, err
	}
	if _, err := os.Stat(from.Database); err != nil {
		return m, fmt.Errorf("there is no database to copy: %w", err)
	}
	if err := interruptedRestore(from.Database); err != nil {
		return m, err
	}
	target = filepath.Clean(target)
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return m, err
	}
	if err := removeEmpty(target); err != nil {
		return m, err
	}
	partial := target + ".partial"
	if err := os.Mkdir(partial, 0o700); errors.Is(err, fs.ErrExist) {
		return m, fmt.Errorf("%s exists: a backup is being made there, or one was interrupted and the folder can be removed", partial)
	} else if err != nil {
		return m, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(partial))
		}
	}()
	m = Manifest{Format: backupFormat, CreatedAt: time.Now().UTC(), Gateway: version}
	if err := m.gather(ctx, from, partial); err != nil {
		return m, err
	}
	if err := m.write(partial); err != nil {
		return m, err
	}
	if err := syncFolders(partial); err != nil {
		return m, err
	}
	if m, err = VerifyBackup(ctx, partial); err != nil {
		return m, fmt.Errorf("the copy is not good: %w", err)
	}
	if err := os.Rename(partial, target); err != nil {
		return m, err
	}
	return m, syncFolder(filepath.Dir(target))
}

func (p Place) check() error {
	if p.Database == Memory {
		return fmt.Errorf("the database is kept in memory (database.path is %s): there is nothing to copy", Memory)
	}
	return nil
}

// removeEmpty removes a folder where there is one, and refuses when it has something in it.
func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty; a backup needs a folder of its own", dir)
	}
	return os.Remove(dir)
}

// gather copies everything into the folder to, and writes it down.
func (m *Manifest) gather(ctx context.Context, from Place, to string) (err error) {
	lock, err := shareLock(filepath.Join(from.DataDir, filesName+backupLock))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	path := filepath.Join(to, databaseName)
	if err := copyDatabase(ctx, from.Database, path); err != nil {
		return fmt.Errorf("copy database %s: %w", from.Database, err)
	}
	db, err := inspect(ctx, path)
	if err != nil {
		return err
	}
	m.Schema, m.Counts = db.schema, db.counts
	f := BackupFile{Path: databaseName}
	if f.Size, f.SHA256, err = sumFile(path); err != nil {
		return err
	}
	m.Files = append(m.Files, f)
	for _, name := range db.blobs {
		path := filepath.Join(filesName, name[:2], name)
		if err := m.copy(ctx, from.DataDir, to, path); err != nil {
			return err
		}
		if got := m.Files[len(m.Files)-1].SHA256; got != name {
			return fmt.Errorf("%s is damaged: its SHA-256 is %s", filepath.Join(from.DataDir, path), got)
		}
	}
	entries, err := os.ReadDir(from.DataDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || e.Name() == manifestName || e.Name() == filesName+backupLock || ofDatabase(e.Name(), databaseName) || ofDatabase(e.Name(), filepath.Base(from.Database)) {
			continue
		}
		if err := m.copy(ctx, from.DataDir, to, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// companions are what may lie beside a database, by what is appended to its name. The first three
// are SQLite's and belong to the content.
var companions = []string{"-wal", "-shm", "-journal", ".lock", restoringSuffix}

// ofDatabase reports whether name is the database or one of its companions.
func ofDatabase(name, database string) bool {
	return name == database || slices.ContainsFunc(companions, func(suffix string) bool { return name == database+suffix })
}

// copyDatabase copies a database as it is at one moment. Whoever writes meanwhile is not held up;
// the write-ahead log cannot be cut back until the copy is done.
func copyDatabase(ctx context.Context, from, to string) error {
	db, err := openReadOnly(from)
	if err != nil {
		return err
	}
	defer db.Close()
	f, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // before SQLite does it with another mode
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO $1", to)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// openReadOnly opens a database that may be in use. SQLite itself refuses to write to it.
func openReadOnly(path string) (*sql.DB, error) {
	return sql.Open("sqlite", fmt.Sprintf("file:%s?mode=ro&_pragma=busy_timeout(%d)", (&url.URL{Path: path}).EscapedPath(), busyTimeout.Milliseconds()))
}

// openImmutable opens a database that nobody uses and that has no write-ahead log, without making
// files beside it.
func openImmutable(path string) (*sql.DB, error) {
	return sql.Open("sqlite", fmt.Sprintf("file:%s?mode=ro&immutable=1", (&url.URL{Path: path}).EscapedPath()))
}

// copy copies a file to the same path below another folder and writes it down.
func (m *Manifest) copy(ctx context.Context, from, to, path string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	f := BackupFile{Path: filepath.ToSlash(path)}
	var err error
	if f.Size, f.SHA256, err = copyFile(filepath.Join(from, path), filepath.Join(to, path)); err != nil {
		return err
	}
	m.Files = append(m.Files, f)
	return nil
}

// copyFile copies a file durably (its name apart), and the folder it is in where there is none yet.
func copyFile(from, to string) (size int64, sum string, err error) {
	src, err := os.Open(from)
	if err != nil {
		return 0, "", err
	}
	defer src.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return 0, "", err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, "", err
	}
	h := sha256.New()
	size, err = io.Copy(io.MultiWriter(dst, h), src)
	if err == nil {
		err = dst.Sync()
	}
	return size, hex.EncodeToString(h.Sum(nil)), errors.Join(err, dst.Close())
}

func sumFile(path string) (size int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return size, hex.EncodeToString(h.Sum(nil)), err
}

// syncFolders makes the names in a folder, and in all below it, durable.
func syncFolders(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncFolder(path)
	})
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// write stores the manifest in a folder.
func (m Manifest) write(folder string) error {
	sum := sha256.Sum256(m.encode())
	m.SHA256 = hex.EncodeToString(sum[:])
	return writeDurably(filepath.Join(folder, manifestName), m.encode())
}

// encode returns the only form in which a manifest is valid, so that a change of any byte of it
// is noticed.
func (m Manifest) encode() []byte {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic(err) // strings, numbers and a time of this era
	}
	return append(b, '\n')
}

// readManifest reads the manifest of a folder and checks it in itself.
func readManifest(folder string) (Manifest, error) {
	var m Manifest
	path := filepath.Join(folder, manifestName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%s is no complete backup: it has no %s", folder, manifestName)
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if m.Format > backupFormat {
		return m, fmt.Errorf("%s has format %d, this gateway knows only %d: the backup was made by a newer gateway", path, m.Format, backupFormat)
	}
	bare := m
	bare.SHA256 = ""
	if sum := sha256.Sum256(bare.encode()); !bytes.Equal(m.encode(), b) || m.SHA256 != hex.EncodeToString(sum[:]) {
		return m, fmt.Errorf("%s is damaged: it is not what was written", path)
	}
	for _, f := range m.Files {
		if !filepath.IsLocal(filepath.FromSlash(f.Path)) {
			return m, fmt.Errorf("%s names %q, which is outside of the backup", path, f.Path)
		}
	}
	return m, nil
}
