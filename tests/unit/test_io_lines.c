/* SPDX-License-Identifier: Apache-2.0 */
#include "io/lines.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "io/loop.h"
#include "unit.h"

struct fixture {
	sd_event *event;
	struct lines *lines;
	int peer;
	struct buf seen; /* "1;2;" */
	bool closed, free_on_message;
	struct err why;
};

static void on_message(struct lines *l, const json_t *message, void *userdata)
{
	struct fixture *f = userdata;

	assert_ok(buf_printf(
		&f->seen, "%d;", (int)json_integer_value(json_object_get(message, "n"))));
	if (f->free_on_message) {
		lines_free(l);
		f->lines = NULL;
	}
}

static void on_closed(struct lines *l, const struct err *e, void *userdata)
{
	struct fixture *f = userdata;

	assert_false(f->closed);
	f->closed = true;
	f->why = *e;
	lines_free(l);
	f->lines = NULL;
}

static int setup(void **state)
{
	static const struct lines_callbacks callbacks = {on_message, on_closed};
	struct fixture *f = calloc(1, sizeof(*f));
	int pair[2];

	assert_non_null(f);
	f->seen = BUF_INIT(4096);
	assert_ok(loop_new(&f->event));
	assert_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	f->peer = pair[0];
	assert_ok(lines_open(f->event, pair[1], &callbacks, f, &f->lines));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	lines_free(f->lines);
	if (f->peer >= 0)
		(void)close(f->peer);
	(void)sd_event_unref(f->event);
	buf_free(&f->seen);
	free(f);
	return 0;
}

static void settle(struct fixture *f)
{
	while (sd_event_run(f->event, 0) > 0)
		;
}

static void say(struct fixture *f, const char *text, size_t n)
{
	while (n > 0 && !f->closed) {
		ssize_t sent = send(f->peer, text, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent > 0) {
			text += sent;
			n -= (size_t)sent;
		}
		settle(f);
	}
}

static void messages_come_whole_whatever_the_pieces(void **state)
{
	static const char text[] = "{\"n\":1}\n\n{\"n\":2}\n{\"n\":3}\n{\"n\":4";
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(text) - 1; i++)
		say(f, text + i, 1);
	say(f, text, sizeof(text) - 1);
	settle(f);
	/* The piece left over and the first one together are no message. */
	assert_true(f->closed);
	assert_int_equal(f->why.code, ERR_CORRUPT);
	assert_string_equal(buf_text(&f->seen), "1;2;3;");
}

static void nonsense_ends_the_connection(void **state)
{
	static const char *const cases[] = {
		"x\n", "[1]\n", "{\"n\":1,\"n\":2}\n", "\xff\n", "{}{}\n"};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fixture *f = *state;

		say(f, cases[i], strlen(cases[i]));
		settle(f);
		assert_true(f->closed);
		assert_int_equal(f->why.code, ERR_CORRUPT);
		assert_ok(teardown(state));
		assert_ok(setup(state));
	}
}

static void an_endless_message_is_refused(void **state)
{
	struct fixture *f = *state;
	char block[65536];

	memset(block, ' ', sizeof(block));
	for (int i = 0; i < 16 && !f->closed; i++)
		say(f, block, sizeof(block));
	assert_true(f->closed);
	assert_int_equal(f->why.code, ERR_CORRUPT);
}

static void the_other_ends_end_is_told(void **state)
{
	struct fixture *f = *state;

	say(f, "{\"n\":7}\n", 8);
	(void)close(f->peer);
	f->peer = -1;
	settle(f);
	assert_true(f->closed);
	assert_int_equal(f->why.code, ERR_UNAVAILABLE);
	assert_string_equal(buf_text(&f->seen), "7;");
}

static void sending_is_bounded(void **state)
{
	struct fixture *f = *state;
	char text[1024];
	int r = 0;

	memset(text, 'y', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (int i = 0; i < 10000 && r == 0; i++)
		r = lines_send(f->lines, json_pack("{s:s}", "text", text));
	assert_int_equal(r, -ENOBUFS);
	assert_int_equal(lines_send(f->lines, json_object()), -EPIPE);
	assert_false(f->closed);
	settle(f);
	assert_true(f->closed);
	assert_int_equal(f->why.code, ERR_TOO_LARGE);
}

static void what_is_sent_arrives(void **state)
{
	struct fixture *f = *state;
	char heard[64];
	ssize_t n;

	assert_ok(lines_send(f->lines, json_pack("{s:i}", "a", 1)));
	assert_int_equal(lines_send(f->lines, NULL), -ENOMEM);
	assert_int_equal(lines_backlog(f->lines), 0);
	n = recv(f->peer, heard, sizeof(heard), 0);
	assert_int_equal(n, 8);
	assert_memory_equal(heard, "{\"a\":1}\n", 8);
}

static void a_callback_may_free(void **state)
{
	struct fixture *f = *state;

	f->free_on_message = true;
	say(f, "{\"n\":1}\n{\"n\":2}\n", 16);
	settle(f);
	assert_null(f->lines);
	assert_string_equal(buf_text(&f->seen), "1;");
}

#define LINES_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LINES_TEST(messages_come_whole_whatever_the_pieces),
		LINES_TEST(nonsense_ends_the_connection),
		LINES_TEST(an_endless_message_is_refused),
		LINES_TEST(the_other_ends_end_is_told),
		LINES_TEST(sending_is_bounded),
		LINES_TEST(what_is_sent_arrives),
		LINES_TEST(a_callback_may_free),
	};

	return cmocka_run_group_tests_name("io_lines", tests, NULL, NULL);
}
