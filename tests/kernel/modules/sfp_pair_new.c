// SPDX-License-Identifier: MIT
/* The new versions of the pair in sfp_pair.c. They call each other by the old names: both sites have to lead here. */
#include <linux/module.h>
#include "sfp_pair.h"

int new_sfp_inner(int version, int park);
int new_sfp_outer(int park);

__attribute__((noipa)) int new_sfp_inner(int version, int park)
{
	atomic_long_inc(&sfp_calls);
	if (version != 2)
		atomic_long_inc(&sfp_mixes);
	if (park)
		sfp_wait();
	return 2;
}

__attribute__((noipa)) int new_sfp_outer(int park)
{
	int version = sfp_inner(2, park);

	if (sfp_inner(2, 0) != version)
		atomic_long_inc(&sfp_mixes);
	return version;
}

static int __init sfp_init(void)
{
	return 0;
}
module_init(sfp_init);

MODULE_DESCRIPTION("New versions of a pair of functions");
MODULE_LICENSE("Dual MIT/GPL");
