// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The same under another name: two patches of one function are stacked. */
#include "klpt_patch.c"
