// FP saved by an expression on a register: gas writes a flexible row with register 0x1fffffff.
	.text
	.type f, %function
f:
	.cfi_startproc
	nop
	// DW_CFA_expression x29: DW_OP_breg0 +0
	.cfi_escape 0x10, 29, 2, 0x70, 0
	nop
	ret
	.cfi_endproc
	.size f, .-f
