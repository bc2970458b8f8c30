package auth

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"coven-gateway/internal/fault"
)

// maxLimited bounds the callers that a limiter tells apart. When there are more, those it does not
// know share one allowance.
const maxLimited = 10_000

// A Limiter gives each caller an allowance of so many events per second, and more at once.
type Limiter struct {
	perSecond rate.Limit
	burst     int

	mu      sync.Mutex
	callers map[string]*rate.Limiter
	others  *rate.Limiter
	swept   time.Time
}

// NewLimiter returns a limiter; with perSecond 0 it allows everything.
func NewLimiter(perSecond float64, burst int) *Limiter {
	return &Limiter{perSecond: rate.Limit(perSecond), burst: burst, callers: make(map[string]*rate.Limiter), others: rate.NewLimiter(rate.Limit(perSecond), burst)}
}

// Allow takes one event from a caller's allowance, or returns a Limited fault that says when to
// come back.
func (l *Limiter) Allow(caller string) error {
	if l.perSecond == 0 {
		return nil
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.of(caller, now)
	if c.AllowN(now, 1) {
		return nil
	}
	wait := time.Duration(math.Ceil((1 - c.TokensAt(now)) / float64(l.perSecond) * float64(time.Second)))
	return fault.TooOften(wait, "too many requests; come back in %s", max(wait, time.Second).Round(time.Second))
}

// of returns the allowance of a caller. l.mu is held.
func (l *Limiter) of(caller string, now time.Time) *rate.Limiter {
	if c := l.callers[caller]; c != nil {
		return c
	}
	if len(l.callers) >= maxLimited && now.Sub(l.swept) > time.Second {
		l.swept = now
		for k, c := range l.callers { // one with a full allowance need not be remembered
			if c.TokensAt(now) >= float64(l.burst) {
				delete(l.callers, k)
			}
		}
	}
	if len(l.callers) >= maxLimited {
		return l.others
	}
	c := rate.NewLimiter(l.perSecond, l.burst)
	l.callers[caller] = c
	return c
}
