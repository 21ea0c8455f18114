package rsyncx

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// errShut says that a directory of the destination, which is not ours, does not
// let us change what is in it. It costs the names that would have changed, no others.
var errShut = errors.New("permission denied")

// shutOut takes note of a name that cannot be changed, if that is what err is
// about, and returns what else it is.
func (s *stager) shutOut(path string, err error) error {
	if !errors.Is(err, errShut) {
		return err
	}
	s.stats.Left++
	s.notes.add("an entry was left as it was: only root or its owner may change the directory that it is in")
	s.warn(path, "left as it was: the directory that it is in cannot be changed: permission denied")
	return nil
}

// unlock opens a directory of the destination. One of our own whose mode keeps
// us out gets a mode that does not, until lock is called: that also closes it.
func (s *stager) unlock(parent int, here *info) (fd int, lock func(), err error) {
	fd, err = openDir(parent, here.Name)
	if !errors.Is(err, unix.EACCES) && (err != nil || s.cmp.root || here.Mode&0o500 == 0o500) {
		return fd, func() { unix.Close(fd) }, err
	}
	if fd >= 0 {
		unix.Close(fd)
	}
	path, err := openat(parent, here.Name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(path)
	st, err := statFd(path)
	switch {
	case err != nil:
		return -1, nil, err
	case s.o.DryRun || st.Dev != here.Dev || st.Ino != here.Ino || s.dst.setMode(path, here.Mode&0o7777|0o700) != nil:
		return -1, nil, unix.EACCES
	}
	fd, err = openDir(parent, here.Name)
	if err != nil {
		return -1, nil, errors.Join(err, s.dst.setMode(path, here.Mode&0o7777))
	}
	return fd, func() {
		if err := s.dst.setMode(fd, here.Mode&0o7777); err != nil {
			s.warn("", fmt.Sprintf("the mode of %s stays open to its owner: %v", Printable(here.Name), err))
		}
		unix.Close(fd)
	}, nil
}
