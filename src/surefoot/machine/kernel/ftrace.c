/* Patch sites and function-graph tracing: kernel/trace/fgraph.c and arch/arm64/kernel/ftrace.c in little. */
#include "kernel.h"

#define NOP 0xd503201f
#define MOV_X9_X30 0xaa1e03e9
#define FRAME_WORDS 4
#define CONTROL (FRAME_WORDS | (1UL << 10) | (1UL << 12)) /* distance, type bitmap, tracer 0 */
#define MAX_OFFSET 491

extern u64 __start_mcount_loc[], __stop_mcount_loc[];
static volatile u64 graph_calls, graph_returns;

notrace static void nop_func(u64 ip, u64 parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs)
{
	(void)ip;
	(void)parent_ip;
	(void)op;
	(void)fregs;
}

notrace static void both_func(u64 ip, u64 parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs)
{
	klp_ftrace_handler(ip, parent_ip, op, fregs);
	ftrace_graph_func(ip, parent_ip, op, fregs);
	barrier();
}

struct ftrace_ops ftrace_nop_ops = { .func = nop_func };
struct ftrace_ops graph_ops = { .func = ftrace_graph_func };
struct ftrace_ops klp_ops = { .func = klp_ftrace_handler };
struct ftrace_ops klp_graph_ops = { .func = both_func };

static u32 bl_to(u64 from, u64 to)
{
	return 0x94000000 | (((to - from) >> 2) & 0x3ffffff);
}

/* The recorded entry is the first NOP; the literal may lie 8 bytes further, where the function is aligned. */
static notrace u64 site_function(u64 entry)
{
	return entry + 8;
}

void notrace ftrace_init(void)
{
	for (u64 *loc = __start_mcount_loc; loc < __stop_mcount_loc; loc++) {
		u64 func = site_function(*loc);

		*(u64 *)(func - 8) = (u64)&ftrace_nop_ops;
		*(u32 *)func = MOV_X9_X30;
	}
}

static notrace bool is_patched(u64 func)
{
	for (u32 i = 0; i < KLP_FUNCS; i++)
		if (klp_funcs[i].old_func == func)
			return true;
	return false;
}

static u64 graph_on;

static notrace void update_sites(void)
{
	u64 flags = local_irq_save();

	preempt_disable(); /* for those who look from outside: sites are being rewritten */
	for (u64 *loc = __start_mcount_loc; loc < __stop_mcount_loc; loc++) {
		u64 func = site_function(*loc);
		bool klp = is_patched(func);
		struct ftrace_ops *ops = klp ? (graph_on ? &klp_graph_ops : &klp_ops) : &graph_ops;

		if (!klp && !graph_on)
			ops = &ftrace_nop_ops;
		*(volatile u64 *)(func - 8) = (u64)ops;
		*(volatile u32 *)(func + 4) = ops == &ftrace_nop_ops ? NOP : bl_to(func + 4, (u64)ftrace_caller);
	}
	__asm__ volatile("dsb ish; isb" ::: "memory");
	preempt_enable_notrace();
	local_irq_restore(flags);
}

void notrace ftrace_set_graph(bool on)
{
	graph_on = on;
	update_sites();
}

notrace noinline static int graph_entry(u64 func)
{
	graph_calls++;
	return func != 0;
}

notrace noinline static void graph_return(u64 func)
{
	graph_returns += func != 0;
}

notrace noinline static int ftrace_push_return_trace(u64 ret, u64 func, u64 fp, u64 retp)
{
	struct task_struct *task = current;
	s32 offset = task->curr_ret_stack;

	if (offset + FRAME_WORDS + 1 > MAX_OFFSET)
		return -1;
	/* ret and the control word first: an interrupt may look before the rest is written */
	task->ret_stack[offset] = ret;
	task->ret_stack[offset + FRAME_WORDS] = CONTROL;
	barrier();
	task->curr_ret_stack = offset + FRAME_WORDS + 1;
	barrier();
	/* again: an interrupt in between has used the same words */
	task->ret_stack[offset] = ret;
	task->ret_stack[offset + FRAME_WORDS] = CONTROL;
	task->ret_stack[offset + 1] = func;
	task->ret_stack[offset + 2] = fp;
	task->ret_stack[offset + 3] = retp;
	return 0;
}

notrace noinline static int function_graph_enter_regs(u64 ret, u64 func, u64 fp, u64 retp)
{
	struct task_struct *task = current;

	preempt_disable();
	task->curr_ret_depth++;
	if (ftrace_push_return_trace(ret, func, fp, retp) || !graph_entry(func)) {
		task->curr_ret_depth--;
		preempt_enable_notrace();
		return -1;
	}
	preempt_enable_notrace();
	return 0;
}

notrace void ftrace_graph_func(u64 ip, u64 parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs)
{
	(void)parent_ip;
	(void)op;
	if (!function_graph_enter_regs(fregs->lr, ip, fregs->fp, fregs->fp))
		fregs->lr = (u64)return_to_handler;
	barrier();
}

/* Gives the true return address. The synchronous preemption in here is where plain walking loses a function. */
notrace u64 ftrace_return_to_handler(struct ftrace_regs *fregs)
{
	struct task_struct *task = current;
	s32 offset = task->curr_ret_stack - (FRAME_WORDS + 1);
	u64 ret;

	if (offset < 0 || (task->ret_stack[offset + FRAME_WORDS] & 0x3ff) != FRAME_WORDS)
		panic("the return stack is damaged");
	ret = task->ret_stack[offset];
	fregs->pc = ret;
	preempt_disable();
	graph_return(task->ret_stack[offset + 1]);
	preempt_enable_notrace();
	barrier();
	task->curr_ret_stack = offset;
	task->curr_ret_depth--;
	return ret;
}
