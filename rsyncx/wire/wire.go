// Package wire carries an rsyncx.Source, a clock and named streams from an
// agent on the active to the standby, over one byte stream each way.
//
// It owns two invariants. What arrives is what the agent read: the content of
// every file and stream is followed by its length and XXH3-128 sum, and a
// listing by an end mark. And neither side trusts the other: every length is
// checked against a bound before memory is taken for it, the client accepts no
// name that a directory cannot hold, and the server reads below its allowed
// roots only and has no request that changes anything.
//
// Both sides begin with eight magic bytes, so that what a shell prints at login
// is recognised, and a Hello with the versions they speak. Then the client
// sends one request at a time; frames are a type byte, a length of four bytes
// (big endian) and that many bytes. Integers inside are varints, strings have
// their length before them.
package wire

import "time"

const (
	magic = "\x00drsync\n"

	// minProtocol to maxProtocol are the versions this package speaks; both
	// sides use the highest that they share.
	minProtocol = 3
	maxProtocol = 3
)

// Bounds on what a peer may send. Nothing larger is ever allocated for it.
const (
	maxFrame    = 1 << 20   // bytes of one frame
	maxRecord   = 256 << 10 // bytes that one compressed frame may become
	recordSize  = 128 << 10 // bytes of frames that are sent together
	dataFrame   = 128 << 10
	batchBytes  = 48 << 10 // a frame of directory entries or names is closed above this
	maxBlocks   = 1 << 22  // sums of blocks in one answer
	blockFrame  = 4096     // sums in one frame
	maxPath     = 4095
	maxName     = 255
	maxTarget   = 4095
	maxOwner    = 255
	maxVersion  = 64
	maxText     = 4 << 10
	maxStream   = 4 << 10 // of a stream's name and of its argument
	maxRoot     = 4095
	maxRoots    = 64 // kept open by one agent process
	maxXattrs   = 128 << 10
	maxRanges   = 32768     // of one question
	maxOnly     = 256 << 20 // bytes of the paths that a walk is restricted to
	entryCost   = 32        // what an entry counts for against rsyncx.MaxDirBytes, besides its strings
	maxQueued   = 4 << 20   // bytes that a client has sent and that nobody looked at
	maxFrames   = 4096      // the same, in frames
	maxSkipped  = 8 << 20   // of an answer that was called off
	window      = 16384     // files asked for and not yet answered
	maxAhead    = 4096      // directories announced before the oldest one is settled
	maxInterned = 1024
)

// aliveEvery is how often the server speaks up in a request that may be silent
// for long without being stuck: walking a large directory, or making a stream.
const aliveEvery = 15 * time.Second

// An agent that says only that it lives is believed for longestAlive times the
// silence that it may keep, at least for leastAlive: a large directory on a slow disk, which is sent
// when it was read to its end, takes its time. Where nothing can be sent before
// one file was read, or before a database is ready to be copied, it is for leastAliveWhole.
const (
	longestAlive    = 20
	leastAlive      = 15 * time.Minute
	leastAliveWhole = 6 * time.Hour
)

// maxNameErrors bounds the names in one listing that could not be read.
const maxNameErrors = 1 << 20

// callOffTime is how long a walk that was left early may take to end.
const callOffTime = 2 * time.Second

// Frame types. Capital letters begin a request or end an answer.
const (
	frameHello = 'H'

	// From the client.
	frameOpen     = 'O'
	frameLstat    = 'L'
	frameWalk     = 'W'
	frameRead     = 'R'
	frameSums     = 'U'
	frameClock    = 'C'
	frameStream   = 'S'
	frameNames    = 'n' // more to read, to make sums of, or to restrict a walk to
	frameNamesEnd = 'e'
	frameVerdicts = 'v' // on directories that were announced
	frameStop     = 'q' // ends the walk under way, if it has not ended yet

	// From the server.
	frameAbilities = 'A'
	frameEntry     = 'Y'
	frameTime      = 'T'
	frameAhead     = 'g' // what directories come, and the digests of some
	frameDir       = 'd'
	frameEntries   = 'i'
	frameDirEnd    = 'D'
	frameDirError  = 'p'
	frameFile      = 'f'
	frameFileError = 'x'
	frameData      = 'b'
	frameZeros     = 'z' // a run of zeros
	frameSum       = 's' // ends a file or a stream: length and sum
	frameCut       = 'c' // ends a file or a stream before its end: the error
	frameSumsOf    = 'h' // begins the sums of one file
	frameBlocks    = 'K' // more sums of blocks
	frameDone      = 'Z'
	frameError     = 'E'
	frameAlive     = 'k'
	frameSqueezed  = 'u' // frames, compressed
)
