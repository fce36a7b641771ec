// gas remembers one state only: nested states come back wrong.
	.text
	.type f, %function
f:
	.cfi_startproc
	stp x29, x30, [sp, -32]!
	.cfi_def_cfa_offset 32
	.cfi_offset 29, -32
	.cfi_offset 30, -24
	cbz x0, 1f
	.cfi_remember_state
	sub sp, sp, 16
	.cfi_def_cfa_offset 48
	cbz x1, 2f
	.cfi_remember_state
	add sp, sp, 16
	.cfi_def_cfa_offset 32
	ldp x29, x30, [sp], 32
	.cfi_restore 30
	.cfi_restore 29
	.cfi_def_cfa_offset 0
	ret
2:
	.cfi_restore_state
	add sp, sp, 16
	nop
1:
	.cfi_restore_state
	ldp x29, x30, [sp], 32
	.cfi_restore 30
	.cfi_restore 29
	.cfi_def_cfa_offset 0
	ret
	.cfi_endproc
	.size f, .-f
