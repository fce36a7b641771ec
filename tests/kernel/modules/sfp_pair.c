// SPDX-License-Identifier: MIT
/*
 * The old versions of a pair of functions, and files that run them:
 *   /proc/sfp_pair   reading runs the pair once: "version 1 mixes 0"
 *   /proc/sfp_burst  reading runs it 2000 times
 *   /proc/sfp_park   reading sleeps inside the pair until somebody writes to the file
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/sched.h>
#include <linux/wait.h>
#include "sfp_pair.h"

atomic_long_t sfp_calls;
EXPORT_SYMBOL_GPL(sfp_calls);
atomic_long_t sfp_mixes;
EXPORT_SYMBOL_GPL(sfp_mixes);

static DECLARE_WAIT_QUEUE_HEAD(released);
static atomic_t releases;

int sfp_wait(void)
{
	int before = atomic_read(&releases);

	return wait_event_interruptible(released, atomic_read(&releases) != before);
}
EXPORT_SYMBOL_GPL(sfp_wait);

__attribute__((noipa)) int sfp_inner(int version, int park)
{
	atomic_long_inc(&sfp_calls);
	if (version != 1)
		atomic_long_inc(&sfp_mixes);
	if (park)
		sfp_wait();
	return 1;
}
EXPORT_SYMBOL_GPL(sfp_inner);

__attribute__((noipa)) int sfp_outer(int park)
{
	int version = sfp_inner(1, park);

	/* The second call must find the version that the first one found. */
	if (sfp_inner(1, 0) != version)
		atomic_long_inc(&sfp_mixes);
	return version;
}
EXPORT_SYMBOL_GPL(sfp_outer);

static int show(struct seq_file *m, int version)
{
	seq_printf(m, "version %d mixes %ld\n", version, atomic_long_read(&sfp_mixes));
	return 0;
}

static int pair_show(struct seq_file *m, void *v)
{
	return show(m, sfp_outer(0));
}

static int burst_show(struct seq_file *m, void *v)
{
	int i;

	for (i = 0; i < 1999; i++) {
		sfp_outer(0);
		cond_resched();
	}
	return show(m, sfp_outer(0));
}

static int park_show(struct seq_file *m, void *v)
{
	return show(m, sfp_outer(1));
}

static int park_open(struct inode *inode, struct file *file)
{
	return single_open(file, park_show, NULL);
}

static ssize_t park_write(struct file *file, const char __user *data, size_t size, loff_t *at)
{
	atomic_inc(&releases);
	wake_up_all(&released);
	return size;
}

static const struct proc_ops park_ops = {
	.proc_open = park_open,
	.proc_read = seq_read,
	.proc_write = park_write,
	.proc_release = single_release,
};

static int __init sfp_init(void)
{
	if (!proc_create_single("sfp_pair", 0444, NULL, pair_show) ||
	    !proc_create_single("sfp_burst", 0444, NULL, burst_show) ||
	    !proc_create("sfp_park", 0644, NULL, &park_ops))
		return -ENOMEM;
	return 0;
}
module_init(sfp_init);

/* No exit: code that is patched must stay where it is. */
MODULE_DESCRIPTION("A pair of functions that check each other");
MODULE_LICENSE("Dual MIT/GPL");
