/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The QMP client against a real QEMU, and, for what QEMU would never say, against a scripted peer
 * on a socket pair.
 */
#include "io/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "base/buf.h"
#include "io/json.h"
#include "io/listen.h"
#include "io/loop.h"
#include "unit.h"

#define PATIENT (60 * NSEC_PER_SEC)  /* for what must not time out */
#define HASTY   (50 * NSEC_PER_MSEC) /* for what must */

struct fixture {
	sd_event *event;
	struct qmp *qmp;
	int peer; /* the scripted one's end, or -1 */
	pid_t qemu;
	char folder[32], path[64];
	bool ready, oob, closed, free_when_ready, free_when_closed;
	struct err why;
	struct buf events; /* "STOP;RESUME;…" */
	char reason[64];
	int64_t timestamp_ns;
};

static void on_ready(struct qmp *q, bool oob, void *userdata)
{
	struct fixture *f = userdata;

	f->ready = true;
	f->oob = oob;
	if (f->free_when_ready) {
		qmp_free(q);
		f->qmp = NULL;
	}
}

static void on_event(struct qmp *q, const struct qmp_event *event, void *userdata)
{
	struct fixture *f = userdata;
	const char *reason = json_string_value(json_object_get(event->data, "reason"));

	(void)q;
	assert_false(f->closed);
	assert_ok(buf_printf(&f->events, "%s;", event->name));
	f->timestamp_ns = event->timestamp_ns;
	if (reason)
		(void)snprintf(f->reason, sizeof(f->reason), "%s", reason);
}

static void on_closed(struct qmp *q, const struct err *e, void *userdata)
{
	struct fixture *f = userdata;

	assert_false(f->closed);
	f->closed = true;
	f->why = *e;
	if (f->free_when_closed) {
		qmp_free(q);
		f->qmp = NULL;
	}
}

static struct qmp_options options_of(struct fixture *f)
{
	return (struct qmp_options){.oob = true,
		.greeting_ns = PATIENT,
		.callbacks = {on_ready, on_event, on_closed},
		.userdata = f};
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->peer = -1;
	f->events = BUF_INIT(4096);
	assert_ok(loop_new(&f->event));
	(void)snprintf(f->folder, sizeof(f->folder), "/tmp/sosie-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	(void)snprintf(f->path, sizeof(f->path), "%s/qmp", f->folder);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	qmp_free(f->qmp);
	if (f->peer >= 0)
		(void)close(f->peer);
	if (f->qemu > 0) {
		(void)kill(f->qemu, SIGKILL);
		(void)waitpid(f->qemu, NULL, 0);
	}
	(void)unlink(f->path);
	(void)rmdir(f->folder);
	(void)sd_event_unref(f->event);
	buf_free(&f->events);
	free(f);
	return 0;
}

static void turn(struct fixture *f)
{
	assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
}

/* QEMU on a socket that listens already, so that connecting needs no waiting. */
static void start_qemu(struct fixture *f)
{
	char chardev[64];
	int fd;

	assert_ok(listen_unix(f->path, 0600, &fd, NULL));
	(void)snprintf(chardev, sizeof(chardev), "socket,id=qmp,fd=%d,server=on,wait=off", fd);
	f->qemu = fork();
	assert_true(f->qemu >= 0);
	if (f->qemu == 0) {
		loop_reset_signals();
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && fcntl(fd, F_SETFD, 0) == 0)
			(void)execlp("qemu-system-x86_64", "qemu-system-x86_64", "-accel", "tcg",
				"-machine", "q35", "-m", "32M", "-display", "none", "-nodefaults",
				"-S", "-chardev", chardev, "-mon", "chardev=qmp,mode=control",
				(char *)NULL);
		_exit(127);
	}
	(void)close(fd);
}

static void connect_qemu(struct fixture *f)
{
	const struct qmp_options options = options_of(f);
	struct err e = {0};

	start_qemu(f);
	if (qmp_connect(f->event, f->path, &options, &f->qmp, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(qmp_execute(f->qmp, "query-status", NULL, PATIENT, NULL, NULL), -ENOTCONN);
	while (!f->ready)
		turn(f);
}

struct outcome {
	int done;
	struct err err;
	char class[QMP_CLASS_MAX];
	char status[32]; /* the result's "status" */
};

static void on_reply(const struct qmp_reply *reply, void *userdata)
{
	struct outcome *o = userdata;
	const char *status = json_string_value(json_object_get(reply->result, "status"));

	assert_true((reply->err.code == ERR_NONE) == (reply->result != NULL));
	o->done++;
	o->err = reply->err;
	(void)snprintf(o->class, sizeof(o->class), "%s", reply->class);
	(void)snprintf(o->status, sizeof(o->status), "%s", status ? status : "");
}

static struct outcome ask(struct fixture *f, const char *command, json_t *arguments)
{
	struct outcome o = {0};

	assert_ok(qmp_execute(f->qmp, command, arguments, PATIENT, on_reply, &o));
	assert_int_equal(o.done, 0);
	while (!o.done)
		turn(f);
	assert_int_equal(o.done, 1);
	return o;
}

static void commands_are_answered_and_errors_explained(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	connect_qemu(f);
	assert_true(f->oob);
	o = ask(f, "query-status", NULL);
	assert_int_equal(o.err.code, ERR_NONE);
	assert_string_equal(o.status, "prelaunch");
	o = ask(f, "no-such-command", NULL);
	assert_int_equal(o.err.code, ERR_VERSION);
	assert_string_equal(o.class, "CommandNotFound");
	assert_non_null(strstr(o.err.message, "no-such-command"));
	o = ask(f, "device_del", json_pack("{s:s}", "id", "nothing"));
	assert_int_equal(o.err.code, ERR_NOT_FOUND);
	assert_string_equal(o.class, "DeviceNotFound");
	o = ask(f, "query-status", json_pack("{s:i}", "wrong", 1));
	assert_int_equal(o.err.code, ERR_INVALID);
	assert_string_equal(o.class, "GenericError");
	memset(&o, 0, sizeof(o));
	assert_ok(qmp_execute_oob(
		f->qmp, "yank", json_pack("{s:[]}", "instances"), PATIENT, on_reply, &o));
	while (!o.done)
		turn(f);
	assert_int_equal(o.err.code, ERR_NONE);
}

static void events_come_in_order_and_the_end_is_told(void **state)
{
	struct fixture *f = *state;
	struct timespec now;
	struct outcome o;
	int status;

	connect_qemu(f);
	(void)ask(f, "cont", NULL);
	o = ask(f, "query-status", NULL);
	assert_string_equal(o.status, "running");
	(void)ask(f, "stop", NULL);
	while (!strstr(buf_text(&f->events), "STOP"))
		turn(f);
	assert_string_equal(buf_text(&f->events), "RESUME;STOP;");
	assert_ok(clock_gettime(CLOCK_REALTIME, &now));
	assert_in_range(f->timestamp_ns / NSEC_PER_SEC, now.tv_sec - 600, now.tv_sec);
	o = ask(f, "quit", NULL);
	assert_int_equal(o.err.code, ERR_NONE);
	while (!f->closed)
		turn(f);
	assert_string_equal(buf_text(&f->events), "RESUME;STOP;SHUTDOWN;");
	assert_string_equal(f->reason, "host-qmp-quit");
	assert_int_equal(f->why.code, ERR_UNAVAILABLE);
	assert_int_equal(qmp_execute(f->qmp, "query-status", NULL, PATIENT, NULL, NULL), -ENOTCONN);
	assert_int_equal(waitpid(f->qemu, &status, 0), f->qemu);
	f->qemu = 0;
	assert_true(WIFEXITED(status));
}

static void a_late_reply_is_ignored(void **state)
{
	struct fixture *f = *state;
	struct outcome late = {0}, o;

	connect_qemu(f);
	assert_ok(kill(f->qemu, SIGSTOP));
	assert_ok(qmp_execute(f->qmp, "query-status", NULL, HASTY, on_reply, &late));
	while (!late.done)
		turn(f);
	assert_int_equal(late.err.code, ERR_TIMEOUT);
	assert_ok(kill(f->qemu, SIGCONT));
	o = ask(f, "query-status", NULL);
	assert_string_equal(o.status, "prelaunch");
	assert_int_equal(late.done, 1);
}

static void a_killed_qemu_fails_what_is_outstanding(void **state)
{
	struct fixture *f = *state;
	struct outcome lost[3] = {0};

	connect_qemu(f);
	assert_ok(kill(f->qemu, SIGSTOP));
	for (size_t i = 0; i < ARRAY_SIZE(lost); i++)
		assert_ok(qmp_execute(
			f->qmp, "query-status", NULL, QMP_NO_TIMEOUT, on_reply, &lost[i]));
	assert_ok(kill(f->qemu, SIGKILL));
	while (!f->closed)
		turn(f);
	for (size_t i = 0; i < ARRAY_SIZE(lost); i++) {
		assert_int_equal(lost[i].done, 1);
		assert_int_equal(lost[i].err.code, ERR_UNAVAILABLE);
	}
}

static void a_second_client_is_told_that_nobody_greets(void **state)
{
	struct qmp *second = NULL;
	struct fixture *f = *state, other = {.qmp = NULL};
	struct qmp_options options = options_of(&other);

	connect_qemu(f);
	options.greeting_ns = HASTY;
	assert_ok(qmp_connect(f->event, f->path, &options, &second, NULL));
	while (!other.closed)
		turn(f);
	assert_int_equal(other.why.code, ERR_TIMEOUT);
	assert_non_null(strstr(other.why.hint, "one client at a time"));
	qmp_free(second);
	assert_string_equal(ask(f, "query-status", NULL).status, "prelaunch");
}

static void tools_call_and_wait(void **state)
{
	CLEANUP_JSON json_t *version = NULL;
	struct fixture *f = *state;
	json_t *none = NULL;
	struct err e = {0};

	start_qemu(f);
	if (qmp_call_sync(f->path, "query-version", NULL, PATIENT, &version, &e) < 0)
		fail_msg("%s", e.message);
	assert_true(json_is_object(json_object_get(version, "qemu")));
	assert_true(qmp_call_sync(f->path, "device_del", json_pack("{s:s}", "id", "x"), PATIENT,
			    &none, &e) < 0);
	assert_int_equal(e.code, ERR_NOT_FOUND);
	assert_ok(kill(f->qemu, SIGSTOP));
	assert_int_equal(
		qmp_call_sync(f->path, "query-version", NULL, HASTY, &none, &e), -ETIMEDOUT);
	assert_int_equal(e.code, ERR_TIMEOUT);
	assert_ok(kill(f->qemu, SIGKILL));
	assert_int_equal(waitpid(f->qemu, NULL, 0), f->qemu);
	f->qemu = 0;
	assert_true(qmp_call_sync(f->path, "query-version", NULL, PATIENT, &none, &e) < 0);
	assert_int_equal(e.code, ERR_UNAVAILABLE);
	assert_null(none);
}

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n"
#define ACCEPTED "{\"return\": {}, \"id\": 1}\r\n"

/* What the client has sent so far. */
static void hear(struct fixture *f, char *text, size_t size)
{
	ssize_t n = recv(f->peer, text, size - 1, 0);

	assert_true(n > 0);
	text[n] = '\0';
}

static void say(struct fixture *f, const char *text, size_t n)
{
	while (n > 0) {
		ssize_t sent = send(f->peer, text, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent > 0) {
			text += sent;
			n -= (size_t)sent;
		} else if (f->closed || errno != EAGAIN) {
			return;
		} else {
			turn(f);
		}
	}
}

static void open_peer(struct fixture *f, bool oob)
{
	struct qmp_options options = options_of(f);
	int pair[2];

	options.oob = oob;
	assert_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	assert_ok(qmp_open(f->event, pair[0], &options, &f->qmp));
	f->peer = pair[1];
}

static void reset(struct fixture *f)
{
	qmp_free(TAKE_PTR(f->qmp));
	if (f->peer >= 0)
		(void)close(f->peer);
	f->peer = -1;
	f->ready = f->closed = false;
	f->why = (struct err){0};
	buf_reset(&f->events);
}

static void a_peer_that_speaks_no_qmp_is_left(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"SSH-2.0-x\r\n", "not JSON"},
		{"{}\n", "no greeting"},
		{"{\"QMP\": 1}\n", "no greeting"},
		{"[]\n", "no greeting"},
		{"{\"event\":\"STOP\"}\n", "no greeting"},
		{GREETING "{\"return\": {}}\n", "without one of our ids"},
		{GREETING "{\"return\": {}, \"id\": \"1\"}\n", "without one of our ids"},
		{GREETING "{\"return\": {}, \"id\": -1}\n", "without one of our ids"},
		{GREETING "{\"return\": {}, \"id\": 65}\n", "no command of ours"},
		{GREETING "{\"id\": 1}\n", "neither reply nor event"},
		{GREETING "{\"return\": {}, \"return\": {}, \"id\": 1}\n", "duplicate"},
		{GREETING ACCEPTED ACCEPTED, "no command of ours"},
		{GREETING ACCEPTED "{\"event\": \"STOP\"} {}\n", "not JSON"},
		{GREETING ACCEPTED "\xff\xfe\n", "not JSON"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		open_peer(f, true);
		say(f, cases[i].text, strlen(cases[i].text));
		while (!f->closed)
			turn(f);
		assert_int_equal(f->why.code, ERR_CORRUPT);
		if (!strstr(f->why.message, cases[i].says))
			fail_msg("%s: %s", cases[i].text, f->why.message);
		reset(f);
	}
}

static void an_endless_line_is_refused(void **state)
{
	static const char head[] = "{\"event\": \"";
	struct fixture *f = *state;
	char block[65536];

	memset(block, 'x', sizeof(block));
	open_peer(f, true);
	say(f, head, sizeof(head) - 1);
	for (size_t i = 0; i < 2 * QMP_LINE_MAX / sizeof(block) && !f->closed; i++)
		say(f, block, sizeof(block));
	while (!f->closed)
		turn(f);
	assert_int_equal(f->why.code, ERR_CORRUPT);
	assert_non_null(strstr(f->why.message, "too long"));
}

static void messages_may_come_in_pieces(void **state)
{
	static const char text[] = GREETING
		"\r\n{\"event\": \"A\"}\n" ACCEPTED
		"{\"event\": \"B\", \"data\": {\"reason\": \"why\", \"n\": 18446744073709551615},"
		" \"timestamp\": {\"seconds\": 2, \"microseconds\": 3}}\n"
		"{\"event\": \"C\", \"timestamp\": {\"seconds\": -1, \"microseconds\": -1}}\n"
		"{\"event\": \"D\"";
	struct fixture *f = *state;
	char sent[256];

	open_peer(f, true);
	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		say(f, text + i, 1);
		/* The reply must not come before the command. */
		while (sd_event_run(f->event, 0) > 0)
			;
	}
	assert_true(f->ready);
	hear(f, sent, sizeof(sent));
	assert_string_equal(sent, "{\"execute\":\"qmp_capabilities\",\"id\":1,\"arguments\":{"
				  "\"enable\":[\"oob\"]}}\n");
	assert_string_equal(buf_text(&f->events), "A;B;C;");
	assert_string_equal(f->reason, "why");
	assert_int_equal(f->timestamp_ns, -1);
	/* The end in the middle of a message: a broken connection, no defect. */
	(void)close(f->peer);
	f->peer = -1;
	while (!f->closed)
		turn(f);
	assert_int_equal(f->why.code, ERR_UNAVAILABLE);
	assert_string_equal(buf_text(&f->events), "A;B;C;");
}

static void outstanding_commands_are_bounded(void **state)
{
	struct outcome o = {0}, first = {0};
	struct fixture *f = *state;
	char reply[64];
	int r, sent = 0;

	open_peer(f, false);
	say(f, GREETING ACCEPTED, sizeof(GREETING ACCEPTED) - 1);
	while (!f->ready)
		turn(f);
	assert_false(f->oob);
	assert_int_equal(
		qmp_execute_oob(f->qmp, "yank", json_object(), PATIENT, on_reply, &o), -EOPNOTSUPP);
	assert_ok(qmp_execute(f->qmp, "first", json_object(), HASTY, on_reply, &first));
	while ((r = qmp_execute(f->qmp, "x", NULL, PATIENT, on_reply, &o)) == 0)
		sent++;
	assert_int_equal(r, -EBUSY);
	assert_int_equal(sent, QMP_OUTSTANDING_MAX - 1);
	/* One that has timed out still counts, and hinders only itself. */
	while (!first.done)
		turn(f);
	assert_int_equal(first.err.code, ERR_TIMEOUT);
	assert_int_equal(qmp_execute(f->qmp, "x", NULL, PATIENT, on_reply, &o), -EBUSY);
	for (int id = 3; id < 3 + 5 * QMP_OUTSTANDING_MAX; id++) {
		int done = o.done;

		if (id % QMP_OUTSTANDING_MAX == 2)
			continue; /* the slot of "first", whose id is 2 */
		(void)snprintf(reply, sizeof(reply), "{\"return\": {}, \"id\": %d}\n", id);
		say(f, reply, strlen(reply));
		while (o.done == done)
			turn(f);
		assert_ok(qmp_execute(f->qmp, "x", NULL, PATIENT, on_reply, &o));
	}
	assert_false(f->closed);
	say(f, "{\"return\": {}, \"id\": 2}\n", 24);
	while (qmp_execute(f->qmp, "x", NULL, PATIENT, on_reply, &o) == -EBUSY)
		turn(f);
	assert_int_equal(first.done, 1);
}

static void callbacks_may_free_the_client(void **state)
{
	struct fixture *f = *state;

	f->free_when_ready = true;
	open_peer(f, false);
	say(f, GREETING ACCEPTED "{\"event\": \"X\"}\n", sizeof(GREETING ACCEPTED) + 14);
	while (!f->ready)
		turn(f);
	assert_null(f->qmp);
	assert_string_equal(buf_text(&f->events), "");
	reset(f);
	f->free_when_ready = false;
	f->free_when_closed = true;
	open_peer(f, false);
	(void)close(f->peer);
	f->peer = -1;
	while (!f->closed)
		turn(f);
	assert_null(f->qmp);
}

#define QMP_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		QMP_TEST(commands_are_answered_and_errors_explained),
		QMP_TEST(events_come_in_order_and_the_end_is_told),
		QMP_TEST(a_late_reply_is_ignored),
		QMP_TEST(a_killed_qemu_fails_what_is_outstanding),
		QMP_TEST(a_second_client_is_told_that_nobody_greets),
		QMP_TEST(tools_call_and_wait),
		QMP_TEST(a_peer_that_speaks_no_qmp_is_left),
		QMP_TEST(an_endless_line_is_refused),
		QMP_TEST(messages_may_come_in_pieces),
		QMP_TEST(outstanding_commands_are_bounded),
		QMP_TEST(callbacks_may_free_the_client),
	};

	return cmocka_run_group_tests_name("io_qmp", tests, NULL, NULL);
}
