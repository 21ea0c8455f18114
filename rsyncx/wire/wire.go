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
	minProtocol = 1
	maxProtocol = 1
)

// Bounds on what a peer may send. Nothing larger is ever allocated for it.
const (
	maxFrame    = 1 << 20 // bytes of one frame
	dataFrame   = 64 << 10
	batchBytes  = 48 << 10 // a frame of directory entries or names is closed above this
	maxPath     = 4095
	maxTarget   = 4095
	maxOwner    = 255
	maxVersion  = 64
	maxText     = 4 << 10
	maxStream   = 4 << 10 // of a stream's name and of its argument
	maxRoot     = 4095
	maxRoots    = 64 // opened by one agent process
	entryCost   = 32 // what an entry counts for against rsyncx.MaxDirBytes, besides its strings
	maxQueued   = 32 << 20
	maxFrames   = 3 * window
	maxSkipped  = 8 << 20 // of an answer that was called off
	window      = 4096    // files asked for and not yet answered
	maxInterned = 1024
)

// aliveEvery is how often the server speaks up in a request that may be silent
// for long without being stuck: walking a large directory, or making a stream.
const aliveEvery = 15 * time.Second

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
	frameClock    = 'C'
	frameStream   = 'S'
	frameNames    = 'n'
	frameNamesEnd = 'e'
	frameStop     = 'q' // ends the walk under way, if it has not ended yet

	// From the server.
	frameAbilities = 'A'
	frameEntry     = 'Y'
	frameTime      = 'T'
	frameDir       = 'd'
	frameEntries   = 'i'
	frameDirEnd    = 'D'
	frameDirError  = 'p'
	frameFile      = 'f'
	frameFileError = 'x'
	frameData      = 'b'
	frameSum       = 's' // ends a file or a stream: length and sum
	frameCut       = 'c' // ends a file or a stream before its end: the error
	frameDone      = 'Z'
	frameError     = 'E'
	frameAlive     = 'k'
)
