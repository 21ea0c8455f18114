// Package bench measures drsync beside the tools that people use today, on
// this machine, in one run: rsync over ssh for files, mariadb-dump into mariadb
// for a database.
//
// Its invariant: a figure is only printed for a copy that was compared with
// its original and found equal, and both contestants did the same work on the
// same files, taking turns at going first. Caches are left as they are; before
// each timed run what is dirty is written out, so that nobody pays for another.
//
// It is all in test files, since it runs the same servers as the tests: make
// bench. Without flags it is a smoke test of itself, over few files and rows.
package bench
