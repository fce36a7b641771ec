// gas starts a new row whenever a directive touched the state, also when nothing changed.
	.text
	.type f, %function
f:
	.cfi_startproc
	nop
	.cfi_def_cfa_offset 0
	nop
	.cfi_same_value 29
	ret
	.cfi_endproc
	.size f, .-f
