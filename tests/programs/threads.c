/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eight threads that race, each with a child process, each asking for values of several kinds.
 * Prints what each got, in the order of the threads' numbers, not of their running.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 8
#define ROUNDS  50

struct result {
	uint64_t random, clock, child_random;
	int child_pid;
};

static struct result results[THREADS];

static uint64_t draw(void)
{
	uint64_t v = 0;

	if (getrandom(&v, sizeof(v), 0) != sizeof(v))
		abort();
	return v;
}

static uint64_t now(clockid_t id)
{
	struct timespec ts;

	if (clock_gettime(id, &ts) < 0)
		abort();
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void *work(void *argument)
{
	struct result *r = argument;
	int ends[2], status;
	pid_t child;

	for (int i = 0; i < ROUNDS; i++) {
		r->random = r->random * 31 + draw();
		r->clock = r->clock * 31 + now(CLOCK_MONOTONIC);
		r->clock = r->clock * 31 + now(CLOCK_REALTIME);
		if (i % 7 == 0)
			sched_yield();
	}
	if (pipe(ends) < 0)
		abort();
	child = fork();
	if (child < 0)
		abort();
	if (child == 0) {
		uint64_t v = draw() ^ (uint64_t)getpid() ^ now(CLOCK_REALTIME);

		_exit(write(ends[1], &v, sizeof(v)) != sizeof(v));
	}
	if (read(ends[0], &r->child_random, sizeof(r->child_random)) != sizeof(r->child_random) ||
		waitpid(child, &status, 0) != child || status != 0)
		abort();
	r->child_pid = child;
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, work, &results[i]) != 0)
			abort();
	for (int i = 0; i < THREADS; i++) {
		(void)pthread_join(threads[i], NULL);
		(void)printf("%d %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %d\n", i,
			results[i].random, results[i].clock, results[i].child_random,
			results[i].child_pid);
	}
	return 0;
}
