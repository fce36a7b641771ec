// SPDX-License-Identifier: MIT
/* A new version of what shows /proc/cmdline (fs/proc/cmdline.c). */
#include <linux/module.h>
#include <linux/seq_file.h>

int new_cmdline_proc_show(struct seq_file *m, void *v);

__attribute__((noipa)) int new_cmdline_proc_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%s\n", "this has been live patched");
	return 0;
}

static int __init sfp_init(void)
{
	return 0;
}
module_init(sfp_init);

MODULE_DESCRIPTION("A new version of cmdline_proc_show");
MODULE_LICENSE("Dual MIT/GPL");
