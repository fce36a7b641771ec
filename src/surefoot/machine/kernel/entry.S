/* Exceptions in and out, task switches: the shapes of arch/arm64/kernel/entry.S. */
#include "linkage.h"

	.section .entry.text, "ax"

/* One of the sixteen vectors. The stack pointer is tested without a register to spare: bit 14 of it is clear on
   every good stack, because stacks of 16 KiB lie at multiples of 32 KiB. */
.macro kernel_ventry el, ht, regsize, label
	.balign 128
	sub sp, sp, #PT_REGS_SIZE
	add sp, sp, x0			/* sp' = sp + x0 */
	sub x0, sp, x0			/* x0' = sp */
	tbnz x0, #THREAD_SHIFT, 0f
	sub x0, sp, x0			/* x0'' = x0 */
	sub sp, sp, x0			/* sp'' = sp */
	b el\el\ht\()_\regsize\()_\label
0:
	msr tpidr_el0, x0		/* the bad stack pointer */
	sub x0, sp, x0
	msr tpidrro_el0, x0		/* x0 as it was */
	adr_l x0, overflow_stack + OVERFLOW_STACK_SIZE
	mov sp, x0
	mrs x0, tpidr_el0
	sub x0, sp, x0
	tst x0, #~(OVERFLOW_STACK_SIZE - 1)
	b.ne __bad_stack
	mrs x0, tpidr_el0		/* already on the overflow stack: go on there */
	mov sp, x0
	mrs x0, tpidrro_el0
	b el\el\ht\()_\regsize\()_\label
.endm

.macro kernel_entry el
	stp x0, x1, [sp, #16 * 0]
	stp x2, x3, [sp, #16 * 1]
	stp x4, x5, [sp, #16 * 2]
	stp x6, x7, [sp, #16 * 3]
	stp x8, x9, [sp, #16 * 4]
	stp x10, x11, [sp, #16 * 5]
	stp x12, x13, [sp, #16 * 6]
	stp x14, x15, [sp, #16 * 7]
	stp x16, x17, [sp, #16 * 8]
	stp x18, x19, [sp, #16 * 9]
	stp x20, x21, [sp, #16 * 10]
	stp x22, x23, [sp, #16 * 11]
	stp x24, x25, [sp, #16 * 12]
	stp x26, x27, [sp, #16 * 13]
	stp x28, x29, [sp, #16 * 14]
	.if \el == 0
	mrs x21, sp_el0
	adr_l x20, entry_task
	ldr x20, [x20]
	msr sp_el0, x20
#ifdef CONFIG_SHADOW_CALL_STACK
	ldr x18, [x20, #TSK_SCS_BASE]
#endif
	.else
	add x21, sp, #PT_REGS_SIZE
	.endif
	mrs x22, elr_el1
	mrs x23, spsr_el1
	stp lr, x21, [sp, #S_LR]
	stp xzr, xzr, [sp, #S_STACKFRAME]
	.if \el == 0
	mov x0, #FRAME_META_TYPE_FINAL
	.else
	mov x0, #FRAME_META_TYPE_PT_REGS
	.endif
	str x0, [sp, #S_STACKFRAME_TYPE]
	add x29, sp, #S_STACKFRAME
	stp x22, x23, [sp, #S_PC]
.endm

.macro kernel_exit el
	msr daifset, #0xf
	ldp x21, x22, [sp, #S_PC]
	.if \el == 0
	ldr x23, [sp, #S_SP]
	msr sp_el0, x23
	.endif
	msr elr_el1, x21
	msr spsr_el1, x22
	ldp x0, x1, [sp, #16 * 0]
	ldp x2, x3, [sp, #16 * 1]
	ldp x4, x5, [sp, #16 * 2]
	ldp x6, x7, [sp, #16 * 3]
	ldp x8, x9, [sp, #16 * 4]
	ldp x10, x11, [sp, #16 * 5]
	ldp x12, x13, [sp, #16 * 6]
	ldp x14, x15, [sp, #16 * 7]
	ldp x16, x17, [sp, #16 * 8]
	.if \el == 0
	ldp x18, x19, [sp, #16 * 9]
	.else
#ifdef CONFIG_SHADOW_CALL_STACK
	ldr x19, [sp, #16 * 9 + 8]	/* x18 is the live shadow stack pointer */
#else
	ldp x18, x19, [sp, #16 * 9]
#endif
	.endif
	ldp x20, x21, [sp, #16 * 10]
	ldp x22, x23, [sp, #16 * 11]
	ldp x24, x25, [sp, #16 * 12]
	ldp x26, x27, [sp, #16 * 13]
	ldp x28, x29, [sp, #16 * 14]
	ldr lr, [sp, #S_LR]
	add sp, sp, #PT_REGS_SIZE
	eret
.endm

	.balign 2048
SYM_CODE_START vectors
	kernel_ventry 1, t, 64, sync
	kernel_ventry 1, t, 64, irq
	kernel_ventry 1, t, 64, fiq
	kernel_ventry 1, t, 64, error
	kernel_ventry 1, h, 64, sync
	kernel_ventry 1, h, 64, irq
	kernel_ventry 1, h, 64, fiq
	kernel_ventry 1, h, 64, error
	kernel_ventry 0, t, 64, sync
	kernel_ventry 0, t, 64, irq
	kernel_ventry 0, t, 64, fiq
	kernel_ventry 0, t, 64, error
	kernel_ventry 0, t, 32, sync
	kernel_ventry 0, t, 32, irq
	kernel_ventry 0, t, 32, fiq
	kernel_ventry 0, t, 32, error
SYM_CODE_END vectors

.macro entry_handler el, ht, regsize, label
SYM_CODE_START el\el\ht\()_\regsize\()_\label
	kernel_entry \el
	mov x0, sp
	bl el\el\ht\()_\regsize\()_\label\()_handler
	.if \el == 0
	b ret_to_user
	.else
	b ret_to_kernel
	.endif
SYM_CODE_END el\el\ht\()_\regsize\()_\label
.endm

	entry_handler 1, t, 64, sync
	entry_handler 1, t, 64, irq
	entry_handler 1, t, 64, fiq
	entry_handler 1, t, 64, error
	entry_handler 1, h, 64, sync
	entry_handler 1, h, 64, irq
	entry_handler 1, h, 64, fiq
	entry_handler 1, h, 64, error
	entry_handler 0, t, 64, sync
	entry_handler 0, t, 64, irq
	entry_handler 0, t, 64, fiq
	entry_handler 0, t, 64, error
	entry_handler 0, t, 32, sync
	entry_handler 0, t, 32, irq
	entry_handler 0, t, 32, fiq
	entry_handler 0, t, 32, error

SYM_CODE_START ret_to_kernel
	kernel_exit 1
SYM_CODE_END ret_to_kernel

SYM_CODE_START ret_to_user
	kernel_exit 0
SYM_CODE_END ret_to_user

/* The stack pointer left its stack: x0 as it was is in tpidrro_el0, the bad sp in tpidr_el0. */
SYM_CODE_START __bad_stack
	mrs x0, tpidrro_el0
	sub sp, sp, #PT_REGS_SIZE
	kernel_entry 1
	mrs x0, tpidr_el0
	add x0, x0, #PT_REGS_SIZE
	str x0, [sp, #S_SP]
	mov x0, sp
	bl handle_bad_stack
	brk #0x800
SYM_CODE_END __bad_stack

	.text

/* x0: the task that goes, x1: the one that comes; gives the former. */
SYM_FUNC_START cpu_switch_to
	mrs x11, daif
	msr daifset, #0xf
	mov x10, #TSK_CPU_CONTEXT
	add x8, x0, x10
	mov x9, sp
	stp x19, x20, [x8], #16
	stp x21, x22, [x8], #16
	stp x23, x24, [x8], #16
	stp x25, x26, [x8], #16
	stp x27, x28, [x8], #16
	stp x29, x9, [x8], #16
	str lr, [x8]
	add x8, x1, x10
	ldp x19, x20, [x8], #16
	ldp x21, x22, [x8], #16
	ldp x23, x24, [x8], #16
	ldp x25, x26, [x8], #16
	ldp x27, x28, [x8], #16
	ldp x29, x9, [x8], #16
	ldr lr, [x8]
	mov sp, x9
	msr sp_el0, x1
#ifdef CONFIG_SHADOW_CALL_STACK
	str x18, [x0, #TSK_SCS_SP]
	ldr x18, [x1, #TSK_SCS_SP]
#endif
	msr daif, x11
	ret
SYM_FUNC_END cpu_switch_to

/* Where a new task begins; x19: a kthread's function, or 0; x20: its argument. */
SYM_CODE_START ret_from_fork
	bl schedule_tail
	cbz x19, 1f
	mov x0, x20
	blr x19
1:	mov x0, sp
	bl asm_exit_to_user_mode
	b ret_to_user
SYM_CODE_END ret_from_fork

/* x0: argument, x1: function. The record on the old stack is the only link between the two. */
SYM_FUNC_START call_on_irq_stack
#ifdef CONFIG_SHADOW_CALL_STACK
	mrs x16, sp_el0
	str x18, [x16, #TSK_SCS_SP]
	adr_l x18, irq_shadow_stack
#endif
	stp x29, lr, [sp, #-16]!
	mov x29, sp
	adr_l x16, irq_stack_ptr
	ldr x16, [x16]
	add x16, x16, #IRQ_STACK_SIZE
	mov sp, x16
	blr x1
	mov sp, x29
	ldp x29, lr, [sp], #16
#ifdef CONFIG_SHADOW_CALL_STACK
	mrs x16, sp_el0
	ldr x18, [x16, #TSK_SCS_SP]
#endif
	ret
SYM_FUNC_END call_on_irq_stack
