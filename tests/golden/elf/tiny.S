/* A kernel in miniature: aliases, sized assembly, labels, an exception table, alternatives, static branches. */
	.arch armv8-a
	.cfi_sections .debug_frame
	.text
	.p2align 3
	.globl plain
	.type plain, %function
plain:
	.cfi_startproc
	stp x29, x30, [sp, #-16]!
	.cfi_def_cfa_offset 16
	.cfi_offset 29, -16
	.cfi_offset 30, -8
	mov x29, sp
1:	ldr x0, [x0]
2:	bl noreturn
	.cfi_endproc
	.size plain, . - plain
	.weak __pi_plain
	.set __pi_plain, plain
	.type __pi_plain, %function
	.size __pi_plain, . - plain

	.type noreturn, %function
noreturn:
	b .
	.size noreturn, . - noreturn

/* SYM_CODE: sized, without type */
	.globl vectors
vectors:
3:	nop
inner:
	b plain
	.word 0x12345678
	.size vectors, . - vectors

	.subsection 1
4:	isb
	.previous

	.section __ex_table, "a"
	.p2align 2
	.long 1b - .
	.long 2b - .
	.short 2, 0x3e0

	.section .altinstructions, "a"
	.long 3b - .
	.long 4b - .
	.short 7
	.byte 4, 4

	.section __jump_table, "aw"
	.p2align 3
	.long 3b - .
	.long inner - .
	.quad counter - . + 1

	.data
	.globl counter
	.type counter, %object
counter:
	.quad 0
	.size counter, 8
