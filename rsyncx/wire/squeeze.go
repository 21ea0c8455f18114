package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Compress says when an agent compresses what it sends.
type Compress uint8

const (
	CompressAuto   Compress = iota // while the line is slow and it helps
	CompressAlways                 // whatever becomes shorter
	CompressNever
	CompressDefault // always, and harder than CompressAlways
	CompressBetter  // harder still
	CompressBest    // as hard as it goes
	compressModes
)

// level is that of the compressor, which has four for zstd's 22.
func (c Compress) level() zstd.EncoderLevel {
	switch c {
	case CompressDefault:
		return zstd.SpeedDefault
	case CompressBetter:
		return zstd.SpeedBetterCompression
	case CompressBest:
		return zstd.SpeedBestCompression
	}
	return zstd.SpeedFastest
}

const (
	smallestRecord = 512 // bytes; below, nothing is won
	// pressPeriod is how long the line is watched before it is judged, and
	// slowLine, in bytes a second, is what counts as slow: a compressor keeps up with a few times more.
	pressPeriod = 100 * time.Millisecond
	slowLine    = 64 << 20
	// maxPause is how many records are not tried after some that would not shrink.
	maxPause = 128
)

// press writes records of frames, compressed when that pays.
type press struct {
	mode    Compress
	encoder *zstd.Encoder
	out     []byte

	on      bool          // CompressAuto found the line slow
	since   time.Time     // when it began to watch
	waiting time.Duration // of the time since, spent in Write
	sent    int64         // bytes
	pause   int           // records that are not tried
	failed  int           // length of the next pause
}

// write writes a record of whole frames.
func (p *press) write(w io.Writer, record []byte) error {
	out := record
	if p.wanted(len(record)) {
		var err error
		if out, err = p.squeeze(record); err != nil {
			return err
		}
	}
	if p.mode != CompressAuto {
		_, err := w.Write(out)
		return err
	}
	start := time.Now()
	_, err := w.Write(out)
	p.judge(start, time.Now(), len(out))
	return err
}

func (p *press) wanted(size int) bool {
	switch {
	case size < smallestRecord || size > maxRecord || p.mode == CompressNever:
		return false
	case p.mode != CompressAuto:
		return true
	case p.pause > 0:
		p.pause--
		return false
	}
	return p.on
}

// judge decides whether the line is what everything waits for.
func (p *press) judge(start, end time.Time, n int) {
	if p.since.IsZero() {
		p.since = start
	}
	p.waiting += end.Sub(start)
	p.sent += int64(n)
	total := end.Sub(p.since)
	if total < pressPeriod {
		return
	}
	slow := p.sent < int64(total.Seconds()*slowLine)
	if p.on {
		p.on = slow && p.waiting > total/8
	} else {
		p.on = slow && p.waiting > total/2
	}
	p.since, p.waiting, p.sent = end, 0, 0
}

// squeeze returns the record as one frame that holds it compressed, or as it is
// when that is hardly longer. The result is valid until the next call.
func (p *press) squeeze(record []byte) ([]byte, error) {
	if p.encoder == nil {
		var err error
		p.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(p.mode.level()), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
			zstd.WithWindowSize(maxRecord), zstd.WithEncoderCRC(false))
		if err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
	}
	p.out = append(p.out[:0], make([]byte, headerSize)...)
	p.out = binary.AppendUvarint(p.out, uint64(len(record)))
	p.out = p.encoder.EncodeAll(record, p.out)
	if len(p.out) > len(record)-len(record)/8 {
		p.failed = min(max(8, 2*p.failed), maxPause)
		p.pause = p.failed
		return record, nil
	}
	p.failed = 0
	appendHeader(p.out[:0], frameSqueezed, len(p.out)-headerSize)
	return p.out, nil
}

// unsqueeze decompresses the payload of such a frame into buf.
func unsqueeze(decoder *zstd.Decoder, payload, buf []byte) ([]byte, error) {
	size, n := binary.Uvarint(payload)
	if n <= 0 || size == 0 || size > maxRecord {
		return nil, hostile("a compressed frame of %d bytes", size)
	}
	// The decoder was given a limit of its own: it never makes more than that.
	out, err := decoder.DecodeAll(payload[n:], buf[:0])
	if err != nil {
		return nil, hostile("a compressed frame: %v", err)
	}
	if uint64(len(out)) != size {
		return nil, hostile("a compressed frame of %d bytes that said %d", len(out), size)
	}
	return out, nil
}

func newDecoder() (*zstd.Decoder, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxRecord), zstd.WithDecoderMaxWindow(maxRecord))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return d, nil
}
