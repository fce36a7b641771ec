// A function so large that row starts take four bytes.
	.text
	.globl huge
	.type huge, %function
huge:
	.cfi_startproc
	sub sp, sp, 0x123, lsl 12
	.cfi_def_cfa_offset 0x123000
	.skip 0x10200
	add sp, sp, 0x123, lsl 12
	.cfi_def_cfa_offset 0
	ret
	.cfi_endproc
	.size huge, .-huge
