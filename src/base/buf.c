/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void buf_free(struct buf *b)
{
	free(b->data);
	*b = BUF_INIT(b->max);
}

/* Makes room for n more bytes and the terminator. */
static int reserve(struct buf *b, size_t n)
{
	size_t want = b->capacity ? b->capacity : 256;
	char *bigger;

	if (b->error)
		return b->error;
	if (n > b->max || b->size > b->max - n) {
		b->error = -E2BIG;
		return b->error;
	}
	while (want < b->size + n + 1)
		want *= 2;
	if (want == b->capacity)
		return 0;
	bigger = realloc(b->data, want);
	if (!bigger) {
		b->error = -ENOMEM;
		return b->error;
	}
	b->data = bigger;
	b->capacity = want;
	return 0;
}

int buf_append(struct buf *b, const void *bytes, size_t n)
{
	int r = reserve(b, n);

	if (r < 0)
		return r;
	if (n > 0)
		memcpy(b->data + b->size, bytes, n);
	b->size += n;
	b->data[b->size] = '\0';
	return 0;
}

int buf_puts(struct buf *b, const char *s)
{
	return buf_append(b, s, strlen(s));
}

int buf_putc(struct buf *b, char c)
{
	return buf_append(b, &c, 1);
}

int buf_printf(struct buf *b, const char *format, ...)
{
	va_list args;
	int n, r;

	va_start(args, format);
	n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n < 0)
		return -EINVAL;
	r = reserve(b, (size_t)n);
	if (r < 0)
		return r;
	va_start(args, format);
	(void)vsnprintf(b->data + b->size, (size_t)n + 1, format, args);
	va_end(args);
	b->size += (size_t)n;
	return 0;
}

void buf_consume(struct buf *b, size_t n)
{
	assert(n <= b->size);
	if (n == 0)
		return;
	memmove(b->data, b->data + n, b->size - n);
	b->size -= n;
	b->data[b->size] = '\0';
}

void buf_reset(struct buf *b)
{
	b->size = 0;
	b->error = 0;
	if (b->data)
		b->data[0] = '\0';
}

const char *buf_text(const struct buf *b)
{
	return b->data ? b->data : "";
}
