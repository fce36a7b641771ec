// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A live patch of one function, named when it is loaded: insmod klpt_patch.ko object=klpt_target old=klpt_wait */
#include <linux/livepatch.h>
#include <linux/module.h>

static char *object = "";
module_param(object, charp, 0444);
static char *old = "";
module_param(old, charp, 0444);
static int position;
module_param(position, int, 0444);

static noinline long klpt_new(long arg)
{
	barrier();
	return 2;
}

static struct klp_func funcs[] = {
	{ .new_func = klpt_new },
	{ }
};

static struct klp_object objects[] = {
	{ .funcs = funcs },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init klpt_init(void)
{
	funcs[0].old_name = old;
	funcs[0].old_sympos = position;
	if (*object)
		objects[0].name = object;
	return klp_enable_patch(&patch);
}

static void __exit klpt_exit(void)
{
}

module_init(klpt_init);
module_exit(klpt_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("A live patch of any one function");
