/* From the first C function to the idle loop, and the kernel's own threads. */
#include "kernel.h"

struct machine_control machine_control;

_Static_assert(sizeof(struct pt_regs) == PT_REGS_SIZE, "pt_regs");
_Static_assert(offsetof(struct pt_regs, regs[30]) == S_LR && offsetof(struct pt_regs, sp) == S_SP, "pt_regs");
_Static_assert(offsetof(struct pt_regs, pc) == S_PC && offsetof(struct pt_regs, pstate) == S_PSTATE, "pt_regs");
_Static_assert(offsetof(struct pt_regs, stackframe) == S_STACKFRAME, "pt_regs");
_Static_assert(offsetof(struct pt_regs, stackframe.type) == S_STACKFRAME_TYPE, "pt_regs");
_Static_assert(sizeof(struct ftrace_regs) == FREGS_SIZE && offsetof(struct ftrace_regs, fp) == FREGS_FP, "fregs");
_Static_assert(offsetof(struct ftrace_regs, pc) == FREGS_PC, "fregs");
_Static_assert(offsetof(struct task_struct, stack) == TSK_STACK, "task_struct");
_Static_assert(offsetof(struct task_struct, cpu_context) == TSK_CPU_CONTEXT, "task_struct");
_Static_assert(offsetof(struct thread_info, scs_sp) == TSK_SCS_SP, "thread_info");

/* Exported to the outside as absolute symbols, so that nothing there is a constant. */
#define EXPORT(name, value) __asm__ volatile(".globl layout." name "\n.set layout." name ", %c0" ::"i"(value))
#define EXPORT_OFFSET(name, type, member) EXPORT(name, offsetof(type, member))

__attribute__((used)) static notrace void export_layout(void)
{
	EXPORT("pt_regs_size", sizeof(struct pt_regs));
	EXPORT_OFFSET("pt_regs_fp", struct pt_regs, regs[29]);
	EXPORT_OFFSET("pt_regs_lr", struct pt_regs, regs[30]);
	EXPORT_OFFSET("pt_regs_sp", struct pt_regs, sp);
	EXPORT_OFFSET("pt_regs_pc", struct pt_regs, pc);
	EXPORT_OFFSET("pt_regs_pstate", struct pt_regs, pstate);
	EXPORT_OFFSET("pt_regs_stackframe", struct pt_regs, stackframe);
	EXPORT("ftrace_regs_size", sizeof(struct ftrace_regs));
	EXPORT_OFFSET("ftrace_regs_pc", struct ftrace_regs, pc);
	EXPORT("task_size", sizeof(struct task_struct));
	EXPORT("nr_tasks", NR_TASKS);
	EXPORT_OFFSET("task_flags", struct task_struct, thread_info.flags);
	EXPORT_OFFSET("task_state", struct task_struct, state);
	EXPORT_OFFSET("task_on_cpu", struct task_struct, on_cpu);
	EXPORT_OFFSET("task_stack", struct task_struct, stack);
	EXPORT_OFFSET("task_pid", struct task_struct, pid);
	EXPORT_OFFSET("task_pf", struct task_struct, flags);
	EXPORT_OFFSET("task_comm", struct task_struct, comm);
	EXPORT_OFFSET("task_curr_ret_stack", struct task_struct, curr_ret_stack);
	EXPORT_OFFSET("task_ret_stack", struct task_struct, ret_stack);
	EXPORT_OFFSET("task_kretprobe_instances", struct task_struct, kretprobe_instances);
	EXPORT_OFFSET("task_patch_state", struct task_struct, patch_state);
	EXPORT_OFFSET("task_cpu_context_fp", struct task_struct, cpu_context.fp);
	EXPORT_OFFSET("task_cpu_context_sp", struct task_struct, cpu_context.sp);
	EXPORT_OFFSET("task_cpu_context_pc", struct task_struct, cpu_context.pc);
	EXPORT_OFFSET("task_nvcsw", struct task_struct, nvcsw);
	EXPORT_OFFSET("task_nivcsw", struct task_struct, nivcsw);
	EXPORT_OFFSET("task_scs_base", struct task_struct, thread_info.scs_base);
	EXPORT_OFFSET("task_scs_sp", struct task_struct, thread_info.scs_sp);
	EXPORT("thread_size", THREAD_SIZE);
	EXPORT("irq_stack_size", IRQ_STACK_SIZE);
	EXPORT("overflow_stack_size", OVERFLOW_STACK_SIZE);
	EXPORT("stack_slot", STACK_SLOT);
	EXPORT("kernel_base", KERNEL_BASE);
	EXPORT("stack_area", STACK_AREA);
	EXPORT("irq_stack", IRQ_STACK);
	EXPORT("slot_area", SLOT_AREA);
	EXPORT("devices", DEVICES);
	EXPORT("user_text", USER_TEXT);
	EXPORT("user_data", USER_DATA);
	EXPORT("page_size", PAGE_SIZE);
	EXPORT("scs_size", SCS_SIZE);
	EXPORT_OFFSET("control_tracing", struct machine_control, tracing);
	EXPORT_OFFSET("control_tracing_now", struct machine_control, tracing_now);
	EXPORT_OFFSET("control_light", struct machine_control, light);
	EXPORT_OFFSET("control_overflow", struct machine_control, overflow);
	EXPORT_OFFSET("control_syscalls", struct machine_control, syscalls);
	EXPORT_OFFSET("control_pair_errors", struct machine_control, pair_errors);
	EXPORT_OFFSET("control_patch", struct machine_control, patch);
	EXPORT_OFFSET("control_transition", struct machine_control, transition);
	EXPORT_OFFSET("control_pair_calls", struct machine_control, pair_calls);
	EXPORT_OFFSET("control_pair_returns", struct machine_control, pair_returns);
	EXPORT_OFFSET("control_leaks", struct machine_control, leaks);
	EXPORT_OFFSET("task_preempt_count", struct task_struct, thread_info.preempt_count);
	EXPORT_OFFSET("task_wake_at", struct task_struct, wake_at);
	EXPORT("tif_patch_pending", TIF_PATCH_PENDING);
	EXPORT("klp_funcs", KLP_FUNCS);
	EXPORT("klp_func_size", sizeof(struct klp_func));
	EXPORT_OFFSET("klp_func_old", struct klp_func, old_func);
	EXPORT_OFFSET("klp_func_new", struct klp_func, new_func);
	EXPORT_OFFSET("klp_func_mode", struct klp_func, mode);
	EXPORT("frame_words", 4);
}

/* Runs what tracing the outside asks for. */
static void traced(void *arg)
{
	(void)arg;
	for (;;) {
		u64 wanted = machine_control.tracing, now = machine_control.tracing_now;

		if ((wanted ^ now) & 1)
			ftrace_set_graph(wanted & 1);
		if ((wanted ^ now) & 2)
			kprobes_set(wanted & 2);
		machine_control.tracing_now = wanted;
		schedule_timeout(2000);
	}
}

static noinline u64 overflow(u64 depth)
{
	volatile u64 words[32];

	if (!machine_control.overflow)
		return 0;
	words[depth % 32] = depth;
	return overflow(depth + 1) + words[depth % 32];
}

/* Works in the kernel, as kworkers do. */
static void worker(void *arg)
{
	u64 state = (u64)arg;

	for (u64 i = 0;; i++) {
		u64 kind = load_random(&state) % 10, arg = load_random(&state) & 0xfff;

		if (!machine_control.light)
			load_run(kind, arg);
		if (i % 4 == 1)
			run_pair(arg, i % 8 == 1 ? 300 : 0);
		if (machine_control.light)
			schedule_timeout(12000);
		else if (i % 4 == 3)
			schedule_timeout(700);
		if (machine_control.overflow)
			overflow(0);
	}
}

/* Lives for a moment; its function ends with a call that does not return. */
static void shortlived(void *arg)
{
	run_pair((u64)arg, 200);
	if (machine_control.light)
		do_exit(0);
	printk("%s runs\n", current->comm);
	load_run((u64)arg, 0x123);
	do_exit(0);
}

static void reaper(void *arg)
{
	u64 n = 0;

	(void)arg;
	for (;;) {
		schedule_timeout(6000);
		kernel_clone("shortlived", shortlived, (void *)(n % 7));
		if (++n % 3 == 0)
			user_thread("brief", USER_TEXT, 3);
	}
}

static noinline void rest_init(void)
{
	u64 seed = dev_read(DEV_SEED);

	kernel_clone("traced", traced, NULL);
	kernel_clone("worker/0", worker, (void *)(seed + 1));
	kernel_clone("worker/1", worker, (void *)(seed + 2));
	kernel_clone("reaper", reaper, NULL);
	user_thread("compute", USER_TEXT, 0);
	user_thread("reader", USER_TEXT, 1);
	user_thread("writer", USER_TEXT, 2);
	user_thread("pair", USER_TEXT, 4);
	user_thread("pair", USER_TEXT, 5);
	user_thread("prober", USER_TEXT, 9);
	dev_write(DEV_TIMER, 1000);
	local_irq_enable();
	cpu_startup_entry();
}

notrace void start_kernel(void)
{
	current->thread_info.preempt_count = 0;
	sched_init();
	ftrace_init();
	printk("surefoot's kernel, seed %x\n", dev_read(DEV_SEED));
	rest_init();
}
