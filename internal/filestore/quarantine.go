package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/blob"
)

// openQuarantine opens _drsync/quarantine; it wraps fs.ErrNotExist when there is none.
func (d *Dir) openQuarantine() (int, error) {
	own, err := unix.Openat(d.root, ownDir, dirFlags, 0)
	if err != nil {
		return -1, notADirectory(err)
	}
	defer unix.Close(own)
	fd, err := unix.Openat(own, quarantineDir, dirFlags, 0)
	return fd, notADirectory(err)
}

func (d *Dir) makeQuarantine() (int, error) {
	own, err := d.makeDir(d.root, ownDir)
	if err != nil {
		return -1, err
	}
	defer unix.Close(own)
	return d.makeDir(own, quarantineDir)
}

// Quarantine implements Quarantiner: the blob moves to _drsync/quarantine in
// the same store, and its modification time becomes now.
func (d *Dir) Quarantine(ctx context.Context, sum blob.Sum) error {
	if err := d.beginWrite(ctx, sum); err != nil {
		return err
	}
	return d.wrap("quarantine", sum, d.quarantine(sum))
}

func (d *Dir) quarantine(sum blob.Sum) error {
	from, err := d.openPrefix(d.root, sum)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	if _, err := statBlob(from, string(sum)); err != nil {
		return err
	}
	q, err := d.makeQuarantine()
	if err != nil {
		return fmt.Errorf("open the quarantine: %w", err)
	}
	defer unix.Close(q)
	to, err := d.makePrefix(q, sum)
	if err != nil {
		return fmt.Errorf("open the quarantine: %w", err)
	}
	defer unix.Close(to)
	return move(from, to, sum)
}

// move renames a blob and sets its time first: a crash between the two leaves
// a blob that looks newer than it is, which only delays its removal.
func move(from, to int, sum blob.Sum) error {
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	if err := unix.UtimesNanoAt(from, string(sum), now, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.Renameat(from, string(sum), to, string(sum))
}

// Restore implements Quarantiner. What is in quarantine under that name with
// other content stays there, and is ErrCorrupt.
func (d *Dir) Restore(ctx context.Context, ref blob.Ref) error {
	if err := d.beginWrite(ctx, ref.Sum); err != nil {
		return err
	}
	return d.wrap("restore", ref.Sum, d.restore(ctx, ref))
}

func (d *Dir) restore(ctx context.Context, ref blob.Ref) error {
	q, err := d.openQuarantine()
	if err != nil {
		return err
	}
	defer unix.Close(q)
	f, err := d.openIn(q, ref.Sum)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := verified(ctx, ref, f, nil); err != nil {
		return err
	}
	from, err := d.openPrefix(q, ref.Sum)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := d.makePrefix(d.root, ref.Sum)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	return move(from, to, ref.Sum)
}

// Quarantined implements Quarantiner.
func (d *Dir) Quarantined(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if d.root < 0 {
			return
		}
		q, err := d.openQuarantine()
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err == nil {
			defer unix.Close(q)
			err = d.listIn(ctx, q, func(i Info) bool { return yield(i, nil) })
		}
		if err != nil {
			yield(Info{}, fmt.Errorf("list the quarantine of %s: %w", d.path, err))
		}
	}
}

// Purge implements Quarantiner. A blob that is not in quarantine is ErrNotFound.
func (d *Dir) Purge(ctx context.Context, sum blob.Sum) error {
	if err := d.beginWrite(ctx, sum); err != nil {
		return err
	}
	q, err := d.openQuarantine()
	if err != nil {
		return d.wrap("purge", sum, err)
	}
	defer unix.Close(q)
	return d.wrap("purge", sum, d.deleteIn(q, sum))
}
