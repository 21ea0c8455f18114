package rsyncx

// Lock takes the destination for this Root alone, until Close. Stage and
// OpenStaged do so too; whoever wants to keep others out between them, or
// before, calls it first. A destination that another Root holds is ErrBusy.
func (r *Root) Lock() error { return r.lock() }
