// gas takes the offset of the previous row when .cfi_def_cfa_register follows an offset at the same address.
	.text
	.type f, %function
f:
	.cfi_startproc
	stp x29, x30, [sp, -32]!
	.cfi_def_cfa_offset 32
	.cfi_def_cfa_register 29
	.cfi_offset 29, -32
	.cfi_offset 30, -24
	nop
	ldp x29, x30, [sp], 32
	.cfi_restore 30
	.cfi_restore 29
	.cfi_def_cfa 31, 0
	ret
	.cfi_endproc
	.size f, .-f
