#!/bin/busybox sh
# "walkers.sh start N" adds N tasks that walk file systems for ever, so that many are preempted in the kernel at
# any time; "walkers.sh stop" ends them.

case $1 in
start)
	for _ in $(seq "$2"); do
		sh -c 'while :; do find /sys/kernel /sys/bus /proc/1 -name x; done' </dev/null >/dev/null 2>&1 &
		echo $! >>/run/walkers
		renice -n 5 -p $! >/dev/null
	done
	;;
stop)
	[ -e /run/walkers ] && kill $(cat /run/walkers) 2>/dev/null
	rm -f /run/walkers
	;;
esac
