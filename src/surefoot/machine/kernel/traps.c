/* What the vectors call. */
#include "kernel.h"

static volatile u64 jiffies;
u8 overflow_stack[OVERFLOW_STACK_SIZE] __attribute__((aligned(OVERFLOW_STACK_SIZE)));

struct exception_table_entry {
	s32 insn, fixup;
	u16 type, data;
};
extern struct exception_table_entry __start___ex_table[], __stop___ex_table[];

#define EX_TYPE_UACCESS_ERR_ZERO 2
#define EX_TYPE_KACCESS_ERR_ZERO 3
#define EX_TYPE_UACCESS_CPY 4
#define ESR_WNR (1UL << 6)
#define ESR_EC(esr) ((esr) >> 26)
enum { EC_SVC64 = 0x15, EC_IABT_LOW = 0x20, EC_IABT_CUR = 0x21, EC_DABT_LOW = 0x24, EC_DABT_CUR = 0x25, EC_BRK64 = 0x3c };

void panic(const char *why)
{
	printk("panic: %s\n", why);
	local_irq_disable();
	dev_write(DEV_EXIT, 1);
	for (;;)
		barrier();
}

/* --- interrupts --- */

static noinline void run_softirq(void)
{
	u64 word = 0;

	/* A read that faults, on the interrupt stack, out of whatever was interrupted. */
	if (jiffies % 3 == 0)
		copy_from_kernel_nofault(&word, (const void *)(USER_BAD + (jiffies & 0xff8)), sizeof(word));
}

static noinline void timer_interrupt(void)
{
	jiffies++;
	/* Traced code takes several times as long: leave it time to get on. */
	dev_write(DEV_TIMER, (machine_control.tracing & 1 ? 9000 : 1300) + 37 * (jiffies % 13));
	scheduler_tick();
	run_softirq();
}

/* Where the campaign looks at the interrupted task from inside. */
noinline void injected_interrupt(void)
{
	barrier();
}

static noinline void handle_irq(void *arg)
{
	u64 irq;

	(void)arg;
	while ((irq = dev_read(DEV_IRQ)) != 0) {
		if (irq == IRQ_TIMER)
			timer_interrupt();
		else
			injected_interrupt();
	}
}

static inline bool on_thread_stack(void)
{
	return ((u64)__builtin_frame_address(0) & ~(u64)(STACK_SLOT - 1)) == (u64)current->stack;
}

static noinline notrace void do_interrupt_handler(struct pt_regs *regs, void (*handler)(void *))
{
	if (on_thread_stack())
		call_on_irq_stack(regs, handler);
	else
		handler(regs);
	barrier(); /* no tail call: only a direct call of call_on_irq_stack vouches for its frame */
}

static noinline void arm64_exit_to_kernel_mode_preempt(void)
{
	if (!current->thread_info.preempt_count && (current->thread_info.flags & _TIF_NEED_RESCHED))
		preempt_schedule_irq();
}

static noinline notrace void el1_interrupt(struct pt_regs *regs, void (*handler)(void *))
{
	current->thread_info.preempt_count += 0x10000;
	do_interrupt_handler(regs, handler);
	current->thread_info.preempt_count -= 0x10000;
	if (!(regs->pstate & 0x80))
		arm64_exit_to_kernel_mode_preempt();
}

notrace void el1h_64_irq_handler(struct pt_regs *regs)
{
	el1_interrupt(regs, handle_irq);
	barrier();
}

/* --- faults --- */

static bool fixup_exception(struct pt_regs *regs, u64 esr)
{
	for (struct exception_table_entry *e = __start___ex_table; e < __stop___ex_table; e++) {
		if ((u64)&e->insn + e->insn != regs->pc)
			continue;
		if (e->type == EX_TYPE_UACCESS_CPY && !!(e->data & 1) != !!(esr & ESR_WNR))
			return false;
		if (e->type == EX_TYPE_UACCESS_ERR_ZERO || e->type == EX_TYPE_KACCESS_ERR_ZERO) {
			u32 err = e->data & 31, zero = (e->data >> 5) & 31;

			if (err != 31)
				regs->regs[err] = -EFAULT;
			if (zero != 31)
				regs->regs[zero] = 0;
		}
		regs->pc = (u64)&e->fixup + e->fixup;
		return true;
	}
	return false;
}

/* Maps the page, after a while in which others run: a task can sleep inside a fault. */
static noinline bool handle_mm_fault(u64 addr)
{
	if (addr < USER_DEMAND || addr >= USER_BAD)
		return false;
	if ((addr >> 12) & 1)
		schedule_timeout(300);
	dev_write(DEV_MAP, addr & ~(u64)(PAGE_SIZE - 1));
	return true;
}

static noinline bool do_page_fault(u64 addr, u64 esr, struct pt_regs *regs)
{
	bool atomic = current->thread_info.preempt_count != 0;

	if (!atomic && handle_mm_fault(addr))
		return true;
	return !user_mode(regs) && fixup_exception(regs, esr);
}

static noinline void do_mem_abort(u64 addr, u64 esr, struct pt_regs *regs)
{
	if (do_page_fault(addr, esr, regs))
		return;
	if (user_mode(regs))
		do_exit(11);
	panic("a fault in the kernel");
}

static noinline void el1_abort(struct pt_regs *regs, u64 esr)
{
	u64 far = read_sysreg(far_el1);

	local_daif_restore(regs->pstate);
	do_mem_abort(far, esr, regs);
	local_irq_disable();
}

static noinline notrace void el1_dbg(struct pt_regs *regs, u64 esr)
{
	if (!kprobe_handler(regs, esr & 0xffff))
		panic("an unknown BRK");
}

notrace void el1h_64_sync_handler(struct pt_regs *regs)
{
	u64 esr = read_sysreg(esr_el1);

	if (ESR_EC(esr) == EC_DABT_CUR)
		el1_abort(regs, esr);
	else if (ESR_EC(esr) == EC_BRK64)
		el1_dbg(regs, esr);
	else
		panic("an unexpected exception in the kernel");
}

/* --- from user mode --- */

static noinline notrace void exit_to_user_mode(struct pt_regs *regs)
{
	(void)regs;
	local_irq_disable();
	for (;;) {
		u64 flags = current->thread_info.flags;

		if (!(flags & (_TIF_NEED_RESCHED | _TIF_PATCH_PENDING)))
			break;
		local_irq_enable();
		if (flags & _TIF_PATCH_PENDING)
			klp_update_patch_state(current);
		if (flags & _TIF_NEED_RESCHED)
			schedule();
		local_irq_disable();
	}
	__asm__ volatile("msr daifset, #0xf" ::: "memory");
}

notrace void asm_exit_to_user_mode(struct pt_regs *regs)
{
	exit_to_user_mode(regs);
	barrier();
}

static noinline void do_el0_svc(struct pt_regs *regs)
{
	regs->regs[0] = invoke_syscall(regs, regs->regs[8]);
}

static noinline notrace void el0_svc(struct pt_regs *regs)
{
	regs->orig_x0 = regs->regs[0];
	regs->syscallno = regs->regs[8];
	local_irq_enable();
	do_el0_svc(regs);
	exit_to_user_mode(regs);
}

static noinline notrace void el0_da(struct pt_regs *regs, u64 esr)
{
	u64 far = read_sysreg(far_el1);

	local_irq_enable();
	do_mem_abort(far, esr, regs);
	exit_to_user_mode(regs);
}

notrace void el0t_64_sync_handler(struct pt_regs *regs)
{
	u64 esr = read_sysreg(esr_el1);

	switch (ESR_EC(esr)) {
	case EC_SVC64:
		el0_svc(regs);
		break;
	case EC_DABT_LOW:
		el0_da(regs, esr);
		break;
	default:
		local_irq_enable();
		do_exit(4);
	}
	barrier();
}

notrace void el0t_64_irq_handler(struct pt_regs *regs)
{
	current->thread_info.preempt_count += 0x10000;
	do_interrupt_handler(regs, handle_irq);
	current->thread_info.preempt_count -= 0x10000;
	exit_to_user_mode(regs);
}

void handle_bad_stack(struct pt_regs *regs)
{
	printk("stack overflow at %x, sp %x\n", regs->pc, regs->sp);
	panic("kernel stack overflow");
}

#define UNHANDLED(name) \
	notrace void name##_handler(struct pt_regs *regs) \
	{ \
		(void)regs; \
		panic("unhandled: " #name); \
	}
UNHANDLED(el1t_64_sync)
UNHANDLED(el1t_64_irq)
UNHANDLED(el1t_64_fiq)
UNHANDLED(el1t_64_error)
UNHANDLED(el1h_64_fiq)
UNHANDLED(el1h_64_error)
UNHANDLED(el0t_64_fiq)
UNHANDLED(el0t_64_error)
UNHANDLED(el0t_32_sync)
UNHANDLED(el0t_32_irq)
UNHANDLED(el0t_32_fiq)
UNHANDLED(el0t_32_error)

noinline bool copy_from_kernel_nofault(void *to, const void *from, u64 size)
{
	bool good;

	preempt_disable();
	good = __arch_copy_from_user(to, from, size) == 0;
	preempt_enable();
	return good;
}
