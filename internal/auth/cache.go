package auth

import "sync"

// maxCached bounds each table of the cache.
const maxCached = 10_000

// A cache keeps what is asked at every call. It is forgotten as a whole at every change of rights:
// those are rare.
type cache struct {
	mu         sync.Mutex
	number     uint64 // of the state of rights; grows with every change
	principals table[Principal]
	keys       table[string] // principals by fingerprint
	tokens     table[Token]
	hashes     table[Token] // API tokens by the hash of what is shown
	owners     table[AgentID]
	access     table[access] // of MCP clients, by the hash of what is shown
}

// A table maps an id to what is stored under it; nil is empty.
type table[T any] map[string]T

func (c *cache) clear() {
	c.principals, c.keys, c.tokens = make(table[Principal]), make(table[string]), make(table[Token])
	c.hashes, c.owners = make(table[Token]), make(table[AgentID])
	c.access = make(table[access])
}

// state returns the number of the state of rights.
func (c *cache) state() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.number
}

// forget is called after each change.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	c.clear()
}

// lookup returns what is cached, or loads it. What was loaded while rights changed is not kept.
func lookup[T any](c *cache, of func(*cache) table[T], id string, load func() (T, error)) (T, error) {
	c.mu.Lock()
	number := c.number
	v, ok := of(c)[id]
	c.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := load()
	if err != nil {
		return v, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.number == number {
		if len(of(c)) >= maxCached {
			clear(of(c))
		}
		of(c)[id] = v
	}
	return v, nil
}

func (s *Service) principal(read Reader, id string) (Principal, error) {
	return lookup(&s.cache, func(c *cache) table[Principal] { return c.principals }, id, func() (Principal, error) { return read.Principal(id) })
}

func (s *Service) token(read Reader, id string) (Token, error) {
	return lookup(&s.cache, func(c *cache) table[Token] { return c.tokens }, id, func() (Token, error) { return read.Token(id) })
}

func (s *Service) tokenByHash(read Reader, hash []byte) (Token, error) {
	return lookup(&s.cache, func(c *cache) table[Token] { return c.hashes }, string(hash), func() (Token, error) { return read.TokenByHash(hash) })
}

func (s *Service) owner(read Reader, agentID string) (AgentID, error) {
	return lookup(&s.cache, func(c *cache) table[AgentID] { return c.owners }, agentID, func() (AgentID, error) { return read.AgentOwner(agentID) })
}

// holder returns the principal that a key belongs to.
func (s *Service) holder(read Reader, fingerprint string) (Principal, error) {
	id, err := lookup(&s.cache, func(c *cache) table[string] { return c.keys }, fingerprint, func() (string, error) {
		p, err := read.PrincipalByKey(fingerprint)
		return p.ID, err
	})
	if err != nil {
		return Principal{}, err
	}
	return s.principal(read, id)
}
