/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every program with an sd-event loop would otherwise repeat. The rest of sd-event is used
 * as it is: io, defer and post sources need no wrapper.
 *
 * All times are CLOCK_MONOTONIC, in nanoseconds; sd-event itself works in microseconds, so that
 * a time is rounded up to the next one. Callbacks are sd-event's: a negative return disables the
 * source. Every source returned is owned by the caller: a reference dropped with loop_drop() (or
 * CLEANUP_SOURCE) disables it at once, so that its callback never runs again.
 *
 * Not thread-safe: a loop belongs to the thread that made it.
 */
#ifndef SOSIE_IO_LOOP_H
#define SOSIE_IO_LOOP_H

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/macro.h"

/*
 * The thread's default loop, set up for a daemon: SIGTERM and SIGINT end it with exit code 0,
 * SIGCHLD is blocked (child sources need it), SIGPIPE is ignored (writes report EPIPE instead),
 * and systemd's watchdog is fed when the service manager asks for it. To be called before any
 * thread or child is started, so that they inherit the mask. Drop with sd_event_unref().
 */
int loop_new(sd_event **ret);
/* Tells the service manager that the program is ready, then runs until the exit: its exit code. */
int loop_run(sd_event *event);
/*
 * Between fork(2) and execve(2): undoes what loop_new() did to signals, so that the new program
 * starts with default handlers and nothing blocked. Async-signal-safe.
 */
void loop_reset_signals(void);

/* Calls back once, delay_ns from now. */
int loop_after(sd_event *event, uint64_t delay_ns, sd_event_time_handler_t callback, void *userdata,
	sd_event_source **ret);
/* Arms a timer of loop_after() once more, from now, whether it has fired or not. */
int loop_rearm(sd_event_source *timer, uint64_t delay_ns);

/* A negative return of it stops the timer. */
typedef int (*loop_tick_fn)(void *userdata);
/*
 * Calls back every period_ns (> 0) until dropped, first after one period. The periods count from
 * the planned times, so that there is no drift; ticks missed while the loop was busy are left
 * out, not made up for.
 */
int loop_every(sd_event *event, uint64_t period_ns, loop_tick_fn callback, void *userdata,
	sd_event_source **ret);

/* A child of this process: its exit is reaped and reported with its status. */
int loop_child(sd_event *event, pid_t pid, sd_event_child_handler_t callback, void *userdata,
	sd_event_source **ret);
/*
 * Any process, child or not (one that was adopted after a restart): calls back once when it has
 * ended; its status is not known. The source owns its own duplicate of the pidfd.
 */
int loop_pidfd(sd_event *event, int pidfd, sd_event_io_handler_t callback, void *userdata,
	sd_event_source **ret);

/* Disables and unreferences *source, which may be NULL, and sets it to NULL. */
void loop_drop(sd_event_source **source);

DEFINE_CLEANUP(sd_event *, sd_event_unref);
#define CLEANUP_EVENT  CLEANUP(sd_event_unref_p)
#define CLEANUP_SOURCE CLEANUP(loop_drop)

#endif
