/* Types and declarations of the small kernel. Names and layouts follow Linux where the walker sees them. */
#ifndef KERNEL_H
#define KERNEL_H

#include "layout.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef int s32;
typedef long s64;
typedef unsigned long size_t;
typedef _Bool bool;

#define true 1
#define false 0
#define NULL ((void *)0)
#define EFAULT 14
#define EINVAL 22
#define ENOSYS 38
#define VAULT_SIZE 8
#define VAULT_SECRET 0x5ec4e7

#define noinline __attribute__((noinline, noipa))
#define notrace __attribute__((patchable_function_entry(0, 0)))
#define noreturn __attribute__((noreturn))
#define plain __attribute__((target("branch-protection=none")))
#define offsetof(type, member) __builtin_offsetof(type, member)
#define barrier() __asm__ volatile("" ::: "memory")
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

struct frame_record {
	u64 fp, lr;
};

struct pt_regs {
	u64 regs[31];
	u64 sp, pc, pstate;
	u64 orig_x0;
	s32 syscallno;
	u32 pmr;
	u64 sdei_ttbr1;
	struct {
		struct frame_record record;
		u64 type;
	} stackframe;
};

struct ftrace_regs {
	u64 regs[9];
	u64 direct_tramp;
	u64 fp, lr, sp, pc;
};

struct cpu_context {
	u64 x[10]; /* x19 to x28 */
	u64 fp, sp, pc;
};

struct thread_info {
	u64 flags;
	u64 preempt_count;
	void *scs_base, *scs_sp;
};

struct llist_node {
	struct llist_node *next;
};

struct task_struct {
	struct thread_info thread_info;
	u32 state, on_cpu;
	u8 *stack;
	s32 pid;
	u32 flags;
	char comm[16];
	s32 curr_ret_stack, curr_ret_depth;
	u64 *ret_stack;
	struct llist_node *kretprobe_instances;
	s32 patch_state;
	u32 trace_recursion;
	struct cpu_context cpu_context;
	u64 nvcsw, nivcsw;
	u64 wake_at; /* instruction count */
	const void *wait_on;
	u64 probed_pstate; /* interrupt masks to go back to after a step out of line */
};

enum task_state { TASK_RUNNING = 0, TASK_INTERRUPTIBLE = 1, TASK_UNINTERRUPTIBLE = 2, TASK_DEAD = 16, TASK_FREE = 64 };

#define PF_KTHREAD 1
#define PF_IDLE 2
#define TIF_NEED_RESCHED 1
#define TIF_PATCH_PENDING 2
#define _TIF_NEED_RESCHED (1UL << TIF_NEED_RESCHED)
#define _TIF_PATCH_PENDING (1UL << TIF_PATCH_PENDING)

/* What the outside asks for and is told; see surefoot.machine.loader. */
struct machine_control {
	u64 tracing; /* wanted: bit 0 function graph, bit 1 kretprobes */
	u64 tracing_now; /* in force */
	u64 light; /* sleep instead of work, and let the functions that patches are about have the time */
	u64 overflow; /* make a kthread overflow its stack */
	u64 syscalls; /* made so far */
	u64 pair_errors; /* times that pair_f and pair_g disagreed */
	u64 patch; /* the patch_state that tasks go over to in a transition */
	u64 transition; /* a transition is under way */
	u64 pair_calls, pair_returns; /* of pair_f, as its caller counts them */
	u64 leaks; /* secrets that vault_read gave away */
};

extern struct machine_control machine_control;
extern struct task_struct init_task, tasks[NR_TASKS], *entry_task;

static inline u64 dev_read(u64 reg)
{
	return *(volatile u64 *)(DEVICES + reg);
}

static inline void dev_write(u64 reg, u64 value)
{
	*(volatile u64 *)(DEVICES + reg) = value;
}

static inline struct task_struct *get_current(void)
{
	struct task_struct *task;

	__asm__ volatile("mrs %0, sp_el0" : "=r"(task));
	return task;
}
#define current get_current()

#define read_sysreg(r) ({ u64 v_; __asm__ volatile("mrs %0, " #r : "=r"(v_)); v_; })

static inline u64 local_irq_save(void)
{
	u64 flags = read_sysreg(daif);

	__asm__ volatile("msr daifset, #3" ::: "memory");
	return flags;
}

static inline void local_irq_restore(u64 flags)
{
	__asm__ volatile("msr daif, %0" ::"r"(flags) : "memory");
}

static inline void local_irq_enable(void)
{
	__asm__ volatile("msr daifclr, #3" ::: "memory");
}

static inline void local_irq_disable(void)
{
	__asm__ volatile("msr daifset, #3" ::: "memory");
}

static inline void local_daif_restore(u64 flags)
{
	__asm__ volatile("msr daif, %0" ::"r"(flags & 0x3c0) : "memory");
}

static inline void preempt_disable(void)
{
	current->thread_info.preempt_count++;
	barrier();
}

void preempt_schedule(void);
void preempt_schedule_notrace(void);

static inline void preempt_enable(void)
{
	struct thread_info *info = &current->thread_info;

	barrier();
	info->preempt_count--;
	if (unlikely(!info->preempt_count && (info->flags & _TIF_NEED_RESCHED)))
		preempt_schedule();
}

static inline void preempt_enable_notrace(void)
{
	struct thread_info *info = &current->thread_info;

	barrier();
	info->preempt_count--;
	if (unlikely(!info->preempt_count && (info->flags & _TIF_NEED_RESCHED)))
		preempt_schedule_notrace();
}

static inline void count_one(u64 *word)
{
	__atomic_fetch_add(word, 1, __ATOMIC_RELAXED);
}

static inline struct pt_regs *task_pt_regs(struct task_struct *task)
{
	return (struct pt_regs *)(task->stack + THREAD_SIZE) - 1;
}

static inline bool user_mode(const struct pt_regs *regs)
{
	return (regs->pstate & 0xf) == 0;
}

/* assembly */
extern char vectors[], return_to_handler[], __kretprobe_trampoline[], ftrace_caller[], ret_from_fork[];
extern u8 user_image[], user_image_end[];
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
u64 __arch_copy_from_user(void *to, const void *from, u64 size);
u64 __arch_copy_to_user(void *to, const void *from, u64 size);
struct task_struct *cpu_switch_to(struct task_struct *prev, struct task_struct *next);
void call_on_irq_stack(void *arg, void (*func)(void *));
u64 asm_sum(const u64 *words, u64 count);
u64 asm_sum_bare(const u64 *words, u64 count);
u64 asm_hash(const void *bytes, u64 count);
u64 asm_norecord(u64 (*func)(u64), u64 arg);
u64 asm_norecord_bare(u64 (*func)(u64), u64 arg);
u64 asm_scratch_call(u64 (*func)(u64), u64 arg);
u64 asm_trampoline(u64 (*func)(u64), u64 arg);

/* sched.c */
void schedule(void);
void schedule_tail(struct task_struct *prev);
void schedule_timeout(u64 insns);
void preempt_schedule_irq(void);
void wake_up(const void *what);
void wait_on(const void *what);
void scheduler_tick(void);
void cpu_startup_entry(void) noreturn;
struct task_struct *kernel_clone(const char *comm, void (*fn)(void *), void *arg);
struct task_struct *user_thread(const char *comm, u64 entry, u64 arg);
void do_exit(int code) noreturn;
void sched_init(void);

/* traps.c */
void panic(const char *why) noreturn;
void asm_exit_to_user_mode(struct pt_regs *regs);
bool copy_from_kernel_nofault(void *to, const void *from, u64 size);

/* ftrace.c, kprobes.c, patch.c */
/* One function of a live patch; written from outside. The last one in force for the task decides. */
struct klp_func {
	u64 old_func, new_func;
	u64 mode; /* bit 1: in force for tasks whose patch_state is 1; bit 0: for all others */
};
#define KLP_FUNCS 8
extern struct klp_func klp_funcs[KLP_FUNCS];

struct ftrace_ops {
	void (*func)(u64 ip, u64 parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs);
	u64 flags;
};
extern struct ftrace_ops ftrace_nop_ops, graph_ops, klp_graph_ops, klp_ops;
void ftrace_init(void);
void ftrace_graph_func(u64 ip, u64 parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs);
void ftrace_set_graph(bool on);
void kprobes_set(bool on);
bool kprobe_handler(struct pt_regs *regs, u32 imm);
void klp_ftrace_handler(u64 ip, u64 parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs);
void klp_update_patch_state(struct task_struct *task);

/* syscalls.c, load.c, format.c */
u64 run_pair(u64 x, u64 sleep);
s64 invoke_syscall(struct pt_regs *regs, u32 nr);
u64 load_run(u64 kind, u64 arg);
int format(char *to, size_t size, const char *fmt, ...);
void printk(const char *fmt, ...);
u64 load_random(u64 *state);

#endif
