// Call frame information of every kind that the GNU assembler has a directive for, and some by .cfi_escape.
// build.sh makes the fixtures from this file; see there.
	.text

	.globl	plain
plain:
	.cfi_startproc
	ret
	.cfi_endproc

	.globl	signed_frame
signed_frame:
	.cfi_startproc
	paciasp
	.cfi_negate_ra_state
	stp	x29, x30, [sp, #-48]!
	.cfi_def_cfa_offset 48
	.cfi_offset 29, -48
	.cfi_offset 30, -40
	mov	x29, sp
	.cfi_def_cfa_register 29
	stp	x19, x20, [sp, #16]
	.cfi_rel_offset 19, 16
	.cfi_rel_offset 20, 24
	cbz	x0, 1f
	.cfi_remember_state
	ldp	x19, x20, [sp, #16]
	.cfi_restore 19
	.cfi_restore 20
	ldp	x29, x30, [sp], #48
	.cfi_restore 30
	.cfi_restore 29
	.cfi_def_cfa 31, 0
	autiasp
	.cfi_negate_ra_state
	ret
1:
	.cfi_restore_state
	bl	plain
	.cfi_remember_state
	.cfi_remember_state
	.cfi_def_cfa 31, 48
	nop
	.cfi_restore_state
	.cfi_undefined 29
	nop
	.cfi_restore_state
	nop
	brk	#1
	.cfi_endproc

	.globl	large_frame
large_frame:
	.cfi_startproc
	sub	sp, sp, #4080
	.cfi_adjust_cfa_offset 4080
	nop
	.cfi_def_cfa_offset 70000
	.fill	300, 4, 0xd503201f
	.cfi_def_cfa_offset 16
	.fill	20000, 4, 0xd503201f
	.cfi_def_cfa_offset 0
	.fill	300000, 4, 0xd503201f
	.cfi_same_value 29
	nop
	.cfi_register 30, 17
	nop
	.cfi_return_column 30
	ret
	.cfi_endproc

	.globl	escapes
escapes:
	.cfi_startproc
	nop
	.cfi_escape 0x16, 0x12, 0x02, 0x82, 0x78		// val_expression x18, as shadow call stacks have it
	nop
	.cfi_escape 0x0f, 0x03, 0x8f, 0x10, 0x06		// def_cfa_expression
	nop
	.cfi_escape 0x10, 0x1d, 0x02, 0x8f, 0x08		// expression x29
	nop
	.cfi_escape 0x16, 0x1e, 0x02, 0x8f, 0x00		// val_expression x30
	nop
	.cfi_escape 0x0c, 0x1f, 0xa0, 0x01			// def_cfa sp, 160
	.cfi_escape 0x11, 0x1d, 0x7e				// offset_extended_sf x29, -2
	.cfi_escape 0x05, 0x1e, 0x81, 0x00			// offset_extended x30, 1, padded
	nop
	.cfi_escape 0x14, 0x1d, 0x02				// val_offset x29
	.cfi_escape 0x06, 0x1e					// restore_extended x30
	nop
	.cfi_escape 0x12, 0x1d, 0x7e				// def_cfa_sf x29, -2
	nop
	.cfi_escape 0x13, 0x7c					// def_cfa_offset_sf -4
	.cfi_escape 0x2e, 0x10					// GNU_args_size
	.cfi_escape 0x2f, 0x1d, 0x03				// GNU_negative_offset_extended x29
	nop
	.cfi_def_cfa 19, 32
	ret
	.cfi_endproc

	.globl	interrupted
interrupted:
	.cfi_startproc
	.cfi_signal_frame
	.cfi_def_cfa 31, 288
	.cfi_offset 29, -56
	.cfi_undefined 30
	nop
	ret
	.cfi_endproc

	.globl	key_b
key_b:
	.cfi_startproc
	.cfi_b_key_frame
	pacibsp
	.cfi_negate_ra_state
	ret
	.cfi_endproc

	.section .text.cold, "ax"
	.globl	elsewhere
elsewhere:
	.cfi_startproc simple
	.cfi_def_cfa 29, 16
	nop
	ret
	.cfi_endproc
