// gas restores from the function's first row, not from the CIE: wrong in parts that were split off.
	.text
	.type whole, %function
whole:
	.cfi_startproc
	nop
	ret
	.cfi_endproc
	.size whole, .-whole

	.type part, %function
part:
	.cfi_startproc
	.cfi_def_cfa_offset 32
	.cfi_offset 29, -32
	.cfi_offset 30, -24
	bl part
	ldp x29, x30, [sp], 32
	.cfi_restore 30
	.cfi_restore 29
	.cfi_def_cfa_offset 0
	ret
	.cfi_endproc
	.size part, .-part
