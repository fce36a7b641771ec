/* Assembly as kernels have it: leaf routines, accesses to user memory, and code that breaks the call standard, some
   of it annotated and some deliberately not. */
#include "linkage.h"

	.text

/* x0: to, x1: from, x2: bytes. */
SYM_FUNC_START_CFI memcpy
	mov x3, x0
	cmp x2, #8
	b.lo 2f
1:	ldr x4, [x1], #8
	str x4, [x3], #8
	sub x2, x2, #8
	cmp x2, #8
	b.hs 1b
2:	cbz x2, 4f
3:	ldrb w4, [x1], #1
	strb w4, [x3], #1
	subs x2, x2, #1
	b.ne 3b
4:	ret
SYM_FUNC_END_CFI memcpy

/* x0: to, x1: byte, x2: bytes. */
SYM_FUNC_START_CFI memset
	mov x3, x0
	and x4, x1, #0xff
	orr x4, x4, x4, lsl #8
	orr x4, x4, x4, lsl #16
	orr x4, x4, x4, lsl #32
	cmp x2, #8
	b.lo 2f
1:	str x4, [x3], #8
	sub x2, x2, #8
	cmp x2, #8
	b.hs 1b
2:	cbz x2, 4f
3:	strb w1, [x3], #1
	subs x2, x2, #1
	b.ne 3b
4:	ret
SYM_FUNC_END_CFI memset

/* x0: to, x1: from (user), x2: bytes; gives the bytes not copied. */
SYM_FUNC_START_CFI __arch_copy_from_user
	cbz x2, 2f
1:	ldrb w3, [x1]
	_asm_extable 1b, 9f, EX_TYPE_UACCESS_ERR_ZERO, 31 | (3 << 5)
	strb w3, [x0], #1
	add x1, x1, #1
	subs x2, x2, #1
	b.ne 1b
2:	mov x0, #0
	ret
9:	mov x0, x2
	ret
SYM_FUNC_END_CFI __arch_copy_from_user

/* x0: to (user), x1: from, x2: bytes; gives the bytes not copied. */
SYM_FUNC_START_CFI __arch_copy_to_user
	cbz x2, 2f
1:	ldrb w3, [x1]
8:	strb w3, [x0]
	_asm_extable 8b, 9f, EX_TYPE_UACCESS_CPY, 1
	add x0, x0, #1
	add x1, x1, #1
	subs x2, x2, #1
	b.ne 1b
2:	mov x0, #0
	ret
9:	mov x0, x2
	ret
SYM_FUNC_END_CFI __arch_copy_to_user

/* Sum of x1 words at x0, with x29 as one of the accumulators. */
SYM_FUNC_START_CFI asm_sum
	stp x29, lr, [sp, #-16]!
	.cfi_def_cfa_offset 16
	.cfi_offset 29, -16
	.cfi_offset 30, -8
	mov x29, #0
	mov lr, #0
1:	cbz x1, 2f
	ldr x2, [x0], #8
	add x29, x29, x2
	eor lr, lr, x29
	sub x1, x1, #1
	b 1b
2:	eor x0, x29, lr
	ldp x29, lr, [sp], #16
	.cfi_restore 29
	.cfi_restore 30
	.cfi_def_cfa_offset 0
	ret
SYM_FUNC_END_CFI asm_sum

/* The same without a word about it. */
SYM_FUNC_START asm_sum_bare
	stp x29, lr, [sp, #-16]!
	mov x29, #0
	mov lr, #0
1:	cbz x1, 2f
	ldr x2, [x0], #8
	add x29, x29, x2
	eor lr, lr, x29
	sub x1, x1, #1
	b 1b
2:	eor x0, x29, lr
	ldp x29, lr, [sp], #16
	ret
SYM_FUNC_END asm_sum_bare

/* Calls x0 with x1 and makes no frame record: its caller's is the next one on the chain. */
SYM_FUNC_START_CFI asm_norecord
	str lr, [sp, #-16]!
	.cfi_def_cfa_offset 16
	.cfi_offset 30, -16
	mov x2, x0
	mov x0, x1
	blr x2
	add x0, x0, #1
	ldr lr, [sp], #16
	.cfi_restore 30
	.cfi_def_cfa_offset 0
	ret
SYM_FUNC_END_CFI asm_norecord

SYM_FUNC_START asm_norecord_bare
	str lr, [sp, #-16]!
	mov x2, x0
	mov x0, x1
	blr x2
	add x0, x0, #1
	ldr lr, [sp], #16
	ret
SYM_FUNC_END asm_norecord_bare

/* Calls x0 with x1 while x29 holds data: the callee saves a frame pointer that is none. */
SYM_FUNC_START_CFI asm_scratch_call
	stp x29, lr, [sp, #-16]!
	.cfi_def_cfa_offset 16
	.cfi_offset 29, -16
	.cfi_offset 30, -8
	mov x29, #0x5a
	mov x2, x0
	mov x0, x1
	blr x2
	add x0, x0, x29
	ldp x29, lr, [sp], #16
	.cfi_restore 29
	.cfi_restore 30
	.cfi_def_cfa_offset 0
	ret
SYM_FUNC_END_CFI asm_scratch_call

/* A hand-made trampoline: keeps the return address in x20, which it parks below a slot of its own. */
SYM_CODE_START asm_trampoline
	sub sp, sp, #32
	str x20, [sp, #8]
	mov x20, lr
	mov x2, x0
	mov x0, x1
	blr x2
	mov lr, x20
	ldr x20, [sp, #8]
	add sp, sp, #32
	ret
SYM_CODE_END asm_trampoline

/* A leaf with lr as a data register, its address saved. */
SYM_FUNC_START_CFI asm_hash
	str lr, [sp, #-16]!
	.cfi_def_cfa_offset 16
	.cfi_offset 30, -16
	mov lr, #5381
1:	cbz x1, 2f
	ldrb w2, [x0], #1
	add lr, lr, lr, lsl #5
	add lr, lr, x2
	sub x1, x1, #1
	b 1b
2:	mov x0, lr
	ldr lr, [sp], #16
	.cfi_restore 30
	.cfi_def_cfa_offset 0
	ret
SYM_FUNC_END_CFI asm_hash

/* The user programs, linked on their own. */
	.section .rodata.user, "a"
	.balign 8
	.globl user_image
user_image:
	.incbin "user.bin"
	.globl user_image_end
user_image_end:
