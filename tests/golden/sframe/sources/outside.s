# Functions for the PLT of amd64.s and s390x.s to lead to.
	.text
	.globl outside, outside_too
	.type outside, @function
	.type outside_too, @function
outside:
	.cfi_startproc
	nop
	.cfi_endproc
	.size outside, .-outside
outside_too:
	.cfi_startproc
	nop
	.cfi_endproc
	.size outside_too, .-outside_too
