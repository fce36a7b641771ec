/* Two functions that must be patched together, and the handler that chooses by the state of the task. */
#include "kernel.h"

static u64 key[2] = { 17, 17 };

/* The old pair adds, the new pair multiplies; a task that mixes the two is found out by sys_pair. */
noinline u64 pair_f(u64 x)
{
	return load_random(&x) % 1000 + key[0];
}

noinline u64 pair_g(u64 x, u64 sealed)
{
	return sealed - key[1] == load_random(&x) % 1000;
}

noinline u64 pair_f_new(u64 x)
{
	return load_random(&x) % 1000 * 3 + key[0];
}

noinline u64 pair_g_new(u64 x, u64 sealed)
{
	return sealed - key[1] == load_random(&x) % 1000 * 3;
}

/* Function, replacement: pairs of words that the outside reads too. */
const u64 klp_funcs[] = { (u64)pair_f, (u64)pair_f_new, (u64)pair_g, (u64)pair_g_new, 0 };
const u64 klp_sites[] = { (u64)pair_f, (u64)pair_g, 0 };

notrace void klp_ftrace_handler(u64 ip, u64 parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs)
{
	struct task_struct *task = current;
	bool use_new = machine_control.transition ? task->patch_state == 1 : machine_control.patch != 0;

	(void)parent_ip;
	(void)op;
	preempt_disable();
	for (u32 i = 0; use_new && klp_funcs[i]; i += 2)
		if (klp_funcs[i] == ip - 4)
			fregs->pc = klp_funcs[i + 1];
	preempt_enable_notrace();
}

/* At the kernel's exit and in the idle loop a task runs none of the functions. */
notrace void klp_update_patch_state(struct task_struct *task)
{
	if (task->thread_info.flags & _TIF_PATCH_PENDING) {
		task->patch_state = machine_control.patch != 0;
		task->thread_info.flags &= ~_TIF_PATCH_PENDING;
	}
}
