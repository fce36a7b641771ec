#!/bin/busybox sh
# Tracing that rewrites return addresses: "trace.sh on GRAPH FUNCTION..." or "trace.sh off".
#   GRAPH  the function_graph tracer's filter: names and globs separated by spaces, or "-" for none of it
#   FUNCTION...  functions that get a kretprobe (group surefoot)
# trace_pipe's readers must not drown the guest, so the events are thrown away: tracing_on stays 1 but the
# per-CPU buffers are small and overwrite themselves.

cd /sys/kernel/tracing || exit 1
action=$1
shift

clear_probes() {
	[ -e events/surefoot/enable ] && echo 0 >events/surefoot/enable
	grep ':surefoot/' kprobe_events | while read -r line; do
		line=${line#*:}
		echo "-:${line%% *}" >>kprobe_events
	done
}

case $action in
on)
	set -e
	echo 64 >buffer_size_kb
	if [ "$1" != - ]; then
		# A name that this kernel does not have (or has inlined) is left out; none at all is an error.
		echo >set_ftrace_filter
		set -f
		for filter in $1; do
			echo "$filter" 2>/dev/null >>set_ftrace_filter || echo "not traceable: $filter"
		done
		set +f
		if grep -q '^#### all' set_ftrace_filter; then
			echo "no function is left to trace"
			exit 1
		fi
		echo function_graph >current_tracer
	fi
	shift
	for function; do
		echo "r:surefoot/$function $function" >>kprobe_events
	done
	if [ $# -gt 0 ]; then
		echo 1 >events/surefoot/enable
	fi
	;;
off)
	echo nop >current_tracer
	echo >set_ftrace_filter
	clear_probes
	;;
esac
