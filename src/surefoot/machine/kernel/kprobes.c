/* Kretprobes: a BRK behind the patch site, its instruction stepped out of line, the return address replaced. */
#include "kernel.h"

#define BRK_PROBE 4
#define BRK_STEPPED 6
#define BRK_RETURN 7
#define BRK(imm) (0xd4200000 | ((imm) << 5))
#define INSTANCES 32

struct kretprobe_instance {
	u64 rph_next, rph_rcu;
	struct llist_node llist; /* @16 */
	void *rph; /* @24 */
	u64 ret_addr; /* @32 */
	u64 fp; /* @40 */
	u64 used;
};
_Static_assert(offsetof(struct kretprobe_instance, llist) == 16, "llist");
_Static_assert(offsetof(struct kretprobe_instance, ret_addr) == 32, "ret_addr");
_Static_assert(offsetof(struct kretprobe_instance, fp) == 40, "fp");

struct kprobe {
	u64 func; /* the function probed */
	u64 addr; /* where the BRK is */
	u32 *slot;
	u32 insn;
};

extern const u64 kretprobe_targets[];
static struct kprobe probes[12];
static struct kretprobe_instance instances[INSTANCES];
static u32 nr_probes;
static volatile u64 missed, probe_hits, probe_returns;

/* Instructions that name a place relative to themselves cannot be stepped elsewhere. */
static notrace bool can_step(u32 insn)
{
	bool branch = (insn & 0x1c000000) == 0x14000000, adr = (insn & 0x1f000000) == 0x10000000;
	bool literal = (insn & 0x3b000000) == 0x18000000;

	return !branch && !adr && !literal;
}

void notrace kprobes_set(bool on)
{
	u64 flags = local_irq_save();

	if (!nr_probes)
		for (int i = 0; kretprobe_targets[i] && nr_probes < ARRAY_SIZE(probes); i++) {
			struct kprobe *p = &probes[nr_probes];

			p->func = kretprobe_targets[i];
			p->addr = p->func + 8;
			p->insn = *(u32 *)p->addr;
			p->slot = (u32 *)SLOT_AREA + 2 * nr_probes;
			if (!can_step(p->insn))
				continue;
			p->slot[0] = p->insn;
			p->slot[1] = BRK(BRK_STEPPED);
			nr_probes++;
		}
	for (u32 i = 0; i < nr_probes; i++)
		*(volatile u32 *)probes[i].addr = on ? BRK(BRK_PROBE) : probes[i].insn;
	__asm__ volatile("dsb ish; isb" ::: "memory");
	local_irq_restore(flags);
}

notrace noinline static void pre_handler_kretprobe(struct kprobe *p, struct pt_regs *regs)
{
	probe_hits++;
	for (u32 i = 0; i < INSTANCES; i++) {
		struct kretprobe_instance *ri = &instances[i];

		if (ri->used)
			continue;
		ri->used = 1;
		ri->rph = p;
		ri->ret_addr = regs->regs[30];
		ri->fp = regs->regs[29];
		regs->regs[30] = (u64)__kretprobe_trampoline;
		ri->llist.next = current->kretprobe_instances;
		barrier();
		current->kretprobe_instances = &ri->llist;
		return;
	}
	missed++;
}

notrace noinline static bool kretprobe_find_ret_addr(struct pt_regs *regs)
{
	struct llist_node **first = &current->kretprobe_instances, *node;
	u64 ret = 0;

	for (node = *first; node; node = node->next) {
		struct kretprobe_instance *ri = (void *)((u8 *)node - offsetof(struct kretprobe_instance, llist));

		if (ri->ret_addr != (u64)__kretprobe_trampoline && ri->fp == regs->regs[29]) {
			ret = ri->ret_addr;
			break;
		}
	}
	if (!ret)
		return false;
	regs->pc = ret;
	regs->regs[30] = ret;
	probe_returns++;
	while (*first) {
		struct kretprobe_instance *ri = (void *)((u8 *)*first - offsetof(struct kretprobe_instance, llist));
		u64 addr = ri->ret_addr;

		*first = (*first)->next;
		ri->used = 0;
		if (addr == ret)
			break;
	}
	return true;
}

notrace bool kprobe_handler(struct pt_regs *regs, u32 imm)
{
	if (imm == BRK_RETURN && regs->pc == (u64)__kretprobe_trampoline)
		return kretprobe_find_ret_addr(regs);
	for (u32 i = 0; i < nr_probes; i++) {
		struct kprobe *p = &probes[i];

		if (imm == BRK_PROBE && regs->pc == p->addr) {
			pre_handler_kretprobe(p, regs);
			regs->pc = (u64)p->slot;
			current->probed_pstate = regs->pstate;
			regs->pstate |= 0x3c0; /* one step at a time */
			return true;
		}
		if (imm == BRK_STEPPED && regs->pc == (u64)(p->slot + 1)) {
			regs->pc = p->addr + 4;
			regs->pstate = (regs->pstate & ~0x3c0UL) | (current->probed_pstate & 0x3c0);
			return true;
		}
	}
	return false;
}
