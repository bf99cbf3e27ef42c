/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loop.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "unit.h"

static int setup(void **state)
{
	return loop_new((sd_event **)state);
}

static int teardown(void **state)
{
	(void)sd_event_unref(*state);
	return 0;
}

static int count_tick(void *userdata)
{
	int *ticks = userdata;

	*ticks += 1;
	return 0;
}

static int count_once(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	return count_tick(userdata);
}

/* Runs the loop until *count has reached n. */
static void run_until(sd_event *event, const int *count, int n)
{
	while (*count < n)
		assert_true(sd_event_run(event, UINT64_MAX) >= 0);
}

static void timers_fire_once_or_again_and_again(void **state)
{
	CLEANUP_SOURCE sd_event_source *once = NULL, *every = NULL;
	int shots = 0, ticks = 0, enabled;

	assert_ok(loop_after(*state, NSEC_PER_MSEC, count_once, &shots, &once) < 0);
	assert_ok(loop_every(*state, NSEC_PER_MSEC, count_tick, &ticks, &every));
	run_until(*state, &ticks, 5);
	run_until(*state, &shots, 1);
	assert_int_equal(shots, 1);
	assert_ok(sd_event_source_get_enabled(once, &enabled));
	assert_int_equal(enabled, SD_EVENT_OFF);
	assert_true(loop_rearm(once, 1) >= 0);
	run_until(*state, &shots, 2);
	assert_int_equal(loop_every(*state, 0, count_tick, &ticks, &every), -EINVAL);
}

struct dropper {
	sd_event_source *timer;
	int ticks;
};

static int drop_after_two(void *userdata)
{
	struct dropper *d = userdata;

	if (++d->ticks == 2)
		loop_drop(&d->timer);
	return 0;
}

static void a_ticker_may_drop_itself(void **state)
{
	CLEANUP_SOURCE sd_event_source *other = NULL;
	struct dropper d = {0};
	int ticks = 0;

	assert_ok(loop_every(*state, NSEC_PER_MSEC, drop_after_two, &d, &d.timer));
	run_until(*state, &d.ticks, 2);
	assert_null(d.timer);
	assert_ok(loop_every(*state, NSEC_PER_MSEC, count_tick, &ticks, &other));
	run_until(*state, &ticks, 5);
	assert_int_equal(d.ticks, 2);
}

static int note_exit(sd_event_source *source, const siginfo_t *info, void *userdata)
{
	int *status = userdata;

	(void)source;
	*status = info->si_status;
	return 0;
}

static int note_gone(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void)source;
	(void)fd;
	(void)events;
	return count_tick(userdata);
}

static void exits_are_told_of_children_and_of_others(void **state)
{
	CLEANUP_SOURCE sd_event_source *child = NULL, *other = NULL;
	CLEANUP_CLOSE int pidfd = -1;
	int status = -1, gone = 0, gate[2];
	pid_t pid;

	assert_ok(pipe(gate));
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		char c;

		(void)close(gate[1]);
		_exit(read(gate[0], &c, 1) == 0 ? 42 : 1);
	}
	(void)close(gate[0]);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	assert_true(pidfd >= 0);
	assert_true(loop_child(*state, pid, note_exit, &status, &child) >= 0);
	assert_ok(loop_pidfd(*state, pidfd, note_gone, &gone, &other));
	assert_int_equal(sd_event_run(*state, 0), 0);
	(void)close(gate[1]);
	run_until(*state, &gone, 1);
	while (status < 0)
		assert_true(sd_event_run(*state, UINT64_MAX) >= 0);
	assert_int_equal(status, 42);
	assert_int_equal(sd_event_run(*state, 0), 0);
	assert_int_equal(gone, 1);
	assert_int_equal(loop_pidfd(*state, -1, note_gone, &gone, &other), -EBADF);
}

static void sigterm_ends_the_loop_cleanly(void **state)
{
	assert_ok(kill(getpid(), SIGTERM));
	assert_int_equal(loop_run(*state), 0);
}

static void signals_are_reset_for_another_program(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		loop_reset_signals();
		(void)raise(SIGTERM);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGTERM);
}

#define LOOP_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOOP_TEST(timers_fire_once_or_again_and_again),
		LOOP_TEST(a_ticker_may_drop_itself),
		LOOP_TEST(exits_are_told_of_children_and_of_others),
		LOOP_TEST(sigterm_ends_the_loop_cleanly),
		LOOP_TEST(signals_are_reset_for_another_program),
	};

	return cmocka_run_group_tests_name("io_loop", tests, NULL, NULL);
}
