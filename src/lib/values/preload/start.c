/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "lib/values/preload/preload.h"

char preload_path[RUN_PATH_MAX];
_Thread_local uint64_t preload_child;

void *preload_real(_Atomic(void *) *cache, const char *name)
{
	void *found = atomic_load_explicit(cache, memory_order_acquire);
	int saved = errno;

	if (likely(found))
		return found;
	found = dlsym(RTLD_NEXT, name);
	if (!found) {
		/* A program cannot have been linked to what no library of its has. */
		static const char message[] = "sosie: libc lacks a function that it had: ";

		(void)!write(STDERR_FILENO, message, sizeof(message) - 1);
		(void)!write(STDERR_FILENO, name, strlen(name));
		abort();
	}
	atomic_store_explicit(cache, found, memory_order_release);
	errno = saved;
	return found;
}

static void before_fork(void)
{
	preload_child = values_fork_prepare();
}

static void in_child(void)
{
	values_fork_child(preload_child);
}

/* Once a program: a member that cannot take part must not go on as if it did. */
static void complain(const struct err *e)
{
	char line[sizeof(e->message) + 64];
	int n = snprintf(line, sizeof(line), "sosie: %s: running outside its group\n", e->message);

	if (n > 0)
		(void)!write(STDERR_FILENO, line, MIN((size_t)n, sizeof(line) - 1));
}

static __attribute__((constructor(101))) void start(void)
{
	struct err e = {0};
	Dl_info self;
	int saved = errno;
	int r;

	values_real_clock = REAL(clock_gettime);
	if (dladdr(preload_path, &self) && self.dli_fname && self.dli_fname[0] == '/' &&
		strlen(self.dli_fname) < sizeof(preload_path))
		memcpy(preload_path, self.dli_fname, strlen(self.dli_fname) + 1);
	r = values_join(environ, &e);
	if (r < 0 && e.code != ERR_NONE)
		complain(&e);
	if (r == 0) {
		preload_adopt_descriptors();
		(void)pthread_atfork(before_fork, NULL, in_child);
	}
	errno = saved;
}
