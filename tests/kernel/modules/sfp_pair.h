/* SPDX-License-Identifier: MIT */
/* A pair of functions that check each other, and where their calls are counted. */
#ifndef SFP_PAIR_H
#define SFP_PAIR_H

#include <linux/atomic.h>

extern atomic_long_t sfp_calls;	/* of the inner one */
extern atomic_long_t sfp_mixes;	/* of the inner one by an outer one of another version */

int sfp_outer(int park);
int sfp_inner(int version, int park);
int sfp_wait(void);

#endif
