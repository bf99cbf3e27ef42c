/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public functions of sosie/values.h. Both libsosie and the preload library have them: under
 * `sosie run` the preload library's come first, so that a process has one state and not two.
 */
#include <errno.h>
#include <string.h>
#include <x86intrin.h>

#include "base/hash.h"
#include "lib/values/client.h"
#include "lib/values/internal.h"
#include "sosie/values.h"

int sosie_is_member(void)
{
	struct thread_state *t = values_enter();

	if (t)
		values_leave(t);
	return t != NULL;
}

/* For a process that is no member. */
static int system_random(void *buffer, size_t n)
{
	uint8_t *at = buffer;

	while (n > 0) {
		long got = raw_syscall(SYS_getrandom, (long)at, (long)n, 0, 0);

		if (got == -EINTR)
			continue;
		if (got < 0)
			return (int)got;
		at += got;
		n -= (size_t)got;
	}
	return 0;
}

int sosie_random(void *buffer, size_t n)
{
	int r = values_random(buffer, n);

	return r == -ENOTCONN ? system_random(buffer, n) : r;
}

int sosie_clock(int clock_id, uint64_t *ret_ns)
{
	int r = values_clock(clock_id, ret_ns);
	struct timespec ts;

	if (r != -ENOTCONN)
		return r;
	if (values_real_clock(clock_id, &ts) < 0)
		return -EINVAL;
	*ret_ns = (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
	return 0;
}

static uint64_t read_tsc(void *context)
{
	(void)context;
	return __rdtsc() & ~SLOT_FILLED;
}

int sosie_tsc(uint64_t *ret)
{
	int r = values_word(KIND_TSC, read_tsc, NULL, ret);

	if (r != -ENOTCONN)
		return r;
	*ret = read_tsc(NULL);
	return 0;
}

static ssize_t make_uuid(void *context, void *buffer, size_t size)
{
	uint8_t *uuid = buffer;
	int r = system_random(uuid, 16);

	(void)context;
	(void)size;
	if (r < 0)
		return r;
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
	return 16;
}

int sosie_uuid(uint8_t uuid[16])
{
	ssize_t n = values_cell(KIND_UUID, 16, make_uuid, NULL, uuid, 16);

	if (n == -ENOTCONN)
		n = make_uuid(NULL, uuid, 16);
	return n < 0 ? (int)n : 0;
}

ssize_t sosie_custom(
	const char *what, sosie_generator generator, void *context, void *buffer, size_t size)
{
	static const uint8_t key[16] = "sosie custom v1";
	uint8_t hash[16];
	uint64_t parameters;
	ssize_t n;

	if (!what || !generator)
		return -EINVAL;
	siphash128(key, what, strlen(what), hash);
	memcpy(&parameters, hash, sizeof(parameters));
	n = values_cell(KIND_CUSTOM, parameters, generator, context, buffer, size);
	return n == -ENOTCONN ? generator(context, buffer, size) : n;
}

int sosie_lane(const char *name)
{
	int r = values_named_lane(name);

	return r == -ENOTCONN ? 0 : r;
}
