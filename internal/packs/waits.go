package packs

import (
	"sync"

	"coven-gateway/internal/fault"
)

// waits knows which agents wait for which: while a call of an agent is answered by another one.
// Which of its turns an agent calls from is not always known, so agents are told apart and their
// turns are not; an agent that answers one message at a time would hang, whichever turn it is.
type waits struct {
	mu sync.Mutex
	on map[string]map[string]int // calls of the first agent that the second one has to answer
}

// add notes that an agent waits for another one. An empty waiter is somebody for whom nobody waits.
func (w *waits) add(waiter, target string) (done func(), err error) {
	if waiter == "" {
		return func() {}, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if waiter == target {
		return nil, fault.New(fault.Conflict, "agent %q would wait for itself: the call could never end", waiter)
	}
	if w.leads(target, waiter, map[string]bool{}) {
		return nil, fault.New(fault.Conflict, "agent %q is waiting for agent %q, so %q cannot wait for it: the call could never end", target, waiter, waiter)
	}
	if w.on == nil {
		w.on = make(map[string]map[string]int)
	}
	if w.on[waiter] == nil {
		w.on[waiter] = make(map[string]int)
	}
	w.on[waiter][target]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.on[waiter][target]--; w.on[waiter][target] == 0 {
			delete(w.on[waiter], target)
		}
		if len(w.on[waiter]) == 0 {
			delete(w.on, waiter)
		}
	}, nil
}

// leads reports whether an agent waits for another one, directly or through others. w.mu is held.
func (w *waits) leads(from, to string, seen map[string]bool) bool {
	seen[from] = true
	for next := range w.on[from] {
		if next == to || !seen[next] && w.leads(next, to, seen) {
			return true
		}
	}
	return false
}
