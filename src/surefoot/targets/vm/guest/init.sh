#!/bin/busybox sh
# First process of the guest: mounts, modules, the load if asked for, then the command channel on /dev/hvc0.
# Words on the kernel command line: surefoot.load=1 starts the load.

/bin/busybox mkdir -p /proc /sys /dev /tmp /run /bin /sbin /usr/bin /usr/sbin /mnt
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t tmpfs tmpfs /run
/bin/busybox mount -t tracefs tracefs /sys/kernel/tracing
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/tmp
exec </dev/console >/dev/console 2>&1
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
ip link set lo up

# A lost module costs coverage, not the guest: say so and go on.
while read -r module; do
	insmod "/modules/$module.ko" || echo "surefoot: cannot load $module"
done </modules/order

# printk to the serial log only when it matters; tracing and load would flood it.
echo 4 >/proc/sys/kernel/printk
echo 0 >/proc/sys/kernel/hung_task_timeout_secs 2>/dev/null

case " $(cat /proc/cmdline) " in
*" surefoot.load=1 "*) sh /surefoot/load.sh ;;
esac

while :; do
	sh /surefoot/agent.sh
	sleep 1
done
