/* SPDX-License-Identifier: Apache-2.0 */
/* A thread's lineage is decided by the thread that makes it, before the two can race. */
#include <pthread.h>
#include <stdlib.h>
#include <threads.h>

#include "lib/values/preload/preload.h"

struct start {
	union {
		void *(*posix)(void *);
		int (*c11)(void *);
	} run;
	void *argument;
	uint64_t lineage;
};

static struct start take(struct start *heap)
{
	struct start s = *heap;

	free(heap);
	values_thread_begin(s.lineage);
	return s;
}

static void *run_posix(void *heap)
{
	struct start s = take(heap);
	void *result = s.run.posix(s.argument);

	values_thread_end();
	return result;
}

static void *run_c11(void *heap)
{
	struct start s = take(heap);
	int result = s.run.c11(s.argument);

	values_thread_end();
	return (void *)(intptr_t)
		result; // NOLINT(performance-no-int-to-ptr): what thrd_join() takes
}

EXPORT int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
	void *(*run)(void *), void *restrict argument)
{
	uint64_t lineage = values_thread_new();
	struct start *s;
	int r;

	if (lineage == 0)
		return REAL(pthread_create)(thread, attributes, run, argument);
	s = malloc(sizeof(*s));
	if (!s)
		return EAGAIN;
	*s = (struct start){.run.posix = run, .argument = argument, .lineage = lineage};
	r = REAL(pthread_create)(thread, attributes, run_posix, s);
	if (r != 0)
		free(s);
	return r;
}

EXPORT int thrd_create(thrd_t *thread, thrd_start_t run, void *argument)
{
	uint64_t lineage = values_thread_new();
	struct start *s;
	int r;

	if (lineage == 0)
		return REAL(thrd_create)(thread, run, argument);
	s = malloc(sizeof(*s));
	if (!s)
		return thrd_nomem;
	*s = (struct start){.run.c11 = run, .argument = argument, .lineage = lineage};
	r = REAL(pthread_create)(thread, NULL, run_c11, s);
	if (r == 0)
		return thrd_success;
	free(s);
	return r == ENOMEM ? thrd_nomem : thrd_error;
}
