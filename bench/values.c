/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An ordinary program that asks N times for a value and prints how many nanoseconds each took.
 * Run bare it measures the system (the peer), run as a member of a group it measures Sosie.
 *
 * usage: bench-values random|clock|both N
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static uint64_t sink;

/* The kernel's clock, past everything that may stand before libc's. */
static double kernel_ns(void)
{
	struct timespec ts = {0};
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"((long)SYS_clock_gettime), "D"((long)CLOCK_MONOTONIC), "S"(&ts)
			 : "rcx", "r11", "memory");
	if (r < 0)
		abort();
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void draw(long n)
{
	for (long i = 0; i < n; i++) {
		uint64_t v = 0;

		if (getrandom(&v, sizeof(v), 0) != sizeof(v))
			abort();
		sink ^= v;
	}
}

static void look(long n)
{
	for (long i = 0; i < n; i++) {
		struct timespec ts;

		if (clock_gettime(CLOCK_MONOTONIC, &ts) < 0)
			abort();
		sink ^= (uint64_t)ts.tv_nsec;
	}
}

int main(int argc, char **argv)
{
	void (*work)(long) = argc > 1 && !strcmp(argv[1], "random") ? draw : look;
	long n = argc > 2 ? strtol(argv[2], NULL, 10) : 1000000;
	double start, end;

	work(1000); /* what the first calls cost once */
	start = kernel_ns();
	work(n);
	end = kernel_ns();
	(void)printf("%.2f\n", (end - start) / (double)n);
	return sink == 1; /* so that the work is not optimised away */
}
