# AMD64: a return address far from the CFA; gas cuts its offset to one byte.
	.text
	.type f, @function
f:
	.cfi_startproc
	nop
	.cfi_offset 16, -256
	nop
	ret
	.cfi_endproc
	.size f, .-f
