package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx/cli"
)

// inspectFiles looks at what the configuration names on this host and only a
// connection or a run needs, so that all of it is reported at once.
func inspectFiles(cfg *config.Config, c cli.Command) error {
	var errs []error
	problem := func(key string, err error, advice string) {
		if err != nil {
			errs = append(errs, cfg.Problem(key, hint.With(err, advice)))
		}
	}
	if id := cfg.Active.Identity; id != "" {
		problem("active.identity", readable(id), "make the key with ssh-keygen -t ed25519 -N '' -f "+id)
	}
	if known := cfg.Active.KnownHosts; known != "" {
		problem("active.known_hosts", readable(known), "fill it with ssh-keyscan "+cfg.Active.Host+" and compare the fingerprint with the active's own")
	}
	if home := cfg.Standby.Home; home != "" {
		problem("standby.home", isDirectory(home), "install the application here, or make the directory")
	}
	for _, dir := range cfg.Standby.Filestore {
		problem("standby.filestore", isDirectory(dir), "mount or make the directory")
	}
	if path, key := logPath(cfg, c, output{}); path != "" {
		problem(key, writable(path), "name a file in a directory where drsync may write")
	}
	return errors.Join(errs...)
}

func readable(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not make us wait
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	return err
}

func isDirectory(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a directory", path)
	}
	return err
}

// writable says whether path could be opened for writing, with its directories
// made where they are missing. It makes nothing.
func writable(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil {
		return accessible(path, unix.W_OK)
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // the root is always there
		case err != nil:
			return err
		case !info.IsDir():
			return fmt.Errorf("%s is not a directory", dir)
		}
		return accessible(dir, unix.W_OK|unix.X_OK)
	}
}

func accessible(path string, mode uint32) error {
	if err := unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	return nil
}
