package main

import (
	"fmt"

	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/rsyncx/cli"
)

// shown is where a run shows itself: the terminal and the log file.
type shown struct {
	terminal *show.Terminal
	log      *show.LogFile // nil for none
	logKey   string        // where its path was given
	sink     event.Sink
}

// openShown opens the terminal and prepares the log file, if there is one: it is
// made with its first line. The words of files.rsync (-v, --log-file) count
// like those of the command line, except that -v there is for the log file
// alone: what cron mails should not be a list of files. Only with changes is a
// place that cannot be written an error: nothing like that may stop a failover.
// The result is usable also beside an error.
func openShown(o *options, cfg *config.Config, c cli.Command, f output) (*shown, error) {
	s := &shown{terminal: show.NewTerminal(show.TerminalOptions{
		Out: o.err, Bars: f.progress && show.IsTerminal(o.err), Progress: f.progress, Verbose: f.verbose, Quiet: f.quiet,
	})}
	s.sink = s.terminal.Sink
	path, key := logPath(cfg, c, f)
	if path == "" || f.noLog || f.files {
		return s, nil
	}
	if err := writable(path); err != nil && f.changes {
		err = hint.With(fmt.Errorf("log file: %w", err), "name a file in a directory where drsync may write")
		if key == logFlag {
			return s, usageError{fmt.Errorf("%s: %w", key, err)}
		}
		return s, cfg.Problem(key, err)
	}
	s.logKey = key
	s.log = show.NewLogFile(path, func(e event.Event) string { return c.LogLine(e) })
	s.sink = event.Tee(s.terminal.Sink, s.log.Sink)
	return s, nil
}

const logFlag = "--log-file"

// logPath returns the path of the log file and which key or flag named it.
func logPath(cfg *config.Config, c cli.Command, f output) (path, key string) {
	switch {
	case f.logFile != "":
		return f.logFile, logFlag
	case cfg.Files.LogFile != "":
		return cfg.Files.LogFile, "files.log_file"
	}
	return c.LogFile, "files.rsync"
}

func (s *shown) finish() { s.terminal.Close() }

// Close ends both. A log file that lacks lines is worth an error of its own.
func (s *shown) Close() error {
	s.terminal.Close()
	if s.log == nil {
		return nil
	}
	if err := s.log.Close(); err != nil {
		return fmt.Errorf("%s: %w", s.logKey, err)
	}
	return nil
}
