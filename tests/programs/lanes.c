/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool of threads that takes tasks in racing order; each task names itself with sosie_lane() and
 * asks for one value of each kind. Prints the values by task.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sosie/values.h>

#define THREADS 4
#define TASKS   64

static atomic_int next_task;
static struct {
	uint64_t random, clock, tsc;
	uint8_t uuid[16];
	char custom[16];
} results[TASKS];

static ssize_t generate(void *context, void *buffer, size_t size)
{
	struct timespec ts;

	(void)context;
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return snprintf(buffer, size, "%ld", ts.tv_nsec) + 1;
}

static void *work(void *argument)
{
	int task;

	while ((task = atomic_fetch_add(&next_task, 1)) < TASKS) {
		char name[24];

		(void)snprintf(name, sizeof(name), "task-%d", task);
		if (sosie_lane(name) != 0 || sosie_random(&results[task].random, 8) != 0 ||
			sosie_clock(CLOCK_REALTIME, &results[task].clock) != 0 ||
			sosie_tsc(&results[task].tsc) != 0 || sosie_uuid(results[task].uuid) != 0 ||
			sosie_custom("processor time", generate, NULL, results[task].custom,
				sizeof(results[task].custom)) < 0 ||
			sosie_lane(NULL) != 0)
			abort();
		sched_yield();
	}
	return argument;
}

int main(void)
{
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, work, NULL) != 0)
			abort();
	for (int i = 0; i < THREADS; i++)
		(void)pthread_join(threads[i], NULL);
	(void)printf("member %d\n", sosie_is_member());
	for (int i = 0; i < TASKS; i++) {
		(void)printf("%d %016" PRIx64 " %" PRIu64 " %" PRIu64 " %s ", i, results[i].random,
			results[i].clock, results[i].tsc, results[i].custom);
		for (int k = 0; k < 16; k++)
			(void)printf("%02x", results[i].uuid[k]);
		(void)printf("\n");
	}
	return 0;
}
