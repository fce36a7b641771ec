/* How assembly names its parts: SYM_FUNC_* keeps the procedure call standard, SYM_CODE_* does not. */
#include "layout.h"

#define lr x30

.macro SYM_CODE_START name
	.globl \name
	.balign 4
\name:
.endm

.macro SYM_CODE_END name
	.type \name, %notype
	.size \name, . - \name
.endm

/* Without unwind metadata. */
.macro SYM_FUNC_START name
	.globl \name
	.balign 8
\name:
	bti c
.endm

.macro SYM_FUNC_END name
	.type \name, %function
	.size \name, . - \name
.endm

/* With unwind metadata; the directives between the two are the author's. */
.macro SYM_FUNC_START_CFI name
	.globl \name
	.type \name, %function
	.balign 8
\name:
	.cfi_startproc
	bti c
.endm

.macro SYM_FUNC_END_CFI name
	.cfi_endproc
	.size \name, . - \name
.endm

.macro adr_l reg, sym
	adrp \reg, \sym
	add \reg, \reg, :lo12:\sym
.endm

.macro _asm_extable insn, fixup, type, data
	.pushsection __ex_table, "a"
	.balign 4
	.long (\insn - .)
	.long (\fixup - .)
	.short \type
	.short \data
	.popsection
.endm

#define EX_TYPE_UACCESS_ERR_ZERO 2
#define EX_TYPE_UACCESS_CPY 4
