/* SPDX-License-Identifier: Apache-2.0 */
#include "base/source.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

static uint64_t system_clock_ns(void *context, int clock_id)
{
	struct timespec now = {0};

	(void)context;
	(void)clock_gettime((clockid_t)clock_id, &now);
	return (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

static int system_random(void *context, void *bytes, size_t n)
{
	uint8_t *out = bytes;

	(void)context;
	while (n > 0) {
		ssize_t got = getrandom(out, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		out += got;
		n -= (size_t)got;
	}
	return 0;
}

const struct source source_system = {
	.clock_ns = system_clock_ns,
	.random = system_random,
};
