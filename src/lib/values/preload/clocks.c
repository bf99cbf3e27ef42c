/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions that read a clock. time() and gettimeofday() are readings of CLOCK_REALTIME and share
 * its lane.
 */
#include <sys/time.h>
#include <time.h>

#include "lib/values/preload/preload.h"

EXPORT int clock_gettime(clockid_t id, struct timespec *ts)
{
	uint64_t ns;

	if (unlikely(values_clock(id, &ns) < 0))
		return REAL(clock_gettime)(id, ts);
	ts->tv_sec = (time_t)(ns / NSEC_PER_SEC);
	ts->tv_nsec = (long)(ns % NSEC_PER_SEC);
	return 0;
}

EXPORT time_t time(time_t *out)
{
	uint64_t ns;
	time_t now;

	if (unlikely(values_clock(CLOCK_REALTIME, &ns) < 0))
		return REAL(time)(out);
	now = (time_t)(ns / NSEC_PER_SEC);
	if (out)
		*out = now;
	return now;
}

/* Under a name of its own, since the header promises that tv is never NULL and programs pass it. */
int preload_gettimeofday(struct timeval *tv, void *zone) __asm__("gettimeofday");

EXPORT int preload_gettimeofday(struct timeval *tv, void *zone)
{
	uint64_t ns;

	if (!tv || unlikely(values_clock(CLOCK_REALTIME, &ns) < 0))
		return REAL(gettimeofday)(tv, zone);
	if (zone)
		*(struct timezone *)zone = (struct timezone){0};
	tv->tv_sec = (time_t)(ns / NSEC_PER_SEC);
	tv->tv_usec = (suseconds_t)(ns % NSEC_PER_SEC / NSEC_PER_USEC);
	return 0;
}

EXPORT int timespec_get(struct timespec *ts, int base)
{
	uint64_t ns;

	if (base != TIME_UTC || values_clock(CLOCK_REALTIME, &ns) < 0)
		return REAL(timespec_get)(ts, base);
	ts->tv_sec = (time_t)(ns / NSEC_PER_SEC);
	ts->tv_nsec = (long)(ns % NSEC_PER_SEC);
	return base;
}

EXPORT clock_t clock(void)
{
	uint64_t ns;

	if (values_clock(CLOCK_PROCESS_CPUTIME_ID, &ns) < 0)
		return REAL(clock)();
	return (clock_t)(ns / (NSEC_PER_SEC / CLOCKS_PER_SEC));
}
