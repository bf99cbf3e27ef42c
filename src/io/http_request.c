/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a handler sees of a request, and how it is answered.
 *
 * An answer is made at once but only given to MHD from MHD's own handler callback: directly after
 * ours returns, or, when the request was deferred, after the connection has been resumed. A stream
 * is a response whose bytes MHD fetches from the backlog; with nothing there, the connection is
 * suspended until more is pushed, so that an idle stream costs nothing.
 */
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "io/http_server_internal.h"
#include "io/json.h"

/* What MHD asks for at a time; also when bytes already taken are dropped from the backlog. */
#define STREAM_BLOCK (16U << 10)

static const char *const method_names[] = {
#define X(constant, name) [constant] = (name),
	HTTP_METHOD_TABLE(X)
#undef X
};
static_assert(ARRAY_SIZE(method_names) == HTTP_METHODS, "one name per method");

const char *http_method_name(enum http_method method)
{
	return (unsigned int)method < HTTP_METHODS ? method_names[method] : "?";
}

struct http_request *http_request_new(struct connection *c)
{
	struct http_request *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->connection = c;
	q->body = BUF_INIT(c->server->options.max_body);
	q->backlog = BUF_INIT(c->server->options.max_backlog);
	return q;
}

void http_request_finish(struct http_request *q)
{
	http_gone_fn gone = q->gone;

	loop_drop(&q->connection->hangup);
	if (gone) {
		q->gone = NULL;
		q->connection->server->counters.gone++;
		gone(q, q->userdata);
	}
	if (q->response)
		MHD_destroy_response(q->response);
	for (size_t i = 0; i < q->headers; i++) {
		free(q->header_names[i]);
		free(q->header_values[i]);
	}
	if (q->release)
		q->release(q->part_userdata);
	buf_free(&q->body);
	buf_free(&q->backlog);
	free(q);
}

void http_request_refuse(struct http_request *q, unsigned int status, enum err_code code,
	const char *message, const char *hint)
{
	if (q->refused)
		return;
	q->refused = status;
	(void)err_set(&q->refusal, code, "%s", message);
	(void)err_hint(&q->refusal, "%s", hint);
	buf_free(&q->body);
}

enum http_method http_method(const struct http_request *q)
{
	return q->method;
}

const char *http_path(const struct http_request *q)
{
	return q->path;
}

const char *http_query(const struct http_request *q, const char *name)
{
	const char *value = NULL;

	if (MHD_lookup_connection_value_n(q->connection->mhd, MHD_GET_ARGUMENT_KIND, name,
		    strlen(name), &value, NULL) != MHD_YES)
		return NULL;
	return value ? value : "";
}

const char *http_header(const struct http_request *q, const char *name)
{
	return MHD_lookup_connection_value(q->connection->mhd, MHD_HEADER_KIND, name);
}

const char *http_bearer(const struct http_request *q)
{
	const char *value = http_header(q, "Authorization");

	if (!value || strncasecmp(value, "Bearer ", 7) != 0)
		return NULL;
	value += 7;
	return value + strspn(value, " ");
}

const void *http_body(const struct http_request *q, size_t *ret_size)
{
	*ret_size = q->body.size;
	return buf_text(&q->body);
}

int http_body_json(const struct http_request *q, json_t **ret, struct err *e)
{
	const struct json_limits limits = {.max_bytes = q->body.max};

	return json_parse(buf_text(&q->body), q->body.size, &limits, ret, e);
}

void http_take_body(struct http_request *q, uint64_t max, http_part_fn part,
	void (*release)(void *userdata), void *userdata)
{
	assert(q->state == REQUEST_BODY && !q->part);
	q->part = part;
	q->release = release;
	q->part_userdata = userdata;
	q->part_max = max;
}

void *http_taken_body(const struct http_request *q)
{
	return q->part_userdata;
}

const char *http_peer(const struct http_request *q)
{
	return q->connection->peer;
}

bool http_peer_uid(const struct http_request *q, uid_t *ret)
{
	if (q->connection->has_uid)
		*ret = q->connection->uid;
	return q->connection->has_uid;
}

void http_defer(struct http_request *q, http_gone_fn gone, void *userdata)
{
	assert(q->state == REQUEST_HANDLING);
	q->state = REQUEST_DEFERRED;
	q->gone = gone;
	q->userdata = userdata;
}

int http_answer_header(struct http_request *q, const char *name, const char *value)
{
	char *n, *v;

	if (q->headers == HTTP_ANSWER_HEADERS_MAX)
		return -ENOBUFS;
	if (!*name || strpbrk(name, "\r\n:") || strpbrk(value, "\r\n"))
		return -EINVAL;
	n = strdup(name);
	v = strdup(value);
	if (!n || !v) {
		free(n);
		free(v);
		return -ENOMEM;
	}
	q->header_names[q->headers] = n;
	q->header_values[q->headers++] = v;
	return 0;
}

/* Takes the response; NULL, or a header that does not fit, cuts the connection. */
static void set_answer(struct http_request *q, unsigned int status, const char *content_type,
	struct MHD_Response *response)
{
	assert(q->state == REQUEST_HANDLING || q->state == REQUEST_DEFERRED);
	q->state = REQUEST_ANSWERED;
	q->status = status;
	q->response = response;
	if (!response || MHD_add_response_header(response, "Content-Type", content_type) != MHD_YES)
		q->cut = true;
	for (size_t i = 0; !q->cut && i < q->headers; i++)
		if (MHD_add_response_header(response, q->header_names[i], q->header_values[i]) !=
			MHD_YES)
			q->cut = true;
	if (q->suspended)
		http_request_resume(q);
}

void http_answer(struct http_request *q, unsigned int status, const char *content_type,
	const void *body, size_t n)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(n, (void *)body, MHD_RESPMEM_MUST_COPY);

	q->gone = NULL;
	set_answer(q, status, content_type, response);
}

void http_answer_file(
	struct http_request *q, unsigned int status, const char *content_type, int fd, uint64_t n)
{
	struct MHD_Response *response = MHD_create_response_from_fd64(n, fd);

	if (!response)
		(void)close(fd);
	q->gone = NULL;
	set_answer(q, status, content_type, response);
}

void http_answer_json(struct http_request *q, unsigned int status, json_t *value)
{
	CLEANUP_FREE char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
	static const char failed[] = "{\"error\":{\"code\":\"internal\",\"message\":\"out of "
				     "memory\"}}";

	json_decref(value);
	if (text)
		http_answer(q, status, "application/json", text, strlen(text));
	else
		http_answer(q, 500, "application/json", failed, sizeof(failed) - 1);
}

void http_answer_error(struct http_request *q, const struct err *e)
{
	/* RFC 9110 wants the scheme named; without it the answer is still clear. */
	if (e->code == ERR_UNAUTHENTICATED)
		(void)http_answer_header(q, "WWW-Authenticate", "Bearer");
	http_answer_json(q, (unsigned int)err_http_status(e->code), json_from_err(e));
}

void http_request_answer_refusal(struct http_request *q)
{
	q->state = REQUEST_HANDLING;
	q->connection->server->counters.refused++;
	if (q->refused == 401)
		(void)http_answer_header(q, "WWW-Authenticate", "Bearer");
	http_answer_json(q, q->refused, json_from_err(&q->refusal));
}

/* MHD fetches more of a stream. */
static ssize_t read_stream(void *context, uint64_t position, char *out, size_t max)
{
	struct http_request *q = context;
	size_t n = MIN(q->backlog.size - q->taken, max);

	(void)position;
	if (q->cut)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (n == 0 && q->ended)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (n == 0) {
		http_request_suspend(q);
		return 0;
	}
	memcpy(out, q->backlog.data + q->taken, n);
	q->taken += n;
	if (q->taken == q->backlog.size || q->taken >= STREAM_BLOCK) {
		buf_consume(&q->backlog, q->taken);
		q->taken = 0;
	}
	return (ssize_t)n;
}

void http_stream_begin(
	struct http_request *q, const char *content_type, http_gone_fn gone, void *userdata)
{
	struct MHD_Response *response = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, q, NULL);

	q->gone = gone;
	q->userdata = userdata;
	q->streaming = true;
	/* Nothing in between may keep events back. */
	if (response && MHD_add_response_header(response, "Cache-Control", "no-store") != MHD_YES) {
		MHD_destroy_response(response);
		response = NULL;
	}
	set_answer(q, 200, content_type ? content_type : "text/event-stream", response);
}

int http_stream_push(struct http_request *q, const void *bytes, size_t n)
{
	int r;

	assert(q->streaming && !q->ended);
	if (q->cut)
		return -EPIPE;
	r = buf_append(&q->backlog, bytes, n);
	if (r == 0) {
		if (q->suspended)
			http_request_resume(q);
		return 0;
	}
	/* MHD closes the connection when it sees the end that this makes. */
	q->cut = true;
	q->connection->server->counters.slow++;
	(void)shutdown(q->connection->fd, SHUT_RDWR);
	if (q->suspended)
		http_request_resume(q);
	return r == -E2BIG ? -ENOBUFS : r;
}

int http_stream_event(struct http_request *q, const char *id, const char *name, const char *data)
{
	CLEANUP_BUF struct buf text = BUF_INIT(q->backlog.max);
	int r;

	if ((id && strpbrk(id, "\r\n")) || (name && strpbrk(name, "\r\n")))
		return -EINVAL;
	if (id)
		(void)buf_printf(&text, "id: %s\n", id);
	if (name)
		(void)buf_printf(&text, "event: %s\n", name);
	for (;;) {
		size_t n = strcspn(data, "\r\n");

		(void)buf_puts(&text, "data: ");
		(void)buf_append(&text, data, n);
		(void)buf_putc(&text, '\n');
		if (!data[n])
			break;
		data += n + (data[n] == '\r' && data[n + 1] == '\n' ? 2 : 1);
	}
	(void)buf_putc(&text, '\n');
	r = buf_error(&text);
	if (r == -ENOMEM)
		return r;
	/* One that is too long even alone cuts the client off like a backlog that is. */
	return http_stream_push(q, text.data, r < 0 ? q->backlog.max + 1 : text.size);
}

size_t http_stream_backlog(const struct http_request *q)
{
	return q->backlog.size - q->taken;
}

void http_stream_end(struct http_request *q)
{
	assert(q->streaming && !q->ended);
	q->ended = true;
	q->gone = NULL;
	if (q->suspended)
		http_request_resume(q);
}
