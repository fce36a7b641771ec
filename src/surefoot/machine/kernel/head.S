/* The first instructions. */
#include "linkage.h"

	.section .head.text, "ax"
/* Entered by the machine in EL1 with interrupts masked. */
SYM_CODE_START _start
	adr_l x0, vectors
	msr vbar_el1, x0
	adr_l x4, init_task
	b __primary_switched
SYM_CODE_END _start

	.text
/* x4: init_task. Leaves a final record where the idle task's stack begins. */
SYM_FUNC_START __primary_switched
	ldr x5, [x4, #TSK_STACK]
	add x5, x5, #THREAD_SIZE
	sub sp, x5, #PT_REGS_SIZE
	stp xzr, xzr, [sp, #S_STACKFRAME]
	mov x5, #FRAME_META_TYPE_FINAL
	str x5, [sp, #S_STACKFRAME_TYPE]
	add x29, sp, #S_STACKFRAME
	msr sp_el0, x4
#ifdef CONFIG_SHADOW_CALL_STACK
	ldr x18, [x4, #TSK_SCS_BASE]
#endif
	bl start_kernel
	brk #0x800
SYM_FUNC_END __primary_switched
