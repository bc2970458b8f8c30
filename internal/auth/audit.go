package auth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"coven-gateway/internal/fault"
)

// An AuditRecord is one change of rights, or a failure to get some.
type AuditRecord struct {
	Seq        int64     `json:"seq"` // 1, 2, 3 …
	At         time.Time `json:"at"`
	Actor      string    `json:"actor"` // the id of a principal; "" where nobody is known
	Action     string    `json:"action"`
	TargetType string    `json:"target_type"`
	Target     string    `json:"target"`
	Detail     string    `json:"detail"` // a JSON object
	Prev       []byte    `json:"prev"`   // the Hash of the record before
	Hash       []byte    `json:"hash"`
}

// An AuditFilter selects records; zero values select all.
type AuditFilter struct {
	After  int64 // records with larger numbers, the oldest first
	Before int64 // unless 0: records with smaller numbers, the newest first
	Action string
	Actor  string
	Target string
	Limit  int
}

// A Checkpoint is the server's signature over the number and hash of a record. It says what the
// log was, whoever could write to the database later.
type Checkpoint struct {
	Seq       int64     `json:"seq"`
	Hash      []byte    `json:"hash"`
	At        time.Time `json:"at"`
	Signature []byte    `json:"signature"`
}

// checkpointEvery is the distance of the checkpoints that are kept, in records.
const checkpointEvery = 64

// chain returns the hash of a record: SHA-256 over the hash of the one before and all its fields,
// each with its length in front.
func (r AuditRecord) chain() []byte {
	h := sha256.New()
	put := func(b []byte) {
		h.Write(binary.AppendUvarint(nil, uint64(len(b))))
		h.Write(b)
	}
	put(r.Prev)
	put(binary.AppendVarint(nil, r.Seq))
	put(binary.AppendVarint(nil, r.At.UnixMicro()))
	for _, s := range []string{r.Actor, r.Action, r.TargetType, r.Target, r.Detail} {
		put([]byte(s))
	}
	return h.Sum(nil)
}

// Follow gives a record its place behind another one; the zero value is the beginning.
func (r AuditRecord) Follow(last AuditRecord) AuditRecord {
	r.Seq, r.Prev = last.Seq+1, last.Hash
	if r.Prev == nil {
		r.Prev = []byte{}
	}
	r.Hash = r.chain()
	return r
}

func (c Checkpoint) message() []byte {
	return fmt.Appendf(nil, "coven audit checkpoint\n%d\n%x\n%d\n", c.Seq, c.Hash, c.At.UnixMicro())
}

func (c Checkpoint) sign(key ed25519.PrivateKey) Checkpoint {
	c.Signature = ed25519.Sign(key, c.message())
	return c
}

// precedes reports whether a checkpoint, which may be the zero value, is a good one of the record
// before r.
func (c Checkpoint) precedes(key ed25519.PublicKey, r AuditRecord) bool {
	return c.Seq == r.Seq-1 && bytes.Equal(c.Hash, r.Prev) && (c.Seq == 0 || ed25519.Verify(key, c.message(), c.Signature))
}

// A Verification is what a check of the audit log found.
type Verification struct {
	OK      bool   `json:"ok"`
	Records int64  `json:"records"`         // that are in order
	Head    string `json:"head"`            // hash of the last of them, hex
	Signed  int64  `json:"signed"`          // number of the newest record whose signature is good
	Bad     int64  `json:"bad,omitempty"`   // number of the first record that is not as it was written
	Fault   string `json:"fault,omitempty"` // what is wrong with it
	Key     string `json:"key"`             // the server's public key, hex
}

// An auditCheck reads an audit log from its beginning and finds the first record that was altered,
// removed or reordered. What follows that one is not looked at.
type auditCheck struct {
	key         ed25519.PublicKey
	checkpoints map[int64]Checkpoint
	last        AuditRecord // in order
	signed      int64       // number of the last record whose signature was verified
	bad         int64
	fault       string
}

func newAuditCheck(key ed25519.PublicKey, checkpoints []Checkpoint) *auditCheck {
	c := &auditCheck{key: key, checkpoints: make(map[int64]Checkpoint)}
	for _, p := range checkpoints {
		c.checkpoints[p.Seq] = p
	}
	return c
}

// next checks the record that follows.
func (c *auditCheck) next(r AuditRecord) {
	if c.fault != "" {
		return
	}
	want := c.last.Seq + 1
	p, signed := c.checkpoints[want]
	fail := func(at int64, format string, args ...any) { c.bad, c.fault = at, fmt.Sprintf(format, args...) }
	switch {
	case r.Seq != want:
		fail(want, "record %d is missing", want)
	case !bytes.Equal(r.Prev, c.last.Hash):
		fail(want, "record %d does not follow record %d", want, c.last.Seq)
	case !bytes.Equal(r.Hash, r.chain()):
		fail(want, "record %d was altered", want)
	case !signed && want%checkpointEvery == 0:
		fail(want, "the signature of record %d is missing", want)
	case signed && !ed25519.Verify(c.key, p.message(), p.Signature):
		fail(want, "the signature of record %d was altered", want)
	case signed && !bytes.Equal(p.Hash, r.Hash):
		fail(c.signed+1, "a record from %d to %d was altered and those behind it rewritten: it is not what was signed", c.signed+1, want)
	default:
		c.last = r
		if signed {
			c.signed = want
		}
	}
}

// result returns what was found, once all records were seen.
func (c *auditCheck) result() Verification {
	if c.fault == "" {
		for seq := range c.checkpoints {
			if seq > c.last.Seq {
				c.bad, c.fault = c.last.Seq+1, fmt.Sprintf("record %d is missing", c.last.Seq+1)
			}
		}
	}
	if c.fault == "" && c.signed != c.last.Seq {
		c.bad, c.fault = c.signed+1, fmt.Sprintf("the signature of the newest record, %d, is missing", c.last.Seq)
	}
	return Verification{
		OK: c.fault == "", Records: c.last.Seq, Head: hex.EncodeToString(c.last.Hash), Signed: c.signed,
		Bad: c.bad, Fault: c.fault, Key: hex.EncodeToString(c.key),
	}
}

// auditPage is how many records are read at once.
const auditPage = 500

// auditLog reads the checkpoints and then every record up to the newest of them, in order. What is
// appended meanwhile is not part of it; a record behind the newest checkpoint that nobody has
// signed is.
func (s *Service) auditLog(ctx context.Context, begin func([]Checkpoint) error, each func(AuditRecord) error) error {
	read := s.store.Read(ctx)
	checkpoints, err := read.Checkpoints()
	if err != nil {
		return err
	}
	if err := begin(checkpoints); err != nil {
		return err
	}
	until := newest(checkpoints)
	for after := int64(0); ; {
		records, err := read.AuditRecords(AuditFilter{After: after, Limit: auditPage})
		if err != nil {
			return err
		}
		for _, r := range records {
			if r.Seq > until {
				if last, err := read.LastCheckpoint(); err != nil || last.Seq >= r.Seq {
					return err
				}
				until = math.MaxInt64
			}
			if err := each(r); err != nil {
				return err
			}
			after = r.Seq
		}
		if len(records) < auditPage {
			return nil
		}
	}
}

// newest returns the number of the newest checkpoint, 0 if there is none.
func newest(checkpoints []Checkpoint) int64 {
	if n := len(checkpoints); n > 0 {
		return checkpoints[n-1].Seq
	}
	return 0
}

// VerifyAudit reads the whole audit log and checks every hash and signature.
func (s *Service) VerifyAudit(ctx context.Context) (Verification, error) {
	var check *auditCheck
	err := s.auditLog(ctx, func(checkpoints []Checkpoint) error {
		check = newAuditCheck(s.auditPublic(), checkpoints)
		return nil
	}, func(r AuditRecord) error {
		check.next(r)
		return nil
	})
	if err != nil {
		return Verification{}, err
	}
	return check.result(), nil
}

// AuditRecords returns records of the audit log.
func (s *Service) AuditRecords(ctx context.Context, f AuditFilter) ([]AuditRecord, error) {
	return s.store.Read(ctx).AuditRecords(f)
}

// ExportAudit calls each with every line of an export: the server's public key, the checkpoints
// and the records, as JSON objects. [CheckExport] reads it.
func (s *Service) ExportAudit(ctx context.Context, each func(line []byte) error) error {
	put := func(l exportLine) error {
		b, err := json.Marshal(l)
		if err != nil {
			return err
		}
		return each(b)
	}
	return s.auditLog(ctx, func(checkpoints []Checkpoint) error {
		if err := put(exportLine{Key: s.auditPublic()}); err != nil {
			return err
		}
		for _, c := range checkpoints {
			if err := put(exportLine{Checkpoint: &c}); err != nil {
				return err
			}
		}
		return nil
	}, func(r AuditRecord) error { return put(exportLine{Record: &r}) })
}

// CheckExport checks an export without the gateway. The key in it is only as good as the file:
// compare it with the one that the gateway names.
func CheckExport(r io.Reader) (Verification, error) {
	dec := json.NewDecoder(r)
	var key ed25519.PublicKey
	var checkpoints []Checkpoint
	var check *auditCheck
	for {
		var l exportLine
		switch err := dec.Decode(&l); {
		case errors.Is(err, io.EOF):
			if check == nil {
				check = newAuditCheck(key, checkpoints)
			}
			if len(key) != ed25519.PublicKeySize {
				return Verification{}, fault.New(fault.Invalid, "this is not an export of an audit log: it begins with no key")
			}
			return check.result(), nil
		case err != nil:
			return Verification{}, fault.Wrap(err, fault.Invalid, "this is not an export of an audit log")
		case len(l.Key) == ed25519.PublicKeySize && key == nil:
			key = l.Key
		case l.Checkpoint != nil && check == nil:
			checkpoints = append(checkpoints, *l.Checkpoint)
		case l.Record != nil && key != nil:
			if check == nil {
				check = newAuditCheck(key, checkpoints)
			}
			check.next(*l.Record)
		default:
			return Verification{}, fault.New(fault.Invalid, "this is not an export of an audit log")
		}
	}
}

// exportLine is one line of an export; one of its fields is set.
type exportLine struct {
	Key        ed25519.PublicKey `json:"key,omitempty"`
	Checkpoint *Checkpoint       `json:"checkpoint,omitempty"`
	Record     *AuditRecord      `json:"record,omitempty"`
}
