package filestore

// WithPlanned returns o with another bound on what Fill keeps in memory.
func (o FillOptions) WithPlanned(n int) FillOptions {
	o.planned = n
	return o
}

const (
	MaxOutstanding = maxOutstanding
	SmallBlob      = smallBlob
	PlaceBatch     = placeBatch
)
