/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP server with libcurl as its client, and with raw sockets for what libcurl would not send.
 * Everything runs on one loop in this process, but for the waiting client, which gets a server in
 * a child process.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "io/http_client.h"
#include "io/http_server.h"
#include "io/json.h"
#include "io/listen.h"
#include "io/loop.h"
#include "unit.h"

struct fixture {
	sd_event *event;
	struct http_server *server;
	struct http_client *client;
	char folder[32];
	char url[64];
	struct http_request *waiting; /* the deferred or streaming request */
	int handled, gone;
};

static void on_gone(struct http_request *q, void *userdata)
{
	struct fixture *f = userdata;

	assert_ptr_equal(q, f->waiting);
	f->waiting = NULL;
	f->gone++;
}

static void echo(struct http_request *q)
{
	const char *header = http_header(q, "x-thing"), *bearer = http_bearer(q);
	size_t n;
	const char *body = http_body(q, &n);

	http_answer_json(q, 200,
		json_pack("{s:s, s:s, s:s?, s:s?, s:s?, s:s%, s:s}", "method",
			http_method_name(http_method(q)), "path", http_path(q), "q",
			http_query(q, "q"), "thing", header, "bearer", bearer, "body", body, n,
			"peer", http_peer(q)));
}

static void answer_with(struct http_request *q, const char *name)
{
	struct err e;

	(void)err_set(&e, err_from_name(name), "it is %s", name);
	(void)err_hint(&e, "try again");
	(void)http_answer_header(q, "Retry-After", "7");
	http_answer_error(q, &e);
}

static void handler(struct http_request *q, void *userdata)
{
	struct fixture *f = userdata;
	const char *path = http_path(q);
	struct err e;
	json_t *body;

	f->handled++;
	if (!strcmp(path, "/later")) {
		f->waiting = q;
		http_defer(q, on_gone, f);
	} else if (!strcmp(path, "/stream")) {
		f->waiting = q;
		http_stream_begin(q, NULL, on_gone, f);
	} else if (!strcmp(path, "/fail")) {
		answer_with(q, http_query(q, "code"));
	} else if (!strcmp(path, "/json")) {
		if (http_body_json(q, &body, &e) < 0)
			http_answer_error(q, &e);
		else
			http_answer_json(q, 201, body);
	} else if (!strcmp(path, "/etag")) {
		const char *seen = http_header(q, "If-None-Match");

		assert_ok(http_answer_header(q, "ETag", "\"7\""));
		assert_int_equal(http_answer_header(q, "X", "a\r\nb: c"), -EINVAL);
		http_answer(q, seen && !strcmp(seen, "\"7\"") ? 304 : 200, "text/plain", "seven",
			seen ? 0 : 5);
	} else if (strcmp(path, "/silent") != 0) {
		echo(q);
	}
}

static void start_server(struct fixture *f, const struct http_server_options *options)
{
	struct err e = {0};

	if (http_server_new(f->event, options, handler, f, &f->server, &e) < 0)
		fail_msg("%s (%s)", e.message, e.hint);
	(void)snprintf(f->url, sizeof(f->url), "http%s://127.0.0.1:%u",
		options->tls_cert_file ? "s" : "", http_server_port(f->server));
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_ok(loop_new(&f->event));
	assert_ok(http_client_new(f->event, &f->client));
	(void)snprintf(f->folder, sizeof(f->folder), "/tmp/sosie-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	static const char *const made[] = {"socket", "cert.pem", "key.pem", "other.pem", "file"};
	char path[64];

	http_client_free(f->client);
	http_server_free(f->server);
	(void)sd_event_unref(f->event);
	for (size_t i = 0; i < ARRAY_SIZE(made); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", f->folder, made[i]);
		(void)unlink(path);
	}
	(void)rmdir(f->folder);
	free(f);
	return 0;
}

static void turn(struct fixture *f)
{
	assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
}

/* What came of a call through the client. */
struct outcome {
	int done;
	unsigned int status, retry_after;
	struct err err;
	char etag[HTTP_ETAG_MAX];
	json_t *json;
	char body[64];
};

static void on_done(const struct http_reply *reply, void *userdata)
{
	struct outcome *o = userdata;

	o->done++;
	o->status = reply->status;
	o->err = reply->err;
	o->retry_after = reply->retry_after;
	(void)snprintf(o->etag, sizeof(o->etag), "%s", reply->etag);
	(void)snprintf(o->body, sizeof(o->body), "%s", buf_text(&reply->body));
	json_decref(o->json);
	o->json = NULL;
	(void)http_reply_json(reply, &o->json, NULL);
}

static void forget(struct outcome *o)
{
	json_decref(o->json);
}

static void call_and_wait(
	struct fixture *f, struct http_call call, const char *path, struct outcome *o)
{
	char url[256];

	(void)snprintf(url, sizeof(url), "%s%s", f->url, path);
	call.url = url;
	o->done = 0;
	assert_ok(http_start(f->client, &call, on_done, o, NULL));
	while (!o->done)
		turn(f);
}

static const char *field(const struct outcome *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o->json, name));

	return s ? s : "(none)";
}

static void requests_arrive_and_answers_come_back(void **state)
{
	CLEANUP(forget) struct outcome o = {0};
	struct fixture *f = *state;

	start_server(f, &(struct http_server_options){0});
	call_and_wait(f, (struct http_call){.headers = {"X-Thing: t"}, .bearer = "secret"},
		"/a%20b?q=x%26y", &o);
	assert_int_equal(o.status, 200);
	assert_int_equal(o.err.code, ERR_NONE);
	assert_string_equal(field(&o, "method"), "GET");
	assert_string_equal(field(&o, "path"), "/a b");
	assert_string_equal(field(&o, "q"), "x&y");
	assert_string_equal(field(&o, "thing"), "t");
	assert_string_equal(field(&o, "bearer"), "secret");
	assert_string_equal(field(&o, "body"), "");
	assert_memory_equal(field(&o, "peer"), "127.0.0.1:", 10);
	call_and_wait(f, (struct http_call){.method = "PUT", .body = "{\"a\":1}", .body_size = 7},
		"/x?q", &o);
	assert_string_equal(field(&o, "method"), "PUT");
	assert_string_equal(field(&o, "q"), "");
	assert_string_equal(field(&o, "bearer"), "(none)");
	assert_string_equal(field(&o, "body"), "{\"a\":1}");
	call_and_wait(f, (struct http_call){.method = "HEAD"}, "/x", &o);
	assert_int_equal(o.status, 200);
	assert_string_equal(o.body, "");
	call_and_wait(f, (struct http_call){.method = "POST", .body = "[1,2]", .body_size = 5},
		"/json", &o);
	assert_int_equal(o.status, 201);
	assert_string_equal(o.body, "[1,2]");
	assert_int_equal(http_server_counters(f->server)->requests, 4);
	assert_int_equal(http_server_counters(f->server)->refused, 0);
}

static void errors_keep_code_message_and_hint(void **state)
{
	CLEANUP(forget) struct outcome o = {0};
	struct fixture *f = *state;

	start_server(f, &(struct http_server_options){0});
	for (unsigned int i = ERR_INTERNAL; i < ERR_CODES; i++) {
		const char *name = err_name((enum err_code)i);
		char path[64], message[64];

		(void)snprintf(path, sizeof(path), "/fail?code=%s", name);
		(void)snprintf(message, sizeof(message), "it is %s", name);
		call_and_wait(f, (struct http_call){0}, path, &o);
		assert_int_equal(o.status, err_http_status((enum err_code)i));
		assert_int_equal(o.err.code, i);
		assert_string_equal(o.err.message, message);
		assert_string_equal(o.err.hint, "try again");
		assert_int_equal(o.retry_after, 7);
	}
	call_and_wait(
		f, (struct http_call){.method = "POST", .body = "{", .body_size = 1}, "/json", &o);
	assert_int_equal(o.status, 400);
	assert_memory_equal(o.err.message, "not JSON: line 1", 16);
	call_and_wait(f, (struct http_call){0}, "/silent", &o);
	assert_int_equal(o.status, 500);
	assert_string_equal(o.err.message, "the handler gave no answer");
}

static void entity_tags_are_told(void **state)
{
	CLEANUP(forget) struct outcome o = {0};
	struct fixture *f = *state;

	start_server(f, &(struct http_server_options){0});
	call_and_wait(f, (struct http_call){0}, "/etag", &o);
	assert_string_equal(o.etag, "\"7\"");
	assert_string_equal(o.body, "seven");
	call_and_wait(f, (struct http_call){.headers = {"If-None-Match: \"7\""}}, "/etag", &o);
	assert_int_equal(o.status, 304);
	assert_int_equal(o.err.code, ERR_NONE);
}

static void answers_may_come_later(void **state)
{
	CLEANUP(forget) struct outcome o = {0};
	struct fixture *f = *state;
	char url[128];

	start_server(f, &(struct http_server_options){0});
	(void)snprintf(url, sizeof(url), "%s/later", f->url);
	for (int i = 0; i < 3; i++) {
		o.done = 0;
		assert_ok(
			http_start(f->client, &(struct http_call){.url = url}, on_done, &o, NULL));
		while (!f->waiting)
			turn(f);
		/* Nothing spins while it waits (this would not end), and another call passes it. */
		while (sd_event_run(f->event, 0) > 0)
			;
		{
			CLEANUP(forget) struct outcome other = {0};

			call_and_wait(f, (struct http_call){0}, "/between", &other);
			assert_int_equal(other.status, 200);
		}
		assert_int_equal(o.done, 0);
		http_answer(TAKE_PTR(f->waiting), 200, "text/plain", "at last", 7);
		while (!o.done)
			turn(f);
		assert_string_equal(o.body, "at last");
	}
	assert_int_equal(f->gone, 0);
}

static void a_client_that_leaves_is_told_of(void **state)
{
	struct http_pending *pending;
	struct outcome o = {0};
	struct fixture *f = *state;
	char url[128];

	start_server(f, &(struct http_server_options){0});
	static const char *const paths[] = {"/later", "/stream"};
	for (int i = 0; i < 2; i++) {
		(void)snprintf(url, sizeof(url), "%s%s", f->url, paths[i]);
		assert_ok(http_start(
			f->client, &(struct http_call){.url = url}, on_done, &o, &pending));
		while (!f->waiting)
			turn(f);
		http_cancel(pending);
		while (f->gone <= i)
			turn(f);
		assert_null(f->waiting);
	}
	assert_int_equal(o.done, 0);
	assert_int_equal(http_server_counters(f->server)->gone, 2);
}

struct heard {
	int count, stop_at;
	char text[256];
};

static int on_event(const struct http_event *event, void *userdata)
{
	struct heard *h = userdata;
	size_t used = strlen(h->text);

	assert_int_equal(strlen(event->data), event->size);
	(void)snprintf(h->text + used, sizeof(h->text) - used, "%s|%s|%s;", event->id, event->name,
		event->data);
	return ++h->count == h->stop_at ? -ECANCELED : 0;
}

static void events_are_streamed(void **state)
{
	CLEANUP(forget) struct outcome o = {0};
	struct heard h = {0};
	struct fixture *f = *state;
	char url[128];
	const struct http_call call = {.url = url,
		.timeout_ns = UINT64_MAX,
		.on_event = on_event,
		.on_event_userdata = &h};

	start_server(f, &(struct http_server_options){0});
	(void)snprintf(url, sizeof(url), "%s/stream", f->url);
	assert_ok(http_start(f->client, &call, on_done, &o, NULL));
	while (!f->waiting)
		turn(f);
	assert_ok(http_stream_event(f->waiting, "1", "born", "{\"a\":1}"));
	while (h.count < 1)
		turn(f);
	while (sd_event_run(f->event, 0) > 0)
		;
	assert_int_equal(http_stream_event(f->waiting, "1\n2", NULL, ""), -EINVAL);
	assert_ok(http_stream_event(f->waiting, NULL, NULL, "two\nlines"));
	assert_ok(http_stream_push(f->waiting, ": a comment\n\n", 13));
	assert_ok(http_stream_event(f->waiting, "2", "gone", ""));
	while (h.count < 3)
		turn(f);
	assert_string_equal(h.text, "1|born|{\"a\":1};1|message|two\nlines;2|gone|;");
	assert_int_equal(o.done, 0);
	http_stream_end(TAKE_PTR(f->waiting));
	while (!o.done)
		turn(f);
	assert_int_equal(o.status, 200);
	assert_string_equal(o.body, "");
	assert_int_equal(f->gone, 0);

	/* The listener's own refusal ends the call. */
	h = (struct heard){.stop_at = 1};
	o.done = 0;
	assert_ok(http_start(f->client, &call, on_done, &o, NULL));
	while (!f->waiting)
		turn(f);
	assert_ok(http_stream_event(f->waiting, NULL, NULL, "x"));
	while (!o.done || !f->gone)
		turn(f);
	assert_int_equal(o.status, 0);
	assert_int_equal(f->gone, 1);
}

/* A client that sends what it likes. */
struct raw {
	sd_event_source *source;
	struct buf got;
	int fd;
	bool closed;
};

static int on_raw(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct raw *raw = userdata;
	char bytes[4096];
	ssize_t n = read(fd, bytes, sizeof(bytes));

	(void)events;
	if (n > 0)
		return buf_append(&raw->got, bytes, (size_t)n);
	if (n < 0 && errno == EAGAIN)
		return 0;
	raw->closed = true;
	return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

static void raw_open(struct fixture *f, struct raw *raw)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
		.sin_port = htons(http_server_port(f->server)),
		.sin_addr = {htonl(INADDR_LOOPBACK)}};

	*raw = (struct raw){.got = BUF_INIT(1U << 20)};
	raw->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(raw->fd >= 0);
	assert_ok(connect(raw->fd, (struct sockaddr *)&to, sizeof(to)));
	assert_true(fcntl(raw->fd, F_SETFL, O_NONBLOCK) >= 0);
	assert_true(sd_event_add_io(f->event, &raw->source, raw->fd, EPOLLIN, on_raw, raw) >= 0);
}

static void raw_close(struct raw *raw)
{
	loop_drop(&raw->source);
	if (raw->fd >= 0)
		(void)close(raw->fd);
	raw->fd = -1;
	buf_free(&raw->got);
}

static void raw_send(struct fixture *f, struct raw *raw, const char *text, size_t n)
{
	while (n > 0 && !raw->closed) {
		ssize_t sent = send(raw->fd, text, n, MSG_NOSIGNAL);

		if (sent < 0) {
			if (errno != EAGAIN)
				return; /* refused already: the answer is what counts */
			assert_true(sd_event_run(f->event, 1000) >= 0);
			continue;
		}
		text += sent;
		n -= (size_t)sent;
	}
}

static void raw_wait(struct fixture *f, struct raw *raw, const char *text)
{
	while (!strstr(buf_text(&raw->got), text)) {
		if (raw->closed)
			fail_msg("closed before \"%s\": %s", text, buf_text(&raw->got));
		turn(f);
	}
}

static char *repeated(const char *head, char c, size_t n, const char *tail)
{
	size_t before = strlen(head);
	char *text = malloc(before + n + strlen(tail) + 1);

	assert_non_null(text);
	(void)snprintf(text, before + 1, "%s", head);
	memset(text + before, c, n);
	(void)snprintf(text + before + n, strlen(tail) + 1, "%s", tail);
	return text;
}

static void hostile_requests_are_refused(void **state)
{
#define H "Host: x\r\n"
	const struct {
		char *text;
		const char *first, *says;
	} cases[] = {
		{strdup("BREW / HTTP/1.1\r\n" H "\r\n"), "501", "not implemented"},
		{strdup("GET /a%00b HTTP/1.1\r\n" H "\r\n"), "400", "malformed"},
		{strdup("GET /a%2Fb HTTP/1.1\r\n" H "\r\n"), "400", "malformed"},
		{strdup("GET /a%0ab HTTP/1.1\r\n" H "\r\n"), "400", "malformed"},
		{strdup("GET /a%zz HTTP/1.1\r\n" H "\r\n"), "400", "malformed"},
		{strdup("GET /a% HTTP/1.1\r\n" H "\r\n"), "400", "malformed"},
		{strdup("GET /a?q=%00 HTTP/1.1\r\n" H "\r\n"), "400", "malformed"},
		{strdup("GET http://x/a HTTP/1.1\r\n" H "\r\n"), "400", "malformed"},
		{strdup("POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n"
			"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
			"400", "both"},
		{strdup("POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n"), "400", ""},
		{strdup("POST / HTTP/1.1\r\n" H "Content-Length: 5000000000\r\n\r\n"), "413",
			"too large"},
		{strdup("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"), "400",
			""},
		{repeated("POST / HTTP/1.1\r\n" H "Content-Length: 5000\r\n\r\n", 'x', 5000, ""),
			"413", "too large"},
		{repeated("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1388\r\n", 'x',
			 5000, "\r\n0\r\n\r\n"),
			"413", "too large"},
		{repeated("GET /", 'x', 600, " HTTP/1.1\r\n" H "\r\n"), "414", "too long"},
		{repeated("GET / HTTP/1.1\r\n" H "X: ", 'x', 3000, "\r\n\r\n"), "431", "too long"},
		{repeated("GET / HTTP/1.1\r\n" H "X: ", 'x', 200000, "\r\n\r\n"), "431", ""},
	};
#undef H
	struct fixture *f = *state;

	start_server(f, &(struct http_server_options){
				.max_body = 4096, .max_url = 512, .max_header = 2048});
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP(raw_close) struct raw raw;
		CLEANUP_FREE char *text = cases[i].text;
		char first[32];

		raw_open(f, &raw);
		raw_send(f, &raw, text, strlen(text));
		(void)snprintf(first, sizeof(first), "HTTP/1.1 %s ", cases[i].first);
		while (!raw.closed && !strstr(buf_text(&raw.got), first))
			turn(f);
		if (!strstr(buf_text(&raw.got), first) ||
			!strstr(buf_text(&raw.got), cases[i].says))
			fail_msg("case %zu: %s", i, buf_text(&raw.got));
	}
	assert_int_equal(f->handled, 0);
}

static void requests_share_a_connection(void **state)
{
	static const char two[] = "GET /one HTTP/1.1\r\nHost: x\r\n\r\n"
				  "POST /two HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
				  "GET /later HTTP/1.1\r\nHost: x\r\n\r\n"
				  "GET /four HTTP/1.1\r\nHost: x\r\n\r\n";
	CLEANUP(raw_close) struct raw raw;
	struct fixture *f = *state;

	start_server(f, &(struct http_server_options){0});
	raw_open(f, &raw);
	raw_send(f, &raw, two, sizeof(two) - 1);
	raw_wait(f, &raw, "/two");
	while (!f->waiting)
		turn(f);
	http_answer(TAKE_PTR(f->waiting), 200, "text/plain", "three", 5);
	raw_wait(f, &raw, "three");
	raw_wait(f, &raw, "/four");
	assert_int_equal(http_server_counters(f->server)->connections, 1);
	assert_int_equal(http_server_counters(f->server)->requests, 4);
}

static void a_request_must_arrive_in_time(void **state)
{
	static const char *const halves[] = {"", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"};
	struct raw raw[ARRAY_SIZE(halves)];
	struct fixture *f = *state;

	start_server(f, &(struct http_server_options){.timeout_s = 1});
	for (size_t i = 0; i < ARRAY_SIZE(halves); i++) {
		raw_open(f, &raw[i]);
		raw_send(f, &raw[i], halves[i], strlen(halves[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(halves); i++) {
		while (!raw[i].closed)
			turn(f);
		raw_close(&raw[i]);
	}
	assert_int_equal(f->handled, 0);
	assert_int_equal(http_server_counters(f->server)->timeouts, ARRAY_SIZE(halves));
}

static void a_stream_too_far_behind_is_cut(void **state)
{
	static const char ask[] = "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n";
	CLEANUP(raw_close) struct raw raw;
	struct fixture *f = *state;
	char chunk[4096];
	int r = 0;

	memset(chunk, 'x', sizeof(chunk));
	start_server(f, &(struct http_server_options){.max_backlog = 65536});
	raw_open(f, &raw);
	raw_send(f, &raw, ask, sizeof(ask) - 1);
	while (!f->waiting)
		turn(f);
	loop_drop(&raw.source); /* reads nothing from now on */
	while (r == 0) {
		assert_true(sd_event_run(f->event, 0) >= 0);
		r = http_stream_push(f->waiting, chunk, sizeof(chunk));
	}
	assert_int_equal(r, -ENOBUFS);
	assert_int_equal(f->gone, 0);
	assert_int_equal(http_stream_push(f->waiting, chunk, 1), -EPIPE);
	while (!f->gone)
		turn(f);
	assert_int_equal(http_server_counters(f->server)->slow, 1);
}

static void connections_beyond_the_limit_wait(void **state)
{
	static const char ask[] = "GET /later HTTP/1.1\r\nHost: x\r\n\r\n";
	static const char other[] = "GET /other HTTP/1.1\r\nHost: x\r\n\r\n";
	CLEANUP(raw_close) struct raw first, second;
	struct fixture *f = *state;

	start_server(f, &(struct http_server_options){.max_connections = 1});
	raw_open(f, &first);
	raw_send(f, &first, ask, sizeof(ask) - 1);
	while (!f->waiting)
		turn(f);
	raw_open(f, &second);
	raw_send(f, &second, other, sizeof(other) - 1);
	while (sd_event_run(f->event, 20000) > 0)
		;
	assert_int_equal(f->handled, 1);
	raw_close(&first);
	raw_wait(f, &second, "/other");
	assert_int_equal(f->gone, 1);
}

static void unix_sockets_tell_who_calls(void **state)
{
	CLEANUP(forget) struct outcome o = {0};
	struct http_server *other = NULL;
	struct fixture *f = *state;
	char path[64], wanted[64];
	struct stat st;
	struct err e;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/socket", f->folder);
	const struct http_server_options options = {.unix_path = path};

	/* A file is not touched; a socket left behind is replaced; one in use is not. */
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	(void)close(fd);
	assert_true(http_server_new(f->event, &options, handler, f, &other, &e) < 0);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_ok(unlink(path));
	assert_ok(listen_unix(path, 0600, &fd, &e));
	assert_true(http_server_new(f->event, &options, handler, f, &other, &e) < 0);
	assert_int_equal(e.code, ERR_CONFLICT);
	(void)close(fd);
	start_server(f, &options);
	assert_ok(stat(path, &st));
	assert_int_equal(st.st_mode & 0777, 0600);
	(void)snprintf(f->url, sizeof(f->url), "http://anything");
	call_and_wait(f, (struct http_call){.unix_path = path}, "/x", &o);
	(void)snprintf(wanted, sizeof(wanted), "unix:pid=%d,uid=%u", getpid(), getuid());
	assert_string_equal(field(&o, "peer"), wanted);
	http_server_free(TAKE_PTR(f->server));
	assert_int_equal(stat(path, &st), -1);
}

static void make_certificate(struct fixture *f, const char *cert, const char *key)
{
	char command[512];

	(void)snprintf(command, sizeof(command),
		"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
		"-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout %s/%s -out %s/%s "
		"2>/dev/null",
		f->folder, key, f->folder, cert);
	assert_ok(system(command)); /* NOLINT(cert-env33-c) */
}

static void tls_is_spoken_and_checked(void **state)
{
	CLEANUP(forget) struct outcome o = {0};
	struct http_server *none = NULL;
	struct fixture *f = *state;
	char cert[64], key[64], other[64];
	struct err e;

	(void)snprintf(cert, sizeof(cert), "%s/cert.pem", f->folder);
	(void)snprintf(key, sizeof(key), "%s/key.pem", f->folder);
	(void)snprintf(other, sizeof(other), "%s/other.pem", f->folder);
	make_certificate(f, "other.pem", "key.pem");
	make_certificate(f, "cert.pem", "key.pem");
	start_server(f, &(struct http_server_options){.tls_cert_file = cert, .tls_key_file = key});
	call_and_wait(f, (struct http_call){.ca_file = cert}, "/x", &o);
	assert_int_equal(o.status, 200);
	assert_string_equal(field(&o, "path"), "/x");
	call_and_wait(f, (struct http_call){.ca_file = other}, "/x", &o);
	assert_int_equal(o.status, 0);
	assert_int_equal(o.err.code, ERR_UNAVAILABLE);
	assert_non_null(strstr(o.err.message, "certificate"));
	assert_true(
		http_server_new(f->event,
			&(struct http_server_options){.tls_cert_file = cert, .tls_key_file = cert},
			handler, f, &none, &e) < 0);
	assert_non_null(strstr(e.hint, "check certificate and key"));
	assert_true(http_server_new(f->event, &(struct http_server_options){.tls_cert_file = cert},
			    handler, f, &none, &e) < 0);
	assert_int_equal(e.code, ERR_INVALID);
	assert_true(http_server_new(f->event,
			    &(struct http_server_options){
				    .tls_cert_file = "/nowhere", .tls_key_file = key},
			    handler, f, &none, &e) < 0);
	assert_int_equal(e.code, ERR_NOT_FOUND);
}

static void calls_that_fail_say_why(void **state)
{
	CLEANUP(forget) struct outcome o = {0};
	struct fixture *f = *state;
	uint16_t port;
	char url[64];
	int fd;

	start_server(f, &(struct http_server_options){0});
	call_and_wait(f, (struct http_call){.max_response = 10}, "/echo", &o);
	assert_int_equal(o.err.code, ERR_TOO_LARGE);
	call_and_wait(f, (struct http_call){.timeout_ns = 50 * NSEC_PER_MSEC}, "/later", &o);
	assert_int_equal(o.err.code, ERR_TIMEOUT);
	while (!f->gone)
		turn(f);
	assert_int_equal(http_start(f->client, &(struct http_call){.url = NULL}, on_done, &o, NULL),
		-EINVAL);
	assert_int_equal(http_start(f->client,
				 &(struct http_call){.url = f->url, .headers = {"A: b\r\nC: d"}},
				 on_done, &o, NULL),
		-EINVAL);
	(void)snprintf(url, sizeof(url), "%s", f->url);
	(void)snprintf(f->url, sizeof(f->url), "ftp://127.0.0.1");
	call_and_wait(f, (struct http_call){0}, "/", &o);
	assert_int_equal(o.err.code, ERR_USAGE);
	/* A port that was free a moment ago. */
	assert_ok(listen_tcp("127.0.0.1", 0, &fd, &port, NULL));
	(void)close(fd);
	(void)snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u", port);
	call_and_wait(f, (struct http_call){0}, "/", &o);
	assert_int_equal(o.err.code, ERR_UNAVAILABLE);
	assert_int_equal(o.status, 0);
}

static void many_calls_run_at_once_within_the_limit(void **state)
{
	struct outcome o = {0};
	struct fixture *f = *state;
	char url[128];
	int started = 0, r;

	start_server(f, &(struct http_server_options){0});
	(void)snprintf(url, sizeof(url), "%s/etag", f->url);
	while ((r = http_start(f->client, &(struct http_call){.url = url}, on_done, &o, NULL)) == 0)
		started++;
	assert_int_equal(r, -EBUSY);
	assert_int_equal(started, HTTP_CALLS_MAX);
	while (o.done < started)
		turn(f);
	assert_int_equal(f->handled, started);
	assert_int_equal(o.status, 200);
}

static void a_freed_server_tells_those_who_wait(void **state)
{
	static const char *const asks[] = {"GET /later HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n", "GET /half"};
	struct raw raw[ARRAY_SIZE(asks)];
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(asks); i++) {
		start_server(f, &(struct http_server_options){0});
		raw_open(f, &raw[i]);
		raw_send(f, &raw[i], asks[i], strlen(asks[i]));
		while (i < 2 && !f->waiting)
			turn(f);
		while (http_server_counters(f->server)->connections == 0)
			turn(f);
		http_server_free(TAKE_PTR(f->server));
		assert_int_equal(f->gone, MIN(i + 1, 2));
		while (!raw[i].closed)
			turn(f);
		raw_close(&raw[i]);
	}
}

/* In a child process: serves until SIGTERM, having written its port to fd. */
static void serve(int fd)
{
	struct fixture f = {0};
	uint16_t port;

	/* Not to outlive a failed test. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || loop_new(&f.event) < 0 ||
		http_server_new(f.event, &(struct http_server_options){0}, handler, &f, &f.server,
			NULL) < 0)
		_exit(1);
	port = http_server_port(f.server);
	if (write(fd, &port, sizeof(port)) != sizeof(port))
		_exit(1);
	_exit(loop_run(f.event));
}

static void waiting_calls_serve_command_line_tools(void **state)
{
	CLEANUP(http_reply_free) struct http_reply good = {0}, bad = {0};
	struct http_reply none = {0};
	struct err e = {0};
	char url[96], wrong[96];
	int status, ports[2];
	uint16_t port;
	pid_t pid;

	(void)state;
	assert_ok(pipe(ports));
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		serve(ports[1]);
	(void)close(ports[1]);
	assert_int_equal(read(ports[0], &port, sizeof(port)), sizeof(port));
	(void)close(ports[0]);
	(void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/etag", port);
	(void)snprintf(wrong, sizeof(wrong), "http://127.0.0.1:%u/fail?code=no_capacity", port);
	assert_ok(http_call(&(struct http_call){.url = url}, &good, &e));
	assert_int_equal(good.err.code, ERR_NONE);
	assert_string_equal(buf_text(&good.body), "seven");
	assert_ok(http_call(&(struct http_call){.url = wrong}, &bad, &e));
	assert_int_equal(bad.status, 409);
	assert_int_equal(bad.err.code, ERR_NO_CAPACITY);
	assert_ok(kill(pid, SIGTERM));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_true(http_call(&(struct http_call){.url = url}, &none, &e) < 0);
	assert_int_equal(e.code, ERR_UNAVAILABLE);
}

static void event_streams_are_parsed_in_any_pieces(void **state)
{
	static const char text[] = "data: one\r\n\r\nid: 7\nevent: e\ndata: a\ndata:b\n\n"
				   ": comment\nid\ndata\n\nretry: 5\n\rdata: x\r\rdata: unfinished";
	static const char wanted[] = "|message|one;7|e|a\nb;|message|;|message|x;";

	(void)state;
	for (size_t step = 1; step <= sizeof(text); step++) {
		CLEANUP(http_events_free) struct http_events p;
		struct heard h = {0};

		http_events_init(&p, on_event, &h);
		for (size_t i = 0; i < sizeof(text) - 1; i += step)
			assert_ok(http_events_feed(&p, text + i, MIN(step, sizeof(text) - 1 - i)));
		assert_string_equal(h.text, wanted);
	}
	{
		CLEANUP(http_events_free) struct http_events p;
		CLEANUP_FREE char *line = repeated("data: ", 'x', HTTP_EVENT_LINE_MAX, "\n");
		struct heard h = {0};

		http_events_init(&p, on_event, &h);
		assert_int_equal(http_events_feed(&p, line, strlen(line)), -E2BIG);
		assert_int_equal(h.count, 0);
	}
}

#define HTTP_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		HTTP_TEST(requests_arrive_and_answers_come_back),
		HTTP_TEST(errors_keep_code_message_and_hint),
		HTTP_TEST(entity_tags_are_told),
		HTTP_TEST(answers_may_come_later),
		HTTP_TEST(a_client_that_leaves_is_told_of),
		HTTP_TEST(events_are_streamed),
		HTTP_TEST(hostile_requests_are_refused),
		HTTP_TEST(requests_share_a_connection),
		HTTP_TEST(a_request_must_arrive_in_time),
		HTTP_TEST(a_stream_too_far_behind_is_cut),
		HTTP_TEST(connections_beyond_the_limit_wait),
		HTTP_TEST(unix_sockets_tell_who_calls),
		HTTP_TEST(tls_is_spoken_and_checked),
		HTTP_TEST(calls_that_fail_say_why),
		HTTP_TEST(many_calls_run_at_once_within_the_limit),
		HTTP_TEST(a_freed_server_tells_those_who_wait),
		cmocka_unit_test(waiting_calls_serve_command_line_tools),
		cmocka_unit_test(event_streams_are_parsed_in_any_pieces),
	};

	return cmocka_run_group_tests_name("io_http", tests, NULL, NULL);
}
