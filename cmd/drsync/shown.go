package main

import (
	"os"
	"path/filepath"

	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/rsyncx/cli"
)

// shown is where a run shows itself: the terminal and the log file.
type shown struct {
	terminal *show.Terminal
	log      *show.LogFile
	sink     event.Sink
}

// openShown opens the terminal and, if there is one, the log file. The words of
// files.rsync (-v, --progress, --log-file) count like those of the command
// line, except that -v there is for the log file alone: what cron mails should
// not be a list of files.
func openShown(o *options, cfg *config.Config, c cli.Command, f output) (*shown, error) {
	s := &shown{terminal: show.NewTerminal(show.TerminalOptions{
		Out: o.err, Bars: f.progress && show.IsTerminal(o.err), Progress: f.progress, Verbose: f.verbose, Quiet: f.quiet,
	})}
	s.sink = s.terminal.Sink
	path := f.logFile
	if path == "" {
		path = cfg.Files.LogFile
	}
	if path == "" {
		path = c.LogFile
	}
	if path == "" {
		return s, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	var err error
	if s.log, err = show.OpenLogFile(path); err != nil {
		return nil, err
	}
	s.sink = event.Tee(s.terminal.Sink, s.log.Sink)
	return s, nil
}

func (s *shown) finish() { s.terminal.Close() }

// Close ends both. A log file that lacks lines is worth an error of its own.
func (s *shown) Close() error {
	if s == nil {
		return nil
	}
	s.terminal.Close()
	if s.log == nil {
		return nil
	}
	return s.log.Close()
}
