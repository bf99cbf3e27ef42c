/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sosie exec and sosie instance console: standard input goes to the session piece by piece, each
 * posted when the one before has been taken; what the session writes comes as an event stream.
 *
 * Exit status of exec: the program's; 125 when it could not be run.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <termios.h>

#include "cli/wait.h"
#include "io/digest.h"
#include "io/json.h"
#include "io/loop.h"

#define PIECE_MAX     (24U << 10)
#define AGAIN_NS      (200 * (uint64_t)NSEC_PER_MSEC)
#define CONSOLE_LEAVE 0x1d /* control and ']' */

struct session {
	struct api api;
	sd_event *event;
	struct http_client *client;
	sd_event_source *input, *again;
	char id[64];
	char piece[PIECE_MAX]; /* read, and not yet taken */
	size_t size;
	bool eof, posting, polled;
	bool console, raw, left;
	struct termios terminal;
	int status;
	bool exited;
	struct err why;
};

static void post_piece(struct session *s);

static void leave(struct session *s, int status)
{
	s->status = status;
	(void)sd_event_exit(s->event, 0);
}

static void want_input(struct session *s, bool wanted)
{
	if (s->input)
		(void)sd_event_source_set_enabled(s->input, wanted ? SD_EVENT_ON : SD_EVENT_OFF);
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	post_piece(userdata);
	return 0;
}

static void on_posted(const struct http_reply *reply, void *userdata)
{
	struct session *s = userdata;

	s->posting = false;
	if (reply->err.code == ERR_LIMIT) {
		(void)loop_rearm(s->again, AGAIN_NS);
		return;
	}
	s->size = 0;
	/* Input that ends, or a session that has: the output says how it goes on. */
	if (reply->err.code == ERR_NONE && !s->eof)
		want_input(s, true);
}

static void post_piece(struct session *s)
{
	CLEANUP_BUF struct buf text = BUF_INIT(2 * (size_t)PIECE_MAX);
	char url[API_URL_MAX + API_PATH_MAX], path[API_PATH_MAX];
	CLEANUP_FREE char *body = NULL;
	struct http_call call;

	(void)snprintf(path, sizeof(path), "/v1/sessions/%s/input", s->id);
	if (base64_encode(&text, s->piece, s->size) == 0) {
		CLEANUP_JSON json_t *j =
			json_pack("{s:s,s:b}", "data", buf_text(&text), "eof", s->eof);

		body = j ? json_dumps(j, JSON_COMPACT) : NULL;
	}
	api_prepare(&s->api, path, url, &call);
	call.method = "POST";
	call.body = body;
	call.body_size = body ? strlen(body) : 0;
	s->posting = body && http_start(s->client, &call, on_posted, s, NULL) == 0;
	if (!s->posting)
		(void)loop_rearm(s->again, AGAIN_NS);
}

static void read_input(struct session *s)
{
	ssize_t n = read(STDIN_FILENO, s->piece, sizeof(s->piece));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	want_input(s, false);
	if (s->console && n > 0 && memchr(s->piece, CONSOLE_LEAVE, (size_t)n)) {
		s->left = true;
		leave(s, 0);
		return;
	}
	s->eof = n <= 0;
	s->size = n > 0 ? (size_t)n : 0;
	post_piece(s);
}

static int on_input(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void)source;
	(void)fd;
	(void)events;
	read_input(userdata);
	return 0;
}

static int on_ready(sd_event_source *source, void *userdata)
{
	(void)source;
	read_input(userdata);
	return 0;
}

/* Files cannot be waited for, and need not be. */
static int watch_input(struct session *s)
{
	int r = sd_event_add_io(s->event, &s->input, STDIN_FILENO, EPOLLIN, on_input, s);

	if (r == -EPERM) {
		r = sd_event_add_defer(s->event, &s->input, on_ready, s);
		if (r >= 0)
			r = sd_event_source_set_enabled(s->input, SD_EVENT_ON);
	}
	return r;
}

static int write_out(int fd, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t done = write(fd, bytes, n);

		if (done < 0 && errno != EINTR)
			return -errno;
		if (done > 0) {
			bytes += done;
			n -= (size_t)done;
		}
	}
	return 0;
}

static void on_exit_event(struct session *s, const char *data)
{
	CLEANUP_JSON json_t *j = NULL;
	const char *reason;

	if (json_parse(data, strlen(data), NULL, &j, &s->why) < 0)
		return;
	s->exited = true;
	s->status = (int)json_integer_value(json_object_get(j, "status"));
	reason = json_string_value(json_object_get(j, "reason"));
	if (reason && *reason)
		(void)err_set(&s->why, ERR_UNAVAILABLE, "%s", reason);
}

static int on_output(const struct http_event *event, void *userdata)
{
	CLEANUP_BUF struct buf bytes = BUF_INIT(HTTP_EVENT_MAX);
	struct session *s = userdata;
	int r;

	if (!strcmp(event->name, "exit")) {
		on_exit_event(s, event->data);
		return 0;
	}
	r = base64_decode(&bytes, event->data);
	if (r < 0)
		return r;
	return write_out(!strcmp(event->name, "stderr") ? STDERR_FILENO : STDOUT_FILENO,
		buf_text(&bytes), bytes.size);
}

static void on_stream_end(const struct http_reply *reply, void *userdata)
{
	struct session *s = userdata;

	if (!s->exited && reply->err.code != ERR_NONE)
		s->why = reply->err;
	else if (!s->exited)
		(void)err_set(&s->why, ERR_UNAVAILABLE, "the session ended before the program");
	leave(s, s->status);
}

static int start_output(struct session *s)
{
	char url[API_URL_MAX + API_PATH_MAX], path[API_PATH_MAX];
	struct http_call call;

	(void)snprintf(path, sizeof(path), "/v1/sessions/%s/output", s->id);
	api_prepare(&s->api, path, url, &call);
	call.timeout_ns = UINT64_MAX;
	call.on_event = on_output;
	call.on_event_userdata = s;
	return http_start(s->client, &call, on_stream_end, s, NULL);
}

static int open_session(
	struct session *s, const struct invocation *inv, const json_t *body, struct err *e)
{
	CLEANUP_JSON json_t *answer = NULL;
	char path[API_PATH_MAX];
	const char *id;
	int r = api_open(&s->api, e);

	if (r == 0)
		r = item_path(inv, "/v1/instances", inv->arguments[0], "sessions", path, e);
	if (r == 0)
		r = api_call(&s->api, "POST", path, body, &answer, e);
	if (r == 0)
		r = json_get_string(answer, "id", sizeof(s->id) - 1, &id, e);
	if (r == 0)
		(void)snprintf(s->id, sizeof(s->id), "%s", id);
	return r;
}

static void close_session(struct session *s)
{
	char path[API_PATH_MAX];

	if (s->id[0] && api_path(path, NULL, "/v1/sessions/%s", s->id) == 0)
		(void)api_call(&s->api, "DELETE", path, NULL, NULL, &(struct err){0});
}

static void make_raw(struct session *s)
{
	struct termios raw;

	if (!s->console || tcgetattr(STDIN_FILENO, &s->terminal) < 0)
		return;
	raw = s->terminal;
	cfmakeraw(&raw);
	s->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
	if (s->raw)
		(void)fprintf(stderr, "control and ] leaves the console\r\n");
}

static void restore(struct session *s)
{
	if (s->raw)
		(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &s->terminal);
	s->raw = false;
}

static int run_loop(struct session *s, struct err *e)
{
	int r = loop_new(&s->event);

	if (r >= 0)
		r = http_client_new(s->event, &s->client);
	if (r >= 0)
		r = loop_after(s->event, UINT64_MAX / 4, on_again, s, &s->again);
	if (r >= 0)
		r = watch_input(s);
	if (r >= 0)
		r = start_output(s);
	if (r < 0)
		return err_errno(e, r, "attach to the session");
	make_raw(s);
	r = sd_event_loop(s->event);
	restore(s);
	return r < 0 ? err_errno(e, r, "attach to the session") : 0;
}

static int run_session(
	const struct invocation *inv, const json_t *body, bool console, struct err *e)
{
	CLEANUP_FREE struct session *s = zalloc(1, sizeof(*s));
	int r;

	if (!s || !body)
		return err_errno(e, -ENOMEM, "open a session");
	s->console = console;
	r = open_session(s, inv, body, e);
	if (r == 0)
		r = run_loop(s, e);
	/* Ended here before there: by a signal, or by leaving the console. */
	if (!s->exited)
		close_session(s);
	loop_drop(&s->input);
	loop_drop(&s->again);
	http_client_free(s->client);
	(void)sd_event_unref(s->event);
	if (r < 0)
		return r;
	if (s->why.code != ERR_NONE && !s->left) {
		*e = s->why;
		return err_set(NULL, e->code, "-");
	}
	return s->status;
}

int run_exec(const struct invocation *inv, struct err *e)
{
	json_t *argv = json_array();
	CLEANUP_JSON json_t *body = json_pack("{s:s,s:o}", "kind", "exec", "argv", argv);
	char *const *words = inv->arguments + 1;

	if (*words && !strcmp(*words, "--"))
		words++;
	if (!*words) {
		(void)err_set(e, ERR_USAGE, "which program?");
		return err_hint(e, "sosie exec INSTANCE -- PROGRAM [ARGUMENT ...]");
	}
	for (; *words; words++)
		if (json_array_append_new(argv, json_string(*words)) < 0)
			return err_set(e, ERR_INVALID, "'%s' is not UTF-8 text", *words);
	return run_session(inv, body, false, e);
}

int run_instance_console(const struct invocation *inv, struct err *e)
{
	CLEANUP_JSON json_t *body = json_pack("{s:s}", "kind", "console");

	return run_session(inv, body, true, e);
}
