/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A signal handler that draws random bytes while the program it interrupts does the same. Prints
 * how many draws there were and "unique" when no two were equal.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/time.h>

#define DRAWS 200000

static uint64_t drawn[2 * DRAWS];
static uint64_t in_handler[DRAWS];
static volatile sig_atomic_t handled;

static void handler(int signal)
{
	(void)signal;
	if (handled < DRAWS && getrandom(&in_handler[handled], 8, 0) == 8)
		handled++;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

int main(void)
{
	const struct itimerval often = {{0, 50}, {0, 50}}, never = {0};
	const struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
	size_t n = 0;

	if (sigaction(SIGALRM, &action, NULL) < 0 || setitimer(ITIMER_REAL, &often, NULL) < 0)
		return 1;
	/* Until there were enough interruptions for some to have come inside a request. */
	for (; n < DRAWS || handled < 1000; n++) {
		uint64_t v;

		if (getrandom(&v, sizeof(v), 0) != sizeof(v))
			return 1;
		drawn[n % DRAWS] = v;
	}
	if (setitimer(ITIMER_REAL, &never, NULL) < 0)
		return 1;
	n = n < DRAWS ? n : DRAWS;
	for (int i = 0; i < handled; i++)
		drawn[n + (size_t)i] = in_handler[i];
	n += (size_t)handled;
	qsort(drawn, n, sizeof(*drawn), compare);
	for (size_t i = 1; i < n; i++)
		if (drawn[i] == drawn[i - 1]) {
			(void)printf("the same value twice\n");
			return 1;
		}
	(void)printf("%zu draws, %d of them in handlers: unique\n", n, (int)handled);
	return 0;
}
