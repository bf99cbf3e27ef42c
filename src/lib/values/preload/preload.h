/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The preload library: libc's functions through which a program meets chance and time, so that an
 * unmodified program becomes a member of a group.
 *
 * Rules for everything here: errno is as the original would leave it; no lock; no allocation
 * where the original has none; a process that is no member behaves as if the library were absent.
 */
#ifndef SOSIE_LIB_VALUES_PRELOAD_H
#define SOSIE_LIB_VALUES_PRELOAD_H

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>

#include "lib/values/client.h"
#include "lib/values/internal.h"

#define EXPORT __attribute__((visibility("default")))

/* The function that ours stands before, looked up once. */
#define REAL(name)                                                      \
	({                                                              \
		static _Atomic(void *) real_##name;                     \
		(__typeof__(&(name)))preload_real(&real_##name, #name); \
	})

/* Function and object pointers convert on every system that has dlsym(). */
void *preload_real(_Atomic(void *) *cache, const char *name);

/* Sets errno and returns -1 for a negative errno, else the value. */
static inline int preload_result(int r)
{
	if (r >= 0)
		return r;
	errno = -r;
	return -1;
}

/* Descriptors 0 to PRELOAD_FDS - 1 can be random devices or timers; above, they are the system's.
 */
#define PRELOAD_FDS 1024

/* At the start of a program: finds random devices among the inherited descriptors. */
void preload_adopt_descriptors(void);
/* The clock of a timerfd, CLOCK_REALTIME when it is none that was seen. */
int preload_timerfd_clock(int fd);
void preload_note_timerfd(int fd, int clock_id);

/* The path of this library, "" when it could not be found. */
extern char preload_path[RUN_PATH_MAX];

/* The lineage of the newest child that the calling thread began to make. */
extern _Thread_local uint64_t preload_child;

#endif
