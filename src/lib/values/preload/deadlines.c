/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions that wait for a point on a clock. The program computed it from readings of the
 * group's clock; the kernel compares with the host's. See values_deadline().
 */
#include <mqueue.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/timerfd.h>
#include <threads.h>
#include <time.h>

#include "lib/values/preload/preload.h"

static struct timespec local(int clock_id, const struct timespec *deadline)
{
	struct timespec moved = *deadline;

	values_deadline(clock_id, &moved);
	return moved;
}

EXPORT int clock_nanosleep(
	clockid_t id, int flags, const struct timespec *request, struct timespec *remain)
{
	struct timespec moved = request ? *request : (struct timespec){0};

	if (flags & TIMER_ABSTIME)
		values_deadline(id, &moved);
	return REAL(clock_nanosleep)(id, flags, request ? &moved : NULL, remain);
}

EXPORT int timerfd_create(int clock_id, int flags)
{
	int fd = REAL(timerfd_create)(clock_id, flags);

	preload_note_timerfd(fd, clock_id);
	return fd;
}

EXPORT int timerfd_settime(int fd, int flags, const struct itimerspec *new, struct itimerspec *old)
{
	struct itimerspec moved = new ? *new : (struct itimerspec){0};

	/* Zero disarms the timer: it is no point in time. */
	if (new &&flags & TFD_TIMER_ABSTIME && (new->it_value.tv_sec || new->it_value.tv_nsec))
		values_deadline(preload_timerfd_clock(fd), &moved.it_value);
	return REAL(timerfd_settime)(fd, flags, new ? &moved : NULL, old);
}

/* POSIX timers are named by small numbers or pointers; what is not found is CLOCK_REALTIME. */
#define TIMERS_MAX 256
static struct {
	_Atomic(timer_t) timer;
	_Atomic int clock_id;
} timers[TIMERS_MAX];
static _Atomic unsigned int next_timer;

EXPORT int timer_create(clockid_t id, struct sigevent *restrict event, timer_t *restrict timer)
{
	int r = REAL(timer_create)(id, event, timer);

	if (r == 0) {
		unsigned int i = atomic_fetch_add(&next_timer, 1) % TIMERS_MAX;

		atomic_store(&timers[i].clock_id, id);
		atomic_store(&timers[i].timer, *timer);
	}
	return r;
}

static int clock_of_timer(timer_t timer)
{
	unsigned int newest = atomic_load(&next_timer);

	for (unsigned int i = 1; i <= TIMERS_MAX; i++) {
		unsigned int at = (newest - i) % TIMERS_MAX;

		if (atomic_load(&timers[at].timer) == timer)
			return atomic_load(&timers[at].clock_id);
	}
	return CLOCK_REALTIME;
}

EXPORT int timer_settime(timer_t timer, int flags, const struct itimerspec *restrict new,
	struct itimerspec *restrict old)
{
	struct itimerspec moved = new ? *new : (struct itimerspec){0};

	if (new &&flags & TIMER_ABSTIME && (new->it_value.tv_sec || new->it_value.tv_nsec))
		values_deadline(clock_of_timer(timer), &moved.it_value);
	return REAL(timer_settime)(timer, flags, new ? &moved : NULL, old);
}

/*
 * Which clock a condition variable waits on is in its second lowest `wrefs` bit since glibc 2.25;
 * there is no function that tells.
 */
static int clock_of_condition(const pthread_cond_t *condition)
{
	return condition->__data.__wrefs & 2 ? CLOCK_MONOTONIC : CLOCK_REALTIME;
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *restrict condition,
	pthread_mutex_t *restrict mutex, const struct timespec *restrict deadline)
{
	struct timespec moved = local(clock_of_condition(condition), deadline);

	return REAL(pthread_cond_timedwait)(condition, mutex, &moved);
}

EXPORT int pthread_cond_clockwait(pthread_cond_t *restrict condition,
	pthread_mutex_t *restrict mutex, clockid_t id, const struct timespec *restrict deadline)
{
	struct timespec moved = local(id, deadline);

	return REAL(pthread_cond_clockwait)(condition, mutex, id, &moved);
}

EXPORT int cnd_timedwait(
	cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict deadline)
{
	struct timespec moved = local(CLOCK_REALTIME, deadline);

	return REAL(cnd_timedwait)(condition, mutex, &moved);
}

/* The rest are alike: an object, perhaps a clock, a deadline. */
#define ON_REALTIME(name, type)                                                          \
	EXPORT int name(type *restrict object, const struct timespec *restrict deadline) \
	{                                                                                \
		struct timespec moved = local(CLOCK_REALTIME, deadline);                 \
                                                                                         \
		return REAL(name)(object, &moved);                                       \
	}
#define ON_CLOCK(name, type)                                                                   \
	EXPORT int name(                                                                       \
		type *restrict object, clockid_t id, const struct timespec *restrict deadline) \
	{                                                                                      \
		struct timespec moved = local(id, deadline);                                   \
                                                                                               \
		return REAL(name)(object, id, &moved);                                         \
	}

ON_REALTIME(pthread_mutex_timedlock, pthread_mutex_t)
ON_CLOCK(pthread_mutex_clocklock, pthread_mutex_t)
ON_REALTIME(pthread_rwlock_timedrdlock, pthread_rwlock_t)
ON_REALTIME(pthread_rwlock_timedwrlock, pthread_rwlock_t)
ON_CLOCK(pthread_rwlock_clockrdlock, pthread_rwlock_t)
ON_CLOCK(pthread_rwlock_clockwrlock, pthread_rwlock_t)
ON_REALTIME(sem_timedwait, sem_t)
ON_CLOCK(sem_clockwait, sem_t)
ON_REALTIME(mtx_timedlock, mtx_t)

EXPORT int pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *deadline)
{
	struct timespec moved = local(CLOCK_REALTIME, deadline);

	return REAL(pthread_timedjoin_np)(thread, result, &moved);
}

EXPORT int pthread_clockjoin_np(
	pthread_t thread, void **result, clockid_t id, const struct timespec *deadline)
{
	struct timespec moved = local(id, deadline);

	return REAL(pthread_clockjoin_np)(thread, result, id, &moved);
}

EXPORT int mq_timedsend(mqd_t queue, const char *message, size_t n, unsigned int priority,
	const struct timespec *deadline)
{
	struct timespec moved = local(CLOCK_REALTIME, deadline);

	return REAL(mq_timedsend)(queue, message, n, priority, &moved);
}

EXPORT ssize_t mq_timedreceive(mqd_t queue, char *restrict message, size_t n,
	unsigned int *restrict priority, const struct timespec *restrict deadline)
{
	struct timespec moved = local(CLOCK_REALTIME, deadline);

	return REAL(mq_timedreceive)(queue, message, n, priority, &moved);
}
