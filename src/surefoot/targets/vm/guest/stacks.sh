#!/bin/busybox sh
# Every thread's context switch counts, then its stack, all read by one process: no fork per thread. The
# counts come first, so that a thread whose counts are still the same later has kept its stack in between.

renice -n -19 -p $$ >/dev/null
cd /proc || exit 1
set --
for thread in [0-9]*/task/[0-9]*; do
	set -- "$@" "$thread/status" "$thread/stack"
done
exec grep -H '' "$@" 2>/dev/null
