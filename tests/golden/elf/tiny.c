/* Compiled code beside tiny.S: patchable entries, a static function of a common name, a call to the assembly. */
extern void plain(void *where);
extern long counter;

static __attribute__((noinline)) long helper(long x)
{
	return x * 3 + counter;
}

long compiled(long x)
{
	plain(&counter);
	return helper(x) + 1;
}
