/* The user programs: one image, the argument chooses. Linked on its own and copied to USER_TEXT. */
#include "kernel.h"

static inline s64 syscall(u64 nr, u64 a, u64 b, u64 c)
{
	register u64 x8 __asm__("x8") = nr;
	register u64 x0 __asm__("x0") = a;
	register u64 x1 __asm__("x1") = b;
	register u64 x2 __asm__("x2") = c;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory", "cc");
	return (s64)x0;
}

static inline u64 next(u64 *state)
{
	*state = *state * 6364136223846793005UL + 1442695040888963407UL;
	return *state >> 33;
}

static noinline void compute(u64 *state)
{
	for (;;) {
		u64 n = next(state);

		syscall(1, n % 10, n & 0xfff, 0);
		if (n % 16 == 0)
			syscall(4, 500, 0, 0);
		if (n % 7 == 0)
			*(volatile u64 *)(USER_DEMAND + (n % 200) * PAGE_SIZE + 8) = n;
	}
}

static noinline void reader(u64 *state)
{
	for (;;) {
		u64 n = next(state);
		u64 to = n % 5 == 0 ? USER_BAD + n % 64 : n % 3 == 0 ? USER_DEMAND + (n % 250) * PAGE_SIZE : USER_DATA + 256;

		syscall(3, to, n % 31 + 1, 0);
	}
}

static noinline void writer(u64 *state)
{
	for (;;) {
		u64 n = next(state);
		u64 from = n % 7 == 0 ? USER_DATA + PAGE_SIZE - 3 : n % 4 == 0 ? USER_DEMAND + (n % 250) * PAGE_SIZE : USER_DATA;

		syscall(2, from, n % 40, 0);
		syscall(0, 0, 0, 0);
		if (n % 3 == 0)
			syscall(4, 900, 0, 0);
		else if (n % 3 == 1)
			syscall(5, 0, 0, 0);
		if (n % 11 == 0)
			syscall(99, 0, 0, 0);
	}
}

static noinline void pairs(u64 *state)
{
	for (;;) {
		u64 n = next(state);

		syscall(6, n, n % 4 == 0 ? 400 : 0, 0);
		syscall(1, n % 6, n & 0x3ff, 0);
	}
}

/* Asks for what it may have, and for what it may not. */
static noinline void prober(u64 *state)
{
	for (;;) {
		u64 n = next(state);

		syscall(8, n % 12, n % 5 == 0 ? 600 : 0, 0);
		syscall(1, n % 4, n & 0x3ff, 0);
	}
}

__attribute__((section(".text.start"))) void _start(u64 what)
{
	u64 state = what * 7919 + 3;

	switch (what) {
	case 0:
		compute(&state);
		break;
	case 1:
		reader(&state);
		break;
	case 2:
		writer(&state);
		break;
	case 3:
		syscall(6, 77, 300, 0);
		syscall(1, 4, 5, 0);
		syscall(1, 10, 0x7fff, 0); /* gives up inside the kernel */
		break;
	case 9:
		prober(&state);
		break;
	default:
		pairs(&state);
	}
	syscall(7, 0, 0, 0);
	for (;;)
		;
}
