package conversation

import "time"

// Hurry makes the keeper of a service work without pauses. It is called before anything is said.
func Hurry(s *Service) { s.keeper.pause = 0 }

// Retain removes the turns that ended before a time, as the keeper does.
func Retain(s *Service, before time.Time) error { return s.keeper.retainEvents(before, 0) }

// FinishDeletions removes what is left of deleted threads, as the keeper does.
func FinishDeletions(s *Service) error { return s.keeper.finishDeletions() }
