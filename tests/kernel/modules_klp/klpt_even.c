// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A patched function that ends with a call of a function that never returns, right before another function.
 *
 * The return address of that call is the address of what follows. There are two of them, one an instruction
 * longer, so that one of the two has no padding behind it. What follows has no patch site, and so no room for an
 * ftrace_ops pointer before it: notrace. Assembly keeps the order; a compiler may choose its own.
 */
#include <linux/kthread.h>
#include <linux/module.h>

static struct task_struct *klpt_threads[2];

__noreturn void klpt_never(void);
int klpt_last_a(void *data);
int klpt_last_b(void *data);

noinline __noreturn void klpt_never(void)
{
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ / 5);
	kthread_complete_and_exit(NULL, 0);
}

noinline __noclone __attribute__((no_reorder)) int klpt_last_a(void *data)
{
	barrier();
	klpt_never();
}

notrace noinline __noclone __used __attribute__((no_reorder)) static int klpt_after_a(void *data)
{
	barrier();
	return 1;
}

noinline __noclone __attribute__((no_reorder)) int klpt_last_b(void *data)
{
	asm volatile("nop");
	klpt_never();
}

notrace noinline __noclone __used __attribute__((no_reorder)) static int klpt_after_b(void *data)
{
	barrier();
	return 1;
}

static int __init klpt_init(void)
{
	klpt_threads[0] = kthread_run(klpt_last_a, NULL, "klpt_last_a");
	klpt_threads[1] = kthread_run(klpt_last_b, NULL, "klpt_last_b");
	return 0;
}

static void __exit klpt_exit(void)
{
	kthread_stop(klpt_threads[0]);
	kthread_stop(klpt_threads[1]);
}

module_init(klpt_init);
module_exit(klpt_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("A call that never returns at the end of a function");
