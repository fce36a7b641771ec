/* Tasks: how they are made, switched, put to sleep and ended. One CPU, round robin, preemptible. */
#include "kernel.h"

struct task_struct tasks[NR_TASKS], *entry_task;
u8 *irq_stack_ptr = (u8 *)IRQ_STACK;
static u64 ret_stacks[NR_TASKS + 1][512];
static u32 next_task;
static s32 next_pid = 1;
#ifdef CONFIG_SHADOW_CALL_STACK
static u8 shadow_stacks[NR_TASKS + 1][SCS_SIZE];
u8 irq_shadow_stack[SCS_SIZE];
#endif

/* The boot task, later the idle task; its stack must be known before any C runs. */
struct task_struct init_task = {
	.stack = (u8 *)STACK_AREA,
	.ret_stack = ret_stacks[0],
	.patch_state = -1,
	.comm = "swapper/0",
#ifdef CONFIG_SHADOW_CALL_STACK
	.thread_info = { .scs_base = shadow_stacks[0], .scs_sp = shadow_stacks[0] },
#endif
};

static void init_one(struct task_struct *task, u32 slot, const char *comm)
{
	memset(task, 0, sizeof(*task));
	task->stack = (u8 *)STACK_AREA + slot * STACK_SLOT;
	task->ret_stack = ret_stacks[slot];
	task->patch_state = -1;
	for (int i = 0; i < 15 && comm[i]; i++)
		task->comm[i] = comm[i];
#ifdef CONFIG_SHADOW_CALL_STACK
	task->thread_info.scs_base = task->thread_info.scs_sp = shadow_stacks[slot];
#endif
}

void sched_init(void)
{
	for (u32 i = 0; i < NR_TASKS; i++)
		tasks[i].state = TASK_FREE;
	entry_task = &init_task;
}

static noinline struct task_struct *pick_next_task(struct task_struct *prev)
{
	u64 now = dev_read(DEV_COUNT);

	for (u32 i = 0; i < NR_TASKS; i++) {
		struct task_struct *task = &tasks[(next_task + i) % NR_TASKS];

		if (task->state == TASK_INTERRUPTIBLE && task->wake_at && now >= task->wake_at) {
			task->wake_at = 0;
			task->state = TASK_RUNNING;
		}
		if (task->state == TASK_RUNNING) {
			next_task = (task - tasks) + 1;
			return task;
		}
	}
	(void)prev;
	return &init_task;
}

/* Not a tail call: the walk begins at the return address of this one. */
static noinline notrace struct task_struct *__switch_to(struct task_struct *prev, struct task_struct *next)
{
	struct task_struct *last;

	entry_task = next;
	last = cpu_switch_to(prev, next);
	barrier();
	return last;
}

static noinline void finish_task_switch(struct task_struct *prev)
{
	prev->on_cpu = 0;
	current->on_cpu = 1;
	if (prev->state == TASK_DEAD)
		prev->state = TASK_FREE;
}

static noinline notrace void __schedule(bool preempt)
{
	u64 flags = local_irq_save();
	struct task_struct *prev = current, *next;

	prev->thread_info.flags &= ~_TIF_NEED_RESCHED;
	next = pick_next_task(prev);
	if (next != prev) {
		if (preempt)
			prev->nivcsw++;
		else
			prev->nvcsw++;
		prev = __switch_to(prev, next);
		finish_task_switch(prev);
	}
	local_irq_restore(flags);
}

void schedule(void)
{
	do {
		preempt_disable();
		__schedule(false);
		current->thread_info.preempt_count--;
	} while (current->thread_info.flags & _TIF_NEED_RESCHED);
}

/* A task that is preempted stays runnable whatever it was about to wait for. */
static notrace void preempt_common(void)
{
	do {
		current->thread_info.preempt_count++;
		__schedule(true);
		current->thread_info.preempt_count--;
	} while (current->thread_info.flags & _TIF_NEED_RESCHED);
}

void preempt_schedule(void)
{
	if (!(read_sysreg(daif) & 0x80))
		preempt_common();
}

notrace void preempt_schedule_notrace(void)
{
	if (!(read_sysreg(daif) & 0x80))
		preempt_common();
}

void preempt_schedule_irq(void)
{
	do {
		preempt_disable();
		local_irq_enable();
		__schedule(true);
		local_irq_disable();
		current->thread_info.preempt_count--;
	} while (current->thread_info.flags & _TIF_NEED_RESCHED);
}

void schedule_tail(struct task_struct *prev)
{
	finish_task_switch(prev);
	current->thread_info.preempt_count = 0;
	local_irq_enable();
}

void schedule_timeout(u64 insns)
{
	u64 flags = local_irq_save();

	current->wake_at = dev_read(DEV_COUNT) + insns;
	current->state = TASK_INTERRUPTIBLE;
	local_irq_restore(flags);
	schedule();
}

void wait_on(const void *what)
{
	u64 flags = local_irq_save();

	current->wait_on = what;
	current->wake_at = 0;
	current->state = TASK_INTERRUPTIBLE;
	local_irq_restore(flags);
	schedule();
}

void wake_up(const void *what)
{
	u64 flags = local_irq_save();

	for (u32 i = 0; i < NR_TASKS; i++)
		if (tasks[i].state == TASK_INTERRUPTIBLE && tasks[i].wait_on == what) {
			tasks[i].wait_on = NULL;
			tasks[i].state = TASK_RUNNING;
			current->thread_info.flags |= _TIF_NEED_RESCHED;
		}
	local_irq_restore(flags);
}

void scheduler_tick(void)
{
	current->thread_info.flags |= _TIF_NEED_RESCHED;
}

/* Preemption is off, so that whoever looks from outside finds no task half made where it is on. */
static struct task_struct *copy_process(const char *comm)
{
	for (u32 i = 0; i < NR_TASKS; i++)
		if (tasks[i].state == TASK_FREE && &tasks[i] != current) {
			struct task_struct *task = &tasks[i];
			struct pt_regs *regs;

			init_one(task, i + 1, comm);
			task->state = TASK_UNINTERRUPTIBLE;
			task->patch_state = current->patch_state;
			task->thread_info.flags = current->thread_info.flags & _TIF_PATCH_PENDING;
			task->thread_info.preempt_count = 1;
			regs = task_pt_regs(task);
			memset(regs, 0, sizeof(*regs));
			regs->stackframe.type = FRAME_META_TYPE_FINAL;
			task->cpu_context.pc = (u64)ret_from_fork;
			task->cpu_context.sp = (u64)regs;
			task->cpu_context.fp = (u64)&regs->stackframe;
			task->pid = next_pid++; /* from here on the task exists */
			return task;
		}
	return NULL;
}

struct task_struct *kernel_clone(const char *comm, void (*fn)(void *), void *arg)
{
	u64 flags = local_irq_save();
	struct task_struct *task;

	preempt_disable();
	task = copy_process(comm);
	if (task) {
		task->flags = PF_KTHREAD;
		task->cpu_context.x[0] = (u64)fn;
		task->cpu_context.x[1] = (u64)arg;
		task->state = TASK_RUNNING;
	}
	preempt_enable_notrace();
	local_irq_restore(flags);
	return task;
}

struct task_struct *user_thread(const char *comm, u64 entry, u64 arg)
{
	u64 flags = local_irq_save();
	struct task_struct *task;

	preempt_disable();
	task = copy_process(comm);
	if (task) {
		struct pt_regs *regs = task_pt_regs(task);
		u64 page = USER_STACK + (task - tasks) * 2 * PAGE_SIZE;

		dev_write(DEV_MAP, page);
		regs->pc = entry;
		regs->sp = page + PAGE_SIZE;
		regs->regs[0] = arg;
		regs->pstate = 0;
		task->state = TASK_RUNNING;
	}
	preempt_enable_notrace();
	local_irq_restore(flags);
	return task;
}

/* Never returns: calls of it end functions. */
void do_exit(int code)
{
	if (!machine_control.light)
		printk("%s/%d exits with %d\n", current->comm, (u64)current->pid, (u64)code);
	local_irq_disable();
	current->state = TASK_DEAD;
	schedule();
	panic("a dead task runs");
}

static noinline void do_idle(void)
{
	local_irq_disable();
	if (!(current->thread_info.flags & _TIF_NEED_RESCHED))
		__asm__ volatile("wfi");
	klp_update_patch_state(current);
	local_irq_enable();
	schedule();
}

void cpu_startup_entry(void)
{
	current->flags = PF_KTHREAD | PF_IDLE;
	for (;;)
		do_idle();
}
