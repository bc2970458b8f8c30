package auth

import (
	"sync"
	"time"

	"coven-gateway/internal/fault"
)

// Bounds of what is remembered of signatures.
const (
	// nonceLife is how long a signature is remembered after its timestamp: as long as it could be
	// accepted again.
	nonceLife = maxProofAge + maxProofAhead
	// maxNonces bounds the signatures of one key that are remembered at once. Only signatures that
	// verified count, so nobody else can use it up.
	maxNonces = 20_000
	// nonceSweep is how often signatures that are too old are forgotten.
	nonceSweep = time.Minute
)

// nonces remembers which signature was used on which connection: some programs sign once and use
// the signature for every call of a connection (grpc.md 2.4), and nobody else may use it.
type nonces struct {
	mu    sync.Mutex
	keys  map[string]map[string]use // by fingerprint, then by timestamp and nonce
	swept time.Time
}

type use struct {
	connection uint64
	until      time.Time
}

// accept notes a verified signature. It refuses one that was first used on another connection.
func (n *nonces) accept(s signed, connection uint64, now time.Time) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sweep(now)
	key := string(s.message)
	used := n.keys[s.fingerprint]
	if u, ok := used[key]; ok && u.until.After(now) {
		if connection == 0 || u.connection != connection {
			return fault.New(fault.Unauthenticated, "SSH auth failed: nonce already used (possible replay attack)")
		}
		return nil
	}
	if len(used) >= maxNonces {
		return fault.New(fault.Limited, "this key has made %d signatures in the last minutes; use one for several calls of a connection", maxNonces)
	}
	if used == nil {
		used = make(map[string]use)
		n.keys[s.fingerprint] = used
	}
	used[key] = use{connection, s.at.Add(nonceLife)}
	return nil
}

// sweep forgets what is too old, now and then. n.mu is held.
func (n *nonces) sweep(now time.Time) {
	if now.Sub(n.swept) < nonceSweep {
		return
	}
	n.swept = now
	for fp, used := range n.keys {
		for key, u := range used {
			if !u.until.After(now) {
				delete(used, key)
			}
		}
		if len(used) == 0 {
			delete(n.keys, fp)
		}
	}
}
