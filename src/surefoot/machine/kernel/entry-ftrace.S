/* Calls into tracers, and the trampolines that traced functions return through. */
#include "linkage.h"

	.text

/* Called from the second word of a traced function: x9 is the caller's return address, lr lies in the function,
   and the word pair before the function names the ftrace_ops. */
SYM_CODE_START ftrace_caller
	bti c
	bic x11, lr, #7
	ldr x11, [x11, #-16]
	mov x10, sp
	sub sp, sp, #(FREGS_SIZE + 32)
	stp x0, x1, [sp, #16 * 0]
	stp x2, x3, [sp, #16 * 1]
	stp x4, x5, [sp, #16 * 2]
	stp x6, x7, [sp, #16 * 3]
	str x8, [sp, #64]
	stp x29, x9, [sp, #FREGS_FP]
	stp x10, lr, [sp, #FREGS_SP]
	stp x29, x9, [sp, #FREGS_SIZE + 16]	/* the traced function's caller */
	add x29, sp, #FREGS_SIZE + 16
	stp x29, lr, [sp, #FREGS_SIZE]		/* the traced function */
	add x29, sp, #FREGS_SIZE
	sub x0, lr, #4
	mov x1, x9
	mov x2, x11
	mov x3, sp
	ldr x4, [x2, #FTRACE_OPS_FUNC]
	blr x4
	ldp x0, x1, [sp, #16 * 0]
	ldp x2, x3, [sp, #16 * 1]
	ldp x4, x5, [sp, #16 * 2]
	ldp x6, x7, [sp, #16 * 3]
	ldr x8, [sp, #64]
	ldr x29, [sp, #FREGS_FP]
	ldr lr, [sp, #FREGS_LR]
	ldr x9, [sp, #FREGS_PC]
	add sp, sp, #(FREGS_SIZE + 32)
	ret x9
SYM_CODE_END ftrace_caller

SYM_FUNC_START ftrace_stub
	ret
SYM_FUNC_END ftrace_stub

/* Traced functions return to here; the true address comes from the task's return stack. */
SYM_CODE_START return_to_handler
	sub sp, sp, #FREGS_SIZE
	stp x0, x1, [sp, #16 * 0]
	stp x2, x3, [sp, #16 * 1]
	stp x4, x5, [sp, #16 * 2]
	stp x6, x7, [sp, #16 * 3]
	str x29, [sp, #FREGS_FP]
	mov x0, sp
	bl ftrace_return_to_handler
	mov lr, x0
	ldp x0, x1, [sp, #16 * 0]
	ldp x2, x3, [sp, #16 * 1]
	ldp x4, x5, [sp, #16 * 2]
	ldp x6, x7, [sp, #16 * 3]
	add sp, sp, #FREGS_SIZE
	ret
SYM_CODE_END return_to_handler

/* Functions with a kretprobe return to here and trap; the handler puts the true address into the saved pc. */
SYM_CODE_START __kretprobe_trampoline
	brk #7
	brk #0x800
SYM_CODE_END __kretprobe_trampoline
