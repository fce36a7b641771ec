/* System calls. */
#include "kernel.h"

static char pipe_buffer[64];
static u32 pipe_head, pipe_tail;

static s64 sys_getpid(u64 a, u64 b, u64 c)
{
	(void)a;
	(void)b;
	(void)c;
	return current->pid;
}

static s64 sys_compute(u64 kind, u64 arg, u64 c)
{
	(void)c;
	if (machine_control.light) {
		schedule_timeout(6000 + (arg & 0xff) * 64);
		return 0;
	}
	return (s64)(load_run(kind, arg) & 0x7fffffff);
}

static noinline void pipe_put(char byte)
{
	pipe_buffer[pipe_head++ % sizeof(pipe_buffer)] = byte;
	wake_up(&pipe_tail);
}

static s64 sys_write(u64 from, u64 size, u64 c)
{
	char buffer[48];

	(void)c;
	if (size > sizeof(buffer))
		return -EINVAL;
	if (__arch_copy_from_user(buffer, (const void *)from, size))
		return -EFAULT;
	for (u64 i = 0; i < size && !(machine_control.light && i > 1); i++)
		pipe_put(buffer[i]);
	if (machine_control.light)
		schedule_timeout(16000);
	return (s64)size;
}

static s64 sys_read(u64 to, u64 size, u64 c)
{
	char buffer[32];
	u64 got = 0;

	(void)c;
	while (pipe_head == pipe_tail)
		wait_on(&pipe_tail);
	while (got < size && got < sizeof(buffer) && pipe_head != pipe_tail)
		buffer[got++] = pipe_buffer[pipe_tail++ % sizeof(pipe_buffer)];
	if (__arch_copy_to_user((void *)to, buffer, got))
		return -EFAULT;
	return (s64)got;
}

static s64 sys_nanosleep(u64 insns, u64 b, u64 c)
{
	(void)b;
	(void)c;
	schedule_timeout(machine_control.light ? 8 * insns : insns);
	return 0;
}

static s64 sys_yield(u64 a, u64 b, u64 c)
{
	(void)a;
	(void)b;
	(void)c;
	schedule();
	return 0;
}

u64 pair_f(u64 x, u64 sleep);
u64 vault_read(u64 index, u64 sleep);

noinline u64 run_pair(u64 x, u64 sleep)
{
	u64 sealed;

	count_one(&machine_control.pair_calls);
	sealed = pair_f(x, sleep);
	count_one(&machine_control.pair_returns);
	return sealed;
}

static s64 sys_pair(u64 x, u64 sleep, u64 c)
{
	(void)c;
	return (s64)run_pair(x, sleep);
}

static s64 sys_peek(u64 index, u64 sleep, u64 c)
{
	u64 word = vault_read(index, sleep);

	(void)c;
	if (word == VAULT_SECRET)
		count_one(&machine_control.leaks);
	return (s64)word;
}

static s64 sys_exit(u64 code, u64 b, u64 c)
{
	(void)b;
	(void)c;
	do_exit((int)code);
}

static s64 (*const sys_call_table[])(u64, u64, u64) = {
	sys_getpid, sys_compute, sys_write, sys_read, sys_nanosleep, sys_yield, sys_pair, sys_exit,
	sys_peek,
};

noinline s64 invoke_syscall(struct pt_regs *regs, u32 nr)
{
	s64 ret = -ENOSYS;

	machine_control.syscalls++;
	if (nr < ARRAY_SIZE(sys_call_table))
		ret = sys_call_table[nr](regs->regs[0], regs->regs[1], regs->regs[2]);
	barrier();
	return ret;
}
