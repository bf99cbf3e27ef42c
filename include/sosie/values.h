/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libsosie: values that all redundant copies of a program share.
 *
 * A program started by `sosie run --group G` (or in an instance of a group) is a *member*. Its
 * calls to getrandom(), clock_gettime() and their like are shared already, unmodified. What is
 * here is for programs that want more: values of their own making, and names for tasks whose
 * order races.
 *
 * A process that is no member may call everything too: it then gets plain values of its own.
 *
 * Thread-safety: every function may be called from any thread at any time, in signal handlers
 * too, except sosie_lane(), which is not for signal handlers. None logs, blocks, or ends the
 * process. errors are negative errno values; errno itself is left alone.
 *
 * Link with -lsosie. Valid C99 and C++.
 */
#ifndef SOSIE_VALUES_H
#define SOSIE_VALUES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SOSIE_PUBLIC __attribute__((visibility("default")))
#else
#define SOSIE_PUBLIC
#endif

/* 1 when the calling process is a member of a group, else 0. */
SOSIE_PUBLIC int sosie_is_member(void);

/*
 * Fills buffer with n random bytes. In a member they are the next n bytes of the calling thread's
 * lane: two calls for 4 bytes give the same as one for 8. 0, or a negative errno.
 */
SOSIE_PUBLIC int sosie_random(void *buffer, size_t n);

/* A reading of a POSIX clock (clockid_t), in nanoseconds. 0, -EINVAL for an unknown clock. */
SOSIE_PUBLIC int sosie_clock(int clock_id, uint64_t *ret_ns);

/* A reading of the processor's time-stamp counter (63 bits of it). 0, or a negative errno. */
SOSIE_PUBLIC int sosie_tsc(uint64_t *ret);

/* A random UUID (RFC 9562 version 4), 16 bytes in network order. 0, or a negative errno. */
SOSIE_PUBLIC int sosie_uuid(uint8_t uuid[16]);

/*
 * A generator of a value: fills at most size bytes of buffer and returns how many it filled, or a
 * negative errno. Called in at most one copy whose value is kept, but perhaps in several at once
 * whose values are dropped: it must not have effects that matter.
 */
typedef ssize_t (*sosie_generator)(void *context, void *buffer, size_t size);

/*
 * A value of the caller's own making, at most 1 MiB. `what` says what is asked for, such as the
 * name of a sensor; copies that ask for different things at the same place have diverged, which
 * the group's view then says. The bytes are stored in buffer.
 *
 * Returns the value's length; the generator's error, and nothing is then logged; or -EMSGSIZE when
 * the value that another copy made is larger than size, and the value is then consumed.
 */
SOSIE_PUBLIC ssize_t sosie_custom(
	const char *what, sosie_generator generator, void *context, void *buffer, size_t size);

/*
 * Names what the calling thread does from now on: its requests are matched with those that other
 * copies make under the same name, whichever thread makes them there. For tasks that a pool of
 * threads takes in racing order: call it with a name of the task's own at the beginning and with
 * NULL at the end. A name is 1 to 63 characters of [A-Za-z0-9._-].
 *
 * 0; -EINVAL for what is no name; -EBUSY while another thread of the process is under that name;
 * -EMFILE at 1,024 names. Not to be called in a signal handler.
 */
SOSIE_PUBLIC int sosie_lane(const char *name);

#ifdef __cplusplus
}
#endif

#endif
