package auth

import "context"

// Remembered returns how many signatures are remembered.
func (s *Service) Remembered() int {
	s.nonces.mu.Lock()
	defer s.nonces.mu.Unlock()
	n := 0
	for _, used := range s.nonces.keys {
		n += len(used)
	}
	return n
}

// Flush writes last uses and failed logins.
func (s *Service) Flush(ctx context.Context) error { return s.flush(ctx) }

// Callers returns how many callers a limiter tells apart.
func (l *Limiter) Callers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.callers)
}

// Limits that tests reach.
const (
	MaxNonces       = maxNonces
	MaxLimited      = maxLimited
	MaxPending      = maxPending
	MaxPendingCodes = maxPendingCodes
	MaxFailures     = maxFailures
	MaxKeys         = maxKeys
	MaxSecrets      = maxSecrets
	MaxDelivered    = maxDelivered
	HandOutGrace    = handOutGrace
	CodeLife        = codeLife
	CodeMemory      = codeMemory
	CheckpointEvery = checkpointEvery
	RegisterBurst   = registrationsPerMinute
)

// ReadPHC reads a hashed password and returns it as it is written, and the memory it takes in KiB.
func ReadPHC(s string) (again string, memory uint32, ok bool) {
	p, err := parsePHC(s)
	return p.String(), p.memory, err == nil
}
