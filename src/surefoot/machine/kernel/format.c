/* Text: a formatter with a jump table and variable arguments, and the log. */
#include "kernel.h"

char log_buffer[4096];
u32 log_end;

static noinline char *put_number(char *to, char *end, u64 value, u32 base)
{
	char digits[24];
	int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	while (n && to < end)
		*to++ = digits[--n];
	return to;
}

static noinline char *put_string(char *to, char *end, const char *text)
{
	while (*text && to < end)
		*to++ = *text++;
	return to;
}

static int vformat(char *to, size_t size, const char *fmt, __builtin_va_list args)
{
	char *begin = to, *end = to + size - 1;

	for (; *fmt && to < end; fmt++) {
		if (*fmt != '%') {
			*to++ = *fmt;
			continue;
		}
		switch (*++fmt) {
		case 'c':
			*to++ = (char)__builtin_va_arg(args, u64);
			break;
		case 'd':
			to = put_number(to, end, __builtin_va_arg(args, u64), 10);
			break;
		case 'o':
			to = put_number(to, end, __builtin_va_arg(args, u64), 8);
			break;
		case 's':
			to = put_string(to, end, __builtin_va_arg(args, const char *));
			break;
		case 'x':
			to = put_number(to, end, __builtin_va_arg(args, u64), 16);
			break;
		case 'b':
			to = put_number(to, end, __builtin_va_arg(args, u64), 2);
			break;
		default:
			*to++ = '?';
		}
	}
	*to = 0;
	return to - begin;
}

int format(char *to, size_t size, const char *fmt, ...)
{
	__builtin_va_list args;
	int length;

	__builtin_va_start(args, fmt);
	length = vformat(to, size, fmt, args);
	__builtin_va_end(args);
	return length;
}

void printk(const char *fmt, ...)
{
	__builtin_va_list args;
	char line[96];
	int length;

	__builtin_va_start(args, fmt);
	length = vformat(line, sizeof(line), fmt, args);
	__builtin_va_end(args);
	for (int i = 0; i < length; i++) {
		log_buffer[log_end++ % sizeof(log_buffer)] = line[i];
		dev_write(DEV_CONSOLE, line[i]);
	}
}
