# Scaled CFA offsets, registers saved in slots and in other registers, and calls through the PLT.
	.text
	.globl leaf, frame, in_registers, fp_only
	.type leaf, @function
leaf:
	.cfi_startproc
	nopr
	br %r14
	.cfi_endproc
	.size leaf, .-leaf

	.type frame, @function
frame:
	.cfi_startproc
	stmg %r11, %r15, 88(%r15)
	.cfi_rel_offset 11, 88
	.cfi_rel_offset 14, 112
	.cfi_rel_offset 15, 120
	aghi %r15, -168
	.cfi_adjust_cfa_offset 168
	lgr %r11, %r15
	.cfi_def_cfa_register 11
	brasl %r14, outside@PLT
	brasl %r14, outside_too@PLT
	lmg %r11, %r15, 256(%r15)
	.cfi_restore 15
	.cfi_restore 14
	.cfi_restore 11
	.cfi_def_cfa 15, 160
	br %r14
	.cfi_endproc
	.size frame, .-frame

	.type in_registers, @function
in_registers:
	.cfi_startproc
	ldgr %f2, %r11
	.cfi_register 11, 17
	ldgr %f0, %r14
	.cfi_register 14, 16
	lgdr %r14, %f0
	.cfi_restore 14
	lgdr %r11, %f2
	.cfi_restore 11
	br %r14
	.cfi_endproc
	.size in_registers, .-in_registers

	.type fp_only, @function
fp_only:
	.cfi_startproc
	stg %r11, 88(%r15)
	.cfi_rel_offset 11, 88
	nopr
	lg %r11, 88(%r15)
	.cfi_restore 11
	br %r14
	.cfi_endproc
	.size fp_only, .-fp_only
