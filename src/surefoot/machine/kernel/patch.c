/* Functions to be patched, and the handler that chooses between old and new by the state of the task. */
#include "kernel.h"

struct klp_func klp_funcs[KLP_FUNCS];

static u64 key[2] = { 17, 17 };

noinline u64 pair_g(u64 x, u64 sealed)
{
	return sealed - key[1] == load_random(&x) % 1000;
}

noinline u64 pair_g_new(u64 x, u64 sealed)
{
	return sealed - key[1] == load_random(&x) % 1000 * 3;
}

/* f calls g, and they must be of one version: sleeping in between gives a patch every chance to come between them.
   The old pair adds, the new pair multiplies; a task that mixes the two is found out. */
noinline u64 pair_f(u64 x, u64 sleep)
{
	u64 n = x, sealed = load_random(&n) % 1000 + key[0];

	if (sleep)
		schedule_timeout(sleep);
	if (!pair_g(x, sealed))
		count_one(&machine_control.pair_errors);
	return sealed;
}

noinline u64 pair_f_new(u64 x, u64 sleep)
{
	u64 n = x, sealed = load_random(&n) % 1000 * 3 + key[0];

	if (sleep)
		schedule_timeout(sleep);
	if (!pair_g(x, sealed))
		count_one(&machine_control.pair_errors);
	return sealed;
}

/* What everybody may read, and what nobody may. */
static const struct {
	u64 shared[VAULT_SIZE], secret[VAULT_SIZE];
} vault = { { 1, 2, 3, 5, 7, 11, 13, 17 }, { [0 ... VAULT_SIZE - 1] = VAULT_SECRET } };

/* The hole: nothing holds the index against the size. */
noinline u64 vault_read(u64 index, u64 sleep)
{
	const u64 *word = &vault.shared[0] + index;

	if (sleep)
		schedule_timeout(sleep);
	return *word;
}

noinline u64 vault_read_new(u64 index, u64 sleep)
{
	if (index >= VAULT_SIZE)
		return -EINVAL;
	if (sleep)
		schedule_timeout(sleep);
	return vault.shared[index];
}

/* Preemption stays off from the first look at what is written from outside to the last. */
notrace void klp_ftrace_handler(u64 ip, u64 parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs)
{
	(void)parent_ip;
	(void)op;
	preempt_disable();
	for (u32 i = 0; i < KLP_FUNCS; i++) {
		volatile struct klp_func *func = &klp_funcs[i];
		volatile s32 *state = &current->patch_state;

		if (func->old_func == ip - 4 && (func->mode >> (*state == 1) & 1))
			fregs->pc = func->new_func;
	}
	preempt_enable_notrace();
}

/* At the kernel's exit and in the idle loop a task runs none of the functions. */
notrace noinline void klp_update_patch_state(struct task_struct *task)
{
	preempt_disable();
	if (task->thread_info.flags & _TIF_PATCH_PENDING) {
		task->thread_info.flags &= ~_TIF_PATCH_PENDING;
		if (machine_control.transition)
			task->patch_state = (s32)machine_control.patch;
	}
	preempt_enable_notrace();
}
