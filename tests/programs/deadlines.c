/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waits a fifth of a second by each function that takes a point in time, computed from a reading
 * of the clock, and prints the readings. Standard error gets how long each wait really took, by
 * the kernel's own clock.
 */
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define WAIT_NS 200000000L

static struct timespec read_clock(clockid_t id)
{
	struct timespec ts;

	if (clock_gettime(id, &ts) < 0)
		abort();
	return ts;
}

static struct timespec later(struct timespec ts)
{
	ts.tv_nsec += WAIT_NS;
	if (ts.tv_nsec >= 1000000000L) {
		ts.tv_nsec -= 1000000000L;
		ts.tv_sec++;
	}
	return ts;
}

/* Past libc, so past everything that may stand before it. */
static double kernel_seconds(void)
{
	struct timespec ts = {0};
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"((long)SYS_clock_gettime), "D"((long)CLOCK_MONOTONIC), "S"(&ts)
			 : "rcx", "r11", "memory");
	if (r < 0)
		abort();
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void by_nanosleep(clockid_t id, struct timespec deadline)
{
	if (clock_nanosleep(id, TIMER_ABSTIME, &deadline, NULL) != 0)
		abort();
}

static void by_timerfd(clockid_t id, struct timespec deadline)
{
	const struct itimerspec when = {.it_value = deadline};
	int fd = timerfd_create(id, 0);
	uint64_t n;

	if (fd < 0 || timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, NULL) < 0 ||
		read(fd, &n, sizeof(n)) != sizeof(n))
		abort();
	(void)close(fd);
}

static void by_condition(clockid_t id, struct timespec deadline)
{
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_condattr_t attributes;
	pthread_cond_t condition;

	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, id);
	(void)pthread_cond_init(&condition, &attributes);
	(void)pthread_mutex_lock(&mutex);
	while (pthread_cond_timedwait(&condition, &mutex, &deadline) == 0)
		continue;
	(void)pthread_mutex_unlock(&mutex);
}

static void by_semaphore(clockid_t id, struct timespec deadline)
{
	sem_t semaphore;

	(void)id;
	(void)sem_init(&semaphore, 0, 0);
	while (sem_timedwait(&semaphore, &deadline) == 0)
		continue;
}

int main(void)
{
	static const struct {
		const char *name;
		clockid_t id;
		void (*wait)(clockid_t id, struct timespec deadline);
	} ways[] = {
		{"nanosleep/monotonic", CLOCK_MONOTONIC, by_nanosleep},
		{"nanosleep/realtime", CLOCK_REALTIME, by_nanosleep},
		{"nanosleep/boottime", CLOCK_BOOTTIME, by_nanosleep},
		{"timerfd/monotonic", CLOCK_MONOTONIC, by_timerfd},
		{"timerfd/realtime", CLOCK_REALTIME, by_timerfd},
		{"condition/monotonic", CLOCK_MONOTONIC, by_condition},
		{"condition/realtime", CLOCK_REALTIME, by_condition},
		{"semaphore/realtime", CLOCK_REALTIME, by_semaphore},
	};

	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		struct timespec start = read_clock(ways[i].id);
		double before = kernel_seconds();

		ways[i].wait(ways[i].id, later(start));
		(void)fprintf(stderr, "%s %.3f\n", ways[i].name, kernel_seconds() - before);
		(void)printf("%s %" PRId64 ".%09ld\n", ways[i].name, (int64_t)start.tv_sec,
			start.tv_nsec);
	}
	/* A loop that reads the clock once and then adds: the waits must not grow. */
	{
		struct timespec at = read_clock(CLOCK_MONOTONIC);
		double before = kernel_seconds();

		for (int i = 0; i < 5; i++) {
			at = later(at);
			by_nanosleep(CLOCK_MONOTONIC, at);
		}
		(void)fprintf(stderr, "loop/5 %.3f\n", (kernel_seconds() - before) / 5);
	}
	return 0;
}
