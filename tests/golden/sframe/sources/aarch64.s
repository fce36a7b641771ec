// Every kind of row and descriptor that gas writes for AArch64.
	.text
	.globl leaf, frame, signed_frame, large, outermost, signal, ra_only, switching, no_size
	.type leaf, %function
leaf:
	.cfi_startproc
	nop
	ret
	.cfi_endproc
	.size leaf, .-leaf

	.type frame, %function
frame:
	.cfi_startproc
	stp x29, x30, [sp, -32]!
	.cfi_def_cfa_offset 32
	.cfi_offset 29, -32
	.cfi_offset 30, -24
	mov x29, sp
	.cfi_def_cfa 29, 32
	bl leaf
	ldp x29, x30, [sp], 32
	.cfi_restore 30
	.cfi_restore 29
	.cfi_def_cfa 31, 0
	ret
	.cfi_endproc
	.size frame, .-frame

	.type signed_frame, %function
signed_frame:
	.cfi_startproc
	.cfi_b_key_frame
	pacibsp
	.cfi_negate_ra_state
	stp x29, x30, [sp, -320]!
	.cfi_def_cfa_offset 320
	.cfi_offset 29, -320
	.cfi_offset 30, -312
	cbz x0, 1f
	.cfi_remember_state
	ldp x29, x30, [sp], 320
	.cfi_restore 30
	.cfi_restore 29
	.cfi_def_cfa_offset 0
	autibsp
	.cfi_negate_ra_state
	ret
1:
	.cfi_restore_state
	b 1b
	.cfi_endproc
	.size signed_frame, .-signed_frame

	.type large, %function
large:
	.cfi_startproc
	sub sp, sp, 0x9000
	.cfi_def_cfa_offset 0x9000
	.skip 0x300
	add sp, sp, 0x9000
	.cfi_def_cfa_offset 0
	ret
	.cfi_endproc
	.size large, .-large

	.type outermost, %function
outermost:
	.cfi_startproc
	nop
	.cfi_undefined 30
	b outermost
	.cfi_endproc
	.size outermost, .-outermost

	.type signal, %function
signal:
	.cfi_startproc
	.cfi_signal_frame
	mov x8, 139
	svc 0
	.cfi_endproc
	.size signal, .-signal

	.type ra_only, %function
ra_only:
	.cfi_startproc
	str x30, [sp, -16]!
	.cfi_def_cfa_offset 16
	.cfi_offset 30, -16
	bl leaf
	ldr x30, [sp], 16
	.cfi_restore 30
	.cfi_def_cfa_offset 0
	ret
	.cfi_endproc
	.size ra_only, .-ra_only

	.section .text.other, "ax", %progbits
	.type switching, %function
switching:
	.cfi_startproc
	stp x29, x30, [sp, -16]!
	.cfi_def_cfa_offset 16
	.cfi_offset 29, -16
	.cfi_offset 30, -8
	ldp x29, x30, [sp], 16
	.cfi_def_cfa_offset 0
	.cfi_restore 29
	.cfi_restore 30
	ret
	.cfi_endproc
	.size switching, .-switching

	.type no_size, %function
no_size:
	.cfi_startproc
	.cfi_endproc
