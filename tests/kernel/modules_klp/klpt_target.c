// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Functions to be patched, each with a way to keep a task in it.
 *
 *   cat /proc/klpt_wait    blocks in klpt_wait() until something is written to /proc/klpt_release, or SIGKILL
 *   cat /proc/klpt_spin    loops in klpt_spin(), preemptible, likewise; klpt_leaf() is what it calls
 *   cat /proc/klpt_leaf    calls klpt_leaf() and shows what it returns: 1 from the old code, 2 from the new
 *   thread klpt_kthread    stays in klpt_kthread() until the module goes; it wakes up five times a second
 *
 * SIGKILL and the module's removal end them all, whatever is patched.
 */
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(klpt_queue);
static unsigned long klpt_released;
static struct task_struct *klpt_thread;

long klpt_wait(long arg);
long klpt_spin(long arg);
long klpt_leaf(long arg);
int klpt_kthread(void *data);

noinline long klpt_leaf(long arg)
{
	/* Not const: the compiler must not move calls out of loops. */
	barrier();
	return arg;
}

noinline long klpt_wait(long arg)
{
	unsigned long seen = READ_ONCE(klpt_released);

	/* Killable, not interruptible: the kernel's fake signal after 15 s has to leave it where it is. */
	wait_event_killable(klpt_queue, READ_ONCE(klpt_released) != seen);
	return arg;
}

noinline long klpt_spin(long arg)
{
	unsigned long seen = READ_ONCE(klpt_released);
	long sum = 0;

	while (READ_ONCE(klpt_released) == seen && !fatal_signal_pending(current))
		sum += klpt_leaf(arg);
	barrier();
	return sum ? arg : 0;
}

noinline int klpt_kthread(void *data)
{
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ / 5);
	barrier();
	return 0;
}

static int klpt_show(struct seq_file *file, void *data)
{
	long (*call)(long) = file->private;

	seq_printf(file, "%ld\n", call(1));
	return 0;
}

static int klpt_open(struct inode *inode, struct file *file)
{
	return single_open(file, klpt_show, pde_data(inode));
}

static const struct proc_ops klpt_read_ops = {
	.proc_open = klpt_open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
};

static ssize_t klpt_release(struct file *file, const char __user *data, size_t size, loff_t *at)
{
	WRITE_ONCE(klpt_released, klpt_released + 1);
	wake_up_all(&klpt_queue);
	return size;
}

static const struct proc_ops klpt_write_ops = {
	.proc_write = klpt_release,
};

static int __init klpt_init(void)
{
	proc_create_data("klpt_wait", 0444, NULL, &klpt_read_ops, klpt_wait);
	proc_create_data("klpt_spin", 0444, NULL, &klpt_read_ops, klpt_spin);
	proc_create_data("klpt_leaf", 0444, NULL, &klpt_read_ops, klpt_leaf);
	proc_create("klpt_release", 0222, NULL, &klpt_write_ops);
	klpt_thread = kthread_run(klpt_kthread, NULL, "klpt_kthread");
	return PTR_ERR_OR_ZERO(klpt_thread);
}

static void __exit klpt_exit(void)
{
	remove_proc_entry("klpt_wait", NULL);
	remove_proc_entry("klpt_spin", NULL);
	remove_proc_entry("klpt_leaf", NULL);
	remove_proc_entry("klpt_release", NULL);
	kthread_stop(klpt_thread);
}

module_init(klpt_init);
module_exit(klpt_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Functions for tests of live patching");
