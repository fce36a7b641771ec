# Rows with a fixed return address, a realigned stack (flexible rows), and calls through the PLT.
	.text
	.globl leaf, frame, realigned
	.type leaf, @function
leaf:
	.cfi_startproc
	nop
	ret
	.cfi_endproc
	.size leaf, .-leaf

	.type frame, @function
frame:
	.cfi_startproc
	pushq %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	movq %rsp, %rbp
	.cfi_def_cfa_register %rbp
	call outside@PLT
	call outside_too@PLT
	leave
	.cfi_def_cfa %rsp, 8
	.cfi_restore %rbp
	ret
	.cfi_endproc
	.size frame, .-frame

	.type realigned, @function
realigned:
	.cfi_startproc
	leaq 8(%rsp), %r10
	.cfi_def_cfa %r10, 0
	andq $-64, %rsp
	pushq -8(%r10)
	pushq %rbp
	movq %rsp, %rbp
	.cfi_escape 0x10, 0x6, 0x2, 0x76, 0x0
	pushq %r10
	.cfi_escape 0xf, 0x3, 0x76, 0x78, 0x6
	popq %r10
	.cfi_def_cfa %r10, 0
	popq %rbp
	leaq -8(%r10), %rsp
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size realigned, .-realigned
