/* SPDX-License-Identifier: Apache-2.0 */
/* Programs that make system calls by number through libc's syscall(). */
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <sys/random.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/values/preload/preload.h"

static long result(long r)
{
	if (r < 0 && r > -4096) {
		errno = (int)-r;
		return -1;
	}
	return r;
}

/* A wait until a point in time is FUTEX_WAIT_BITSET and its kin; FUTEX_WAIT's time is relative. */
static long futex(long address, int operation, long value, long timeout, long address2, long value3)
{
	int command = operation & FUTEX_CMD_MASK;
	bool absolute = command == FUTEX_WAIT_BITSET || command == FUTEX_WAIT_REQUEUE_PI ||
			command == FUTEX_LOCK_PI || command == FUTEX_LOCK_PI2;
	bool realtime = operation & FUTEX_CLOCK_REALTIME || command == FUTEX_LOCK_PI;
	struct timespec moved;

	if (absolute && timeout) {
		moved = *(const struct timespec *)timeout; // NOLINT(performance-no-int-to-ptr)
		values_deadline(realtime ? CLOCK_REALTIME : CLOCK_MONOTONIC, &moved);
		timeout = (long)&moved;
	}
	return result(
		raw_syscall6(SYS_futex, address, operation, value, timeout, address2, value3));
}

/* NOLINTBEGIN(performance-no-int-to-ptr): these are a system call's words */
EXPORT long syscall(long number, ...)
{
	long a, b, c, d, e, f;
	va_list args;

	va_start(args, number);
	a = va_arg(args, long);
	b = va_arg(args, long);
	c = va_arg(args, long);
	d = va_arg(args, long);
	e = va_arg(args, long);
	f = va_arg(args, long);
	va_end(args);
	switch (number) {
	case SYS_getrandom:
		return getrandom((void *)a, (size_t)b, (unsigned int)c);
	case SYS_clock_gettime:
		return clock_gettime((clockid_t)a, (struct timespec *)b);
	case SYS_gettimeofday:
		return gettimeofday((struct timeval *)a, (void *)b);
	case SYS_time:
		return time((time_t *)a);
	case SYS_clock_nanosleep:
		/* The function returns the error, the call sets errno. */
		return result(-clock_nanosleep(
			(clockid_t)a, (int)b, (const struct timespec *)c, (struct timespec *)d));
	case SYS_timerfd_settime:
		return timerfd_settime(
			(int)a, (int)b, (const struct itimerspec *)c, (struct itimerspec *)d);
	case SYS_futex:
		return futex(a, (int)b, c, d, e, f);
	case SYS_getpid:
		return getpid();
	case SYS_getppid:
		return getppid();
	case SYS_gettid:
		return gettid();
	case SYS_kill:
		return kill((pid_t)a, (int)b);
	case SYS_tgkill:
		return tgkill((pid_t)a, (pid_t)b, (int)c);
	case SYS_wait4:
		return wait4((pid_t)a, (int *)b, (int)c, (struct rusage *)d);
	case SYS_execve:
		return execve((const char *)a, (char *const *)b, (char *const *)c);
	case SYS_pidfd_open:
		return result(raw_syscall(number, values_real_pid((pid_t)a), b, 0, 0));
	case SYS_sched_setaffinity:
	case SYS_sched_getaffinity:
		return result(raw_syscall(number, values_real_pid((pid_t)a), b, c, 0));
	default:
		return REAL(syscall)(number, a, b, c, d, e, f);
	}
}
/* NOLINTEND(performance-no-int-to-ptr) */
