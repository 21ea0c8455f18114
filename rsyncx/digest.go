package rsyncx

// DirDigest stands for the entries of one directory, as far as DigestOptions
// cover them: two directories with the same digest have, in that regard, the
// same entries.
type DirDigest [16]byte

// DigestOptions say which facts of its entries a directory's digest covers,
// beside names, types, lengths of regular files, targets of links and numbers
// of devices.
type DigestOptions struct {
	Perms       bool
	Owner       bool
	Group       bool
	NumericIDs  bool // owners by number; otherwise by name where there is one
	Times       bool
	Nanoseconds bool // times with these
	// HardLinks keeps directories apart that hold a file with several names: their
	// entries are always sent.
	HardLinks bool
}
