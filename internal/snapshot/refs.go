package snapshot

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/drsync/drsync/internal/blob"
)

// A reference list is a zstd stream of text lines "<sum> <length>\n", strictly
// ascending by sum, closed by a line "end <count>\n". zstdcat shows it.

func refsName(set string) string { return "refs-" + set + ".zst" }

func writeRefs(path string, refs iter.Seq2[blob.Ref, error]) (count, bytes int64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return 0, 0, fmt.Errorf("write reference list: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			err = fmt.Errorf("write reference list %s: %w", path, err)
		}
	}()
	z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(true))
	if err != nil {
		return 0, 0, err
	}
	var last blob.Sum
	var line []byte
	for r, rerr := range refs {
		if rerr != nil {
			return 0, 0, errors.Join(rerr, z.Close())
		}
		if !r.Sum.Valid() || r.Sum <= last || r.Size < 0 {
			return 0, 0, errors.Join(fmt.Errorf("%q (length %d) after %q: malformed or not ascending", r.Sum, r.Size, last), z.Close())
		}
		last = r.Sum
		count++
		bytes += r.Size
		line = append(line[:0], r.Sum...)
		line = append(line, ' ')
		line = strconv.AppendInt(line, r.Size, 10)
		line = append(line, '\n')
		if _, err := z.Write(line); err != nil {
			return 0, 0, err
		}
	}
	if _, err := fmt.Fprintf(z, "end %d\n", count); err != nil {
		return 0, 0, err
	}
	if err := z.Close(); err != nil {
		return 0, 0, err
	}
	return count, bytes, f.Sync()
}

// sumOfFile returns the SHA-256 of a file.
func sumOfFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func readRefs(path string) iter.Seq2[blob.Ref, error] {
	return func(yield func(blob.Ref, error) bool) {
		fail := func(err error) { yield(blob.Ref{}, fmt.Errorf("read reference list %s: %w", path, err)) }
		f, err := os.Open(path)
		if err != nil {
			fail(err)
			return
		}
		defer f.Close()
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
		if err != nil {
			fail(err)
			return
		}
		defer z.Close()
		if err := parseRefs(z, yield); err != nil {
			fail(err)
		}
	}
}

// parseRefs yields each reference; the result is nil when the list ended as it
// must or the consumer stopped.
func parseRefs(r io.Reader, yield func(blob.Ref, error) bool) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var last blob.Sum
	var count int64
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		name, number, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		n, perr := strconv.ParseInt(number, 10, 64)
		if !ok || perr != nil || n < 0 {
			return fmt.Errorf("malformed line %q", line)
		}
		if name == "end" {
			if n != count {
				return fmt.Errorf("%d entries, but the last line says %d", count, n)
			}
			if _, err := br.ReadByte(); err != io.EOF {
				return errors.New("data after the last line")
			}
			return nil
		}
		sum := blob.Sum(name)
		if !sum.Valid() || sum <= last {
			return fmt.Errorf("%q after %q: malformed or not ascending", sum, last)
		}
		last = sum
		count++
		if !yield(blob.Ref{Sum: sum, Size: n}, nil) {
			return nil
		}
	}
}
