/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable byte buffer with a stated maximum.
 *
 * Appending past the maximum or out of memory fails once and for all: the buffer keeps what it
 * had, remembers the error, and every later append fails too, so that a caller may append many
 * times and check buf_error() once.
 */
#ifndef SOSIE_BASE_BUF_H
#define SOSIE_BASE_BUF_H

#include "base/macro.h"

struct buf {
	char *data;      /* always NUL-terminated behind size once anything was appended */
	size_t size;     /* bytes in use */
	size_t capacity; /* bytes allocated */
	size_t max;      /* size never exceeds it */
	int error;       /* 0, or the negative errno of the first failed append */
};

#define BUF_INIT(limit)        \
	(struct buf)           \
	{                      \
		.max = (limit) \
	}

void buf_free(struct buf *b);
int buf_append(struct buf *b, const void *bytes, size_t n);
int buf_puts(struct buf *b, const char *s);
int buf_putc(struct buf *b, char c);
int buf_printf(struct buf *b, const char *format, ...) PRINTF(2, 3);
/* Removes the first n bytes (n <= size). */
void buf_consume(struct buf *b, size_t n);
/* Forgets contents and error, keeps the memory. */
void buf_reset(struct buf *b);
/* The text, never NULL. Valid until the next append. */
const char *buf_text(const struct buf *b);
static inline int buf_error(const struct buf *b)
{
	return b->error;
}

#define CLEANUP_BUF CLEANUP(buf_free)

#endif
