/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <time.h>

static uint64_t to_usec(uint64_t ns)
{
	return ns / NSEC_PER_USEC + (ns % NSEC_PER_USEC != 0);
}

int loop_new(sd_event **ret)
{
	CLEANUP_EVENT sd_event *event = NULL;
	sigset_t child;
	int r;

	if (sigemptyset(&child) < 0 || sigaddset(&child, SIGCHLD) < 0)
		return -errno;
	r = pthread_sigmask(SIG_BLOCK, &child, NULL);
	if (r != 0)
		return -r;
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return -errno;
	r = sd_event_default(&event);
	if (r < 0)
		return r;
	r = sd_event_set_signal_exit(event, true);
	if (r < 0)
		return r;
	r = sd_event_set_watchdog(event, true);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(event);
	return 0;
}

int loop_run(sd_event *event)
{
	int r;

	(void)sd_notify(0, "READY=1");
	r = sd_event_loop(event);
	(void)sd_notify(0, "STOPPING=1");
	return r;
}

void loop_reset_signals(void)
{
	static const int touched[] = {SIGPIPE, SIGTERM, SIGINT, SIGCHLD};
	sigset_t none;

	for (size_t i = 0; i < ARRAY_SIZE(touched); i++)
		(void)signal(touched[i], SIG_DFL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

int loop_after(sd_event *event, uint64_t delay_ns, sd_event_time_handler_t callback, void *userdata,
	sd_event_source **ret)
{
	/* Accuracy 1 us: the default of 250 ms is for saving power on laptops. */
	return sd_event_add_time_relative(
		event, ret, CLOCK_MONOTONIC, to_usec(delay_ns), 1, callback, userdata);
}

int loop_rearm(sd_event_source *timer, uint64_t delay_ns)
{
	int r = sd_event_source_set_time_relative(timer, to_usec(delay_ns));

	if (r < 0)
		return r;
	return sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

struct ticker {
	uint64_t period; /* microseconds */
	loop_tick_fn callback;
	void *userdata;
};

static int on_tick(sd_event_source *source, uint64_t planned, void *userdata)
{
	struct ticker *t = userdata;
	uint64_t now, late;
	int r = sd_event_now(sd_event_source_get_event(source), CLOCK_MONOTONIC, &now);

	if (r < 0)
		return r;
	late = now > planned ? now - planned : 0;
	r = sd_event_source_set_time(source, planned + (late / t->period + 1) * t->period);
	if (r < 0)
		return r;
	r = sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	if (r < 0)
		return r;
	/* Last, because it may drop the source and t with it. */
	return t->callback(t->userdata);
}

int loop_every(sd_event *event, uint64_t period_ns, loop_tick_fn callback, void *userdata,
	sd_event_source **ret)
{
	CLEANUP_SOURCE sd_event_source *source = NULL;
	struct ticker *t;
	int r;

	if (period_ns == 0)
		return -EINVAL;
	t = malloc(sizeof(*t));
	if (!t)
		return -ENOMEM;
	*t = (struct ticker){
		.period = to_usec(period_ns), .callback = callback, .userdata = userdata};
	r = loop_after(event, period_ns, on_tick, t, &source);
	if (r >= 0)
		r = sd_event_source_set_destroy_callback(source, free);
	if (r < 0) {
		free(t);
		return r;
	}
	*ret = TAKE_PTR(source);
	return 0;
}

int loop_child(sd_event *event, pid_t pid, sd_event_child_handler_t callback, void *userdata,
	sd_event_source **ret)
{
	return sd_event_add_child(event, ret, pid, WEXITED, callback, userdata);
}

int loop_pidfd(sd_event *event, int pidfd, sd_event_io_handler_t callback, void *userdata,
	sd_event_source **ret)
{
	CLEANUP_SOURCE sd_event_source *source = NULL;
	CLEANUP_CLOSE int own = fcntl(pidfd, F_DUPFD_CLOEXEC, 3);
	int r;

	if (own < 0)
		return -errno;
	r = sd_event_add_io(event, &source, own, EPOLLIN, callback, userdata);
	if (r < 0)
		return r;
	r = sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	if (r < 0)
		return r;
	r = sd_event_source_set_io_fd_own(source, true);
	if (r < 0)
		return r;
	(void)TAKE_FD(own);
	*ret = TAKE_PTR(source);
	return 0;
}

void loop_drop(sd_event_source **source)
{
	*source = sd_event_source_disable_unref(*source);
}
