/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts up in a shared file, one compare-and-swap at a time, against whoever does the same, until
 * the counter has reached N. Waits until `parties` have arrived, so that they race from the first
 * to the last. Prints how many swaps were its own and how many attempts it lost: the swaps of all
 * parties must add up to the counter.
 *
 * usage: swaps FILE PARTIES N
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

struct shared {
	_Atomic uint64_t counter;
	uint64_t apart[7];
	_Atomic uint32_t arrived;
};

int main(int argc, char **argv)
{
	int fd = argc == 4 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
	struct shared *s =
		fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint32_t parties;
	uint64_t n, seen, won = 0, lost = 0;

	if (s == MAP_FAILED) {
		perror("swaps: FILE PARTIES N");
		return 1;
	}
	parties = (uint32_t)strtoul(argv[2], NULL, 10);
	n = strtoull(argv[3], NULL, 10);
	atomic_fetch_add(&s->arrived, 1);
	while (atomic_load(&s->arrived) < parties)
		continue;
	seen = atomic_load(&s->counter);
	while (seen < n) {
		if (atomic_compare_exchange_strong(&s->counter, &seen, seen + 1))
			won++;
		else
			lost++;
		seen = atomic_load_explicit(&s->counter, memory_order_relaxed);
	}
	(void)printf("%" PRIu64 " swaps, %" PRIu64 " attempts lost\n", won, lost);
	return 0;
}
