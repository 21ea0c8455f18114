package filestore

// WithPlanned returns o with another bound on what Fill keeps in memory.
func (o FillOptions) WithPlanned(n int) FillOptions {
	o.planned = n
	return o
}

const (
	MaxOutstanding = maxOutstanding
	SmallBlob      = smallBlob
)

// NewSourceBatch is NewSource with another length of a batch.
func NewSourceBatch(places []Place, batch int) Source { return &placeSource{places, batch} }
