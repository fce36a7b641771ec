// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A live patch whose file says what it patches: functions of klpt_even, which end in calls that never return. */
#include <linux/livepatch.h>
#include <linux/module.h>

static noinline int klpt_new_last(void *data)
{
	barrier();
	return 2;
}

static struct klp_func funcs[] = {
	{ .old_name = "klpt_last_a", .new_func = klpt_new_last },
	{ .old_name = "klpt_last_b", .new_func = klpt_new_last },
	{ .old_name = "klpt_after_a", .new_func = klpt_new_last },
	{ }
};

static struct klp_object objects[] = {
	{ .name = "klpt_even", .funcs = funcs },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init klpt_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit klpt_exit(void)
{
}

module_init(klpt_init);
module_exit(klpt_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("A live patch that names its functions in its file");
