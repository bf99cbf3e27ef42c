/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small compiler and language helpers that every floor may use.
 */
#ifndef SOSIE_BASE_MACRO_H
#define SOSIE_BASE_MACRO_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define likely(x)     __builtin_expect(!!(x), 1)
#define unlikely(x)   __builtin_expect(!!(x), 0)
#define PRINTF(f, a)  __attribute__((format(printf, f, a)))
#define MUST_USE      __attribute__((warn_unused_result))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))
#define CLEANUP(f)    __attribute__((cleanup(f)))
#define NSEC_PER_SEC  1000000000L
#define NSEC_PER_MSEC 1000000L
#define NSEC_PER_USEC 1000L

/*
 * Declares `void f_p(T *p)`, which calls f(*p): the form that CLEANUP() wants.
 * f must accept NULL.
 */
#define DEFINE_CLEANUP(type, f)           \
	static inline void f##_p(type *p) \
	{                                 \
		if (*p)                   \
			f(*p);            \
	}                                 \
	struct sosie_swallow_semicolon

static inline void sosie_free_p(void *p)
{
	void *memory = *(void **)p;

	free(memory);
}

static inline void sosie_close_p(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

/* Frees a malloc'ed pointer, or closes a descriptor (when >= 0), at the end of its scope. */
#define CLEANUP_FREE  CLEANUP(sosie_free_p)
#define CLEANUP_CLOSE CLEANUP(sosie_close_p)

/* Takes the value out of a CLEANUP_* variable so that the scope's end leaves it alone. */
#define TAKE_FD(fd)                  \
	({                           \
		int take_fd_ = (fd); \
		(fd) = -1;           \
		take_fd_;            \
	})
#define TAKE_PTR(p)                            \
	({                                     \
		__typeof__(p) take_ptr_ = (p); \
		(p) = NULL;                    \
		take_ptr_;                     \
	})

/* Rounds x up to a multiple of the power of two a. */
static inline uint64_t round_up_u64(uint64_t x, uint64_t a)
{
	return (x + a - 1) & ~(a - 1);
}

#endif
