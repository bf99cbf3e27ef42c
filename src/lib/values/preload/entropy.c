/* SPDX-License-Identifier: Apache-2.0 */
/* Functions that return random bytes. */
#include <sys/random.h>

#include "lib/values/preload/preload.h"

EXPORT ssize_t getrandom(void *buffer, size_t n, unsigned int flags)
{
	if (values_random(buffer, n) == 0)
		return (ssize_t)n;
	return REAL(getrandom)(buffer, n, flags);
}

EXPORT int getentropy(void *buffer, size_t n)
{
	if (n > 256) {
		errno = EIO; /* as getentropy(3) says */
		return -1;
	}
	if (values_random(buffer, n) == 0)
		return 0;
	return REAL(getentropy)(buffer, n);
}

EXPORT void arc4random_buf(void *buffer, size_t n)
{
	if (values_random(buffer, n) < 0)
		REAL(arc4random_buf)(buffer, n);
}

EXPORT uint32_t arc4random(void)
{
	uint32_t v;

	return values_random(&v, sizeof(v)) == 0 ? v : REAL(arc4random)();
}

EXPORT uint32_t arc4random_uniform(uint32_t bound)
{
	/* 2^32 mod bound: below it, some results would come up once more often than others. */
	uint32_t unfair = bound > 1 ? -bound % bound : 0, v;

	if (bound <= 1)
		return 0;
	do {
		if (values_random(&v, sizeof(v)) < 0)
			return REAL(arc4random_uniform)(bound);
	} while (v < unfair);
	return v % bound;
}

/* std::random_device::_M_getval(): libstdc++ asks the processor itself, past every function. */
unsigned int _ZNSt13random_device9_M_getvalEv(void *self);

EXPORT unsigned int _ZNSt13random_device9_M_getvalEv(void *self)
{
	unsigned int v;

	if (values_random(&v, sizeof(v)) == 0)
		return v;
	return REAL(_ZNSt13random_device9_M_getvalEv)(self);
}
