// A function as GCC writes it with -fsanitize=shadow-call-stack: gas drops it ("FP without RA on stack").
	.text
	.globl with_window, below_sp
	.type with_window, %function
with_window:
	.cfi_startproc
	str x30, [x18], 8
	stp x29, x30, [sp, -48]!
	.cfi_def_cfa_offset 48
	.cfi_offset 29, -48
	.cfi_offset 30, -40
	mov x29, sp
	bl with_window
	ldr x30, [x18, -8]!
	.cfi_restore 30
	ldr x29, [sp], 48
	.cfi_restore 29
	.cfi_def_cfa_offset 0
	ret
	.cfi_endproc
	.size with_window, .-with_window

// One that gas keeps: x29 is reloaded first; the slot of x30 then lies below SP.
	.type below_sp, %function
below_sp:
	.cfi_startproc
	str x30, [x18], 8
	stp x29, x30, [sp, -80]!
	.cfi_def_cfa_offset 80
	.cfi_offset 29, -80
	.cfi_offset 30, -72
	mov x29, sp
	bl with_window
	ldr x29, [sp], 80
	.cfi_restore 29
	.cfi_def_cfa_offset 0
	ldr x30, [x18, -8]!
	.cfi_restore 30
	ret
	.cfi_endproc
	.size below_sp, .-below_sp
