/* Constants shared by C, assembly, the linker script and the loader. main.c holds them against the structures. */
#ifndef LAYOUT_H
#define LAYOUT_H

#define KERNEL_BASE 0xffff800008000000
#define STACK_AREA 0xffff800010000000 /* task stacks: the lower half of slots of 32 KiB */
#define IRQ_STACK 0xffff800018000000
#define SLOT_AREA 0xffff80001c000000 /* kprobes single-step here; not kernel text */
#define DEVICES 0xffff80001f000000

#define THREAD_SIZE 16384
#define THREAD_SHIFT 14
#define STACK_SLOT 32768
#define IRQ_STACK_SIZE 16384
#define OVERFLOW_STACK_SIZE 4096
#define SCS_SIZE 1024
#define NR_TASKS 16

#define USER_TEXT 0x400000
#define USER_DATA 0x500000 /* mapped */
#define USER_DEMAND 0x600000 /* mapped on first touch */
#define USER_BAD 0x700000 /* never mapped */
#define USER_STACK 0x7f0000 /* one page per task, downwards from here */
#define PAGE_SIZE 4096

/* Registers of the machine, offsets from DEVICES. Writes of 8 bytes act, reads of 8 bytes give. */
#define DEV_CONSOLE 0x00 /* write: a character */
#define DEV_TIMER 0x08 /* write: interrupt after so many instructions, 0 stops it */
#define DEV_MAP 0x10 /* write: address of a page to map */
#define DEV_UNMAP 0x18 /* write: address of a page to take away */
#define DEV_EXIT 0x20 /* write: end the run with this status */
#define DEV_IRQ 0x28 /* read: pending interrupt and acknowledge it; 0 none, 1 timer, 2 injected */
#define DEV_COUNT 0x30 /* read: instructions executed so far */
#define DEV_SEED 0x38 /* read: the seed of this run */

#define IRQ_TIMER 1
#define IRQ_INJECTED 2

/* struct pt_regs, as in Linux 7.3 */
#define S_X0 0
#define S_FP 232
#define S_LR 240
#define S_SP 248
#define S_PC 256
#define S_PSTATE 264
#define S_SYSCALLNO 280
#define S_STACKFRAME 296
#define S_STACKFRAME_TYPE 312
#define PT_REGS_SIZE 320
#define FRAME_META_TYPE_FINAL 1
#define FRAME_META_TYPE_PT_REGS 2

/* struct ftrace_regs, as in Linux 7.3 */
#define FREGS_FP 80
#define FREGS_LR 88
#define FREGS_SP 96
#define FREGS_PC 104
#define FREGS_SIZE 112
#define FTRACE_OPS_FUNC 0

/* struct task_struct */
#define TSK_SCS_BASE 16
#define TSK_SCS_SP 24
#define TSK_STACK 40
#define TSK_CPU_CONTEXT 104

#endif
