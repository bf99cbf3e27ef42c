/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks for N values of each of three kinds as fast as it can and prints a digest of them after
 * every hundredth, so that a copy that is killed half-way has shown what it got.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 1000;
	uint64_t digest = 0;

	for (long i = 1; i <= rounds; i++) {
		struct timespec real, mono;
		uint64_t random;

		if (getrandom(&random, sizeof(random), 0) != sizeof(random) ||
			clock_gettime(CLOCK_REALTIME, &real) < 0 ||
			clock_gettime(CLOCK_MONOTONIC, &mono) < 0)
			abort();
		digest = (digest ^ random) * 0x100000001b3;
		digest = (digest ^ (uint64_t)real.tv_nsec) * 0x100000001b3;
		digest = (digest ^ (uint64_t)mono.tv_nsec) * 0x100000001b3;
		if (i % 100 == 0 || i == rounds) {
			(void)printf("%ld %016" PRIx64 "\n", i, digest);
			(void)fflush(stdout);
		}
	}
	return 0;
}
