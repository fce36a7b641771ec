/* The load: every shape of function that a compiler makes of C. */
#include "kernel.h"

noinline u64 load_random(u64 *state)
{
	u64 x = *state + 0x9e3779b97f4a7c15;

	*state = x;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

/* Leaves without a frame. */
static noinline u64 leaf_add(u64 a, u64 b)
{
	return a + b * 3;
}

static noinline plain u64 leaf_loop(u64 n)
{
	u64 sum = 0;

	for (u64 i = 0; i < n; i++)
		sum = sum * 31 + (i ^ (sum >> 7));
	return sum;
}

/* A leaf that needs the stack but no frame record. */
static noinline u64 leaf_table(u64 n)
{
	volatile u64 table[12];

	for (u64 i = 0; i < ARRAY_SIZE(table); i++)
		table[i] = n * i;
	return table[n % ARRAY_SIZE(table)];
}

/* Most calls take the short way and never build a frame. */
static noinline u64 shrink_wrapped(u64 n)
{
	u64 sum;

	if (likely(n & 3))
		return n >> 2;
	sum = leaf_loop(n % 5);
	sum += leaf_add(sum, n);
	return sum + leaf_table(sum);
}

/* Frames whose size is known at run time only. */
static noinline u64 dynamic_frame(u64 n)
{
	u64 *words = __builtin_alloca(8 * (n % 24 + 1));

	for (u64 i = 0; i <= n % 24; i++)
		words[i] = leaf_add(n, i);
	return asm_sum(words, n % 24 + 1) + shrink_wrapped(words[n % 24]);
}

static noinline u64 two_dynamic_frames(u64 n)
{
	char text[n % 50 + 16];
	int length = format(text, sizeof(text), "%x %d %s %o", n, n % 100, "text", n & 0xff);
	u64 sum = asm_hash(text, length);

	if (n & 1) {
		u64 more[n % 7 + 1];

		more[n % 7] = sum;
		sum += dynamic_frame(more[n % 7]);
	}
	return sum;
}

/* More stack than one instruction can allot. */
static noinline u64 large_frame(u64 n)
{
	u64 words[160];

	memset(words, (int)n, sizeof(words));
	words[n % 160] = leaf_loop(n % 3);
	return asm_sum(words, 8) + words[(n + 1) % 160];
}

static noinline plain u64 many_registers(u64 a, u64 b, u64 c, u64 d)
{
	u64 e = leaf_add(a, b), f = leaf_add(c, d), g = leaf_loop(e % 4), h = leaf_loop(f % 4);
	u64 i = shrink_wrapped(a ^ g), j = shrink_wrapped(b ^ h);

	return a + b * c - d + e * f + (g ^ h) + leaf_add(i, j) + i * j;
}

static noinline u64 recurse(u64 depth, u64 n)
{
	if (!depth)
		return leaf_table(n);
	return recurse(depth - 1, n * 5 + 1) + leaf_add(depth, n);
}

static noinline u64 is_odd(u64 n);

static noinline u64 is_even(u64 n)
{
	return n ? leaf_add(is_odd(n - 1), n) : 1;
}

static noinline plain u64 is_odd(u64 n)
{
	return n ? leaf_add(is_even(n - 1), 2 * n) : 0;
}

/* Tail calls: the caller's frame is gone before the callee begins. */
static noinline u64 tail_third(u64 n)
{
	return n & 4 ? recurse(2, n) : leaf_table(n);
}

static noinline u64 tail_second(u64 n)
{
	if (n & 2)
		n += leaf_loop(n & 7);
	return tail_third(n + 1);
}

static noinline u64 tail_first(u64 n)
{
	n = shrink_wrapped(n) + n;
	return tail_second(n);
}

/* Calls through tables. */
struct shape_ops {
	u64 (*area)(u64);
	u64 (*scale)(u64);
};

static u64 square_area(u64 n)
{
	return n * n;
}

static u64 square_scale(u64 n)
{
	return leaf_add(n, n) + shrink_wrapped(n);
}

static u64 circle_area(u64 n)
{
	return recurse(1, n) * 3;
}

static plain u64 circle_scale(u64 n)
{
	return tail_second(n);
}

static const struct shape_ops shapes[] = {
	{ square_area, square_scale },
	{ circle_area, circle_scale },
	{ tail_first, dynamic_frame },
};

static noinline u64 indirect(u64 n)
{
	const struct shape_ops *ops = &shapes[n % ARRAY_SIZE(shapes)];
	u64 area = ops->area(n & 0xff);

	return area + ops->scale(area & 0xff);
}

static noinline u64 indirect_tail(u64 n)
{
	return shapes[n % ARRAY_SIZE(shapes)].scale(n & 0x7f);
}

/* A jump table, with calls of all kinds behind it. */
static noinline u64 interpret(const u8 *program, u64 length, u64 accumulator)
{
	for (u64 at = 0; at < length; at++) {
		switch (program[at] % 12) {
		case 0:
			accumulator = leaf_add(accumulator, at);
			break;
		case 1:
			accumulator ^= leaf_loop(at % 5);
			break;
		case 2:
			accumulator += recurse(at % 4, accumulator);
			break;
		case 3:
			accumulator = indirect(accumulator);
			break;
		case 4:
			accumulator -= tail_first(accumulator & 31);
			break;
		case 5:
			accumulator *= 7;
			break;
		case 6:
			accumulator = dynamic_frame(accumulator);
			break;
		case 7:
			accumulator += asm_hash(program, at);
			break;
		case 8:
			accumulator = many_registers(accumulator, at, 3, 4);
			break;
		case 9:
			if (accumulator & 1)
				at++;
			break;
		case 10:
			accumulator = indirect_tail(accumulator);
			break;
		default:
			accumulator = ~accumulator;
		}
	}
	return accumulator;
}

static noinline u64 run_program(u64 n)
{
	u8 program[24];

	for (u64 i = 0; i < sizeof(program); i++)
		program[i] = (u8)load_random(&n);
	return interpret(program, sizeof(program), n);
}

/* Sorting with a comparator, as a caller of pointers in loops. */
static noinline int compare_words(const u64 *a, const u64 *b)
{
	return *a < *b ? -1 : *a > *b;
}

static noinline void sort(u64 *words, int low, int high, int (*compare)(const u64 *, const u64 *))
{
	while (low < high) {
		u64 pivot = words[(low + high) / 2];
		int i = low, j = high;

		while (i <= j) {
			while (compare(&words[i], &pivot) < 0)
				i++;
			while (compare(&words[j], &pivot) > 0)
				j--;
			if (i <= j) {
				u64 swap = words[i];

				words[i++] = words[j];
				words[j--] = swap;
			}
		}
		sort(words, low, j, compare);
		low = i;
	}
}

static noinline u64 sorted(u64 n)
{
	u64 words[14];

	for (u64 i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = load_random(&n) & 0xffff;
	sort(words, 0, ARRAY_SIZE(words) - 1, compare_words);
	return asm_sum(words, ARRAY_SIZE(words));
}

/* A table of chained entries. */
struct node {
	struct node *next;
	u64 key, value;
};
static struct node nodes[32], *buckets[8];

static noinline struct node *lookup(u64 wanted)
{
	struct node *node = buckets[leaf_add(wanted, 1) % ARRAY_SIZE(buckets)];

	while (node && node->key != wanted)
		node = node->next;
	return node;
}

static noinline u64 remember(u64 n)
{
	struct node *node;

	preempt_disable();
	node = lookup(n % ARRAY_SIZE(nodes));
	if (!node) {
		struct node **bucket = &buckets[leaf_add(n % ARRAY_SIZE(nodes), 1) % ARRAY_SIZE(buckets)];

		node = &nodes[n % ARRAY_SIZE(nodes)];
		node->key = n % ARRAY_SIZE(nodes);
		node->next = *bucket;
		*bucket = node;
	}
	node->value += n;
	preempt_enable();
	return node->value;
}

/* Assembly that breaks the call standard, annotated and not. */
static noinline u64 callback(u64 n)
{
	return n & 1 ? leaf_table(n) : shrink_wrapped(n) + recurse(n & 3, n);
}

static noinline u64 through_assembly(u64 n)
{
	u64 sum = asm_norecord(callback, n);

	if (n % 32 == 0)
		sum += asm_scratch_call(leaf_loop, n & 3);
	return sum + asm_sum(&sum, 1);
}

static noinline u64 through_bare_assembly(u64 n)
{
	u64 sum = asm_sum_bare(&n, 1);

	if (n & 1)
		sum += asm_norecord_bare(callback, n);
	else
		sum += asm_trampoline(callback, n + 2);
	return sum;
}

/* A call that never returns, as the last thing of a function. */
static noinline noreturn void give_up(u64 n)
{
	do_exit((int)(n & 0x7f));
}

noinline u64 check_or_give_up(u64 n)
{
	if (likely(n != 0x7fff))
		return leaf_add(n, 1);
	give_up(n);
}

u64 load_run(u64 kind, u64 arg)
{
	static u64 (*const kinds[])(u64) = {
		run_program, two_dynamic_frames, large_frame, sorted, remember, through_assembly, through_bare_assembly,
		is_even, indirect, tail_first, check_or_give_up,
	};
	u64 n = kind % ARRAY_SIZE(kinds) == 7 ? arg % 20 : arg;

	return kinds[kind % ARRAY_SIZE(kinds)](n);
}

u64 pair_f(u64 x, u64 sleep);
u64 pair_f_new(u64 x, u64 sleep);
u64 pair_g_new(u64 x, u64 sealed);
u64 vault_read(u64 index, u64 sleep);

/* Functions with a kretprobe: called often, nested, and by tail calls. */
const u64 kretprobe_targets[] = {
	(u64)recurse, (u64)dynamic_frame, (u64)two_dynamic_frames, (u64)tail_first, (u64)interpret, (u64)indirect,
	(u64)pair_f, (u64)pair_f_new, (u64)pair_g_new, (u64)vault_read, 0,
};
