#!/bin/busybox sh
# A load that leaves every kind of stack behind: tasks blocked for good, tasks that block and wake all the
# time, and tasks that are preempted in user space, in the kernel and in a module. Everything is started in
# the background; the script itself ends.

run() { "$@" </dev/null >/dev/null 2>&1 & }
# A hog with a lower weight, so that the sleepers preempt it when they wake.
hog() {
	"$@" </dev/null >/dev/null 2>&1 &
	renice -n 5 -p $! >/dev/null
}

# Blocked for good, each in another way: their traces can be compared with /proc/PID/stack.
run sleep 100000
run sh -c 'sleep 100000 & wait'
run sh -c 'sleep 100000 | cat'
run cat /dev/input/mice # mousedev_read, a module's code
mkfifo /run/fifo /run/both
run cat /run/fifo
exec 4<>/run/both
run cat /run/both
run cat /proc/kmsg
# In an instance of its own: an open trace_pipe forbids a change of tracer.
mkdir /sys/kernel/tracing/instances/load && run cat /sys/kernel/tracing/instances/load/trace_pipe
run nc -ll -p 7 -e cat
run nc -u -l -p 9
usleep 20000
sleep 100000 | nc 127.0.0.1 7 >/dev/null 2>&1 & # both ends wait for the other to speak
run httpd -f -p 80 -h /modules
run syslogd -n -O /run/log
run timeout 100000 sleep 100000
run watch -n 100000 true
run tail -f /run/log
run top -b -d 100000
run telnetd -F -p 23 -l /bin/sh
run setsid sh -c 'exec getty -n -l /bin/sh 0 tty1'

# Block and wake.
run sh -c 'while :; do usleep 3000; done'
run sh -c 'while :; do usleep 777; done'
run sh -c 'while :; do true | cat; usleep 1000; done'
run sh -c 'while :; do (exit 0); usleep 500; done'
run sh -c 'while :; do logger hello; usleep 50000; done'
run sh -c 'while :; do wget -q -O - http://127.0.0.1/zram.ko; usleep 10000; done'
run ping -q -i 0.1 127.0.0.1
hog sh -c 'yes | dd bs=7 of=/dev/null'

# Busy in the kernel: walks, copies, file systems, a module's code; these are what gets preempted there.
hog sh -c 'while :; do find /sys /proc/[0-9] -name x; done'
hog sh -c 'while :; do ls -lR /proc/self /sys/kernel /bin; done'
hog sh -c 'while :; do cat /proc/kallsyms; done'
hog dd if=/dev/urandom of=/dev/null bs=1M
hog sh -c 'while :; do cat /proc/[0-9]*/maps /proc/[0-9]*/status; done'
if echo 16M >/sys/block/zram0/disksize && mke2fs -b 4096 /dev/zram0 >/dev/null && mount -t ext4 /dev/zram0 /mnt; then
	hog sh -c 'while :; do cp /modules/* /mnt/; sync; rm /mnt/*.ko; sync; done'
fi

# Busy in user space.
hog sh -c 'while :; do sha256sum /modules/*; done'
hog sh -c 'while :; do :; done'
