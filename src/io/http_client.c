/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl's multi interface on an sd-event loop: curl says which sockets it waits for
 * (CURLMOPT_SOCKETFUNCTION) and when it wants to be called at the latest (CURLMOPT_TIMERFUNCTION);
 * both become event sources, which call curl_multi_socket_action(). Finished calls are collected
 * after each such call, never from inside curl, so that callbacks may start and cancel others.
 */
#include "io/http_client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>

#include "base/str.h"
#include "io/json.h"
#include "io/loop.h"

#define CONNECT_TIMEOUT_NS (10 * NSEC_PER_SEC)
#define TIMEOUT_NS         (60 * NSEC_PER_SEC)

struct http_pending {
	struct http_client *client; /* NULL: http_call() */
	struct http_pending *previous, *next;
	CURL *easy;
	struct curl_slist *headers;
	struct http_reply reply;
	struct http_events events;
	bool wants_events;
	http_data_fn on_data;
	void *on_data_userdata;
	bool streaming; /* the answer is an event stream */
	int failed;     /* why a callback of ours ended the transfer */
	char reason[CURL_ERROR_SIZE];
	http_done_fn done;
	void *userdata;
};

struct http_client {
	sd_event *event;
	CURLM *multi;
	sd_event_source *timer;
	struct http_pending *calls;
	unsigned int count;
	bool dispatching; /* within a done callback */
};

void http_reply_free(struct http_reply *reply)
{
	buf_free(&reply->body);
}

int http_reply_json(const struct http_reply *reply, json_t **ret, struct err *e)
{
	const struct json_limits limits = {.max_bytes = reply->body.max};

	return json_parse(buf_text(&reply->body), reply->body.size, &limits, ret, e);
}

static void pending_free(struct http_pending *p)
{
	if (p->easy)
		curl_easy_cleanup(p->easy);
	curl_slist_free_all(p->headers);
	http_events_free(&p->events);
	http_reply_free(&p->reply);
	free(p);
}
DEFINE_CLEANUP(struct http_pending *, pending_free);

/* What follows "name:" in a header line of n bytes, or NULL; *size without the line's end. */
static const char *header_value(const char *line, size_t n, const char *name, size_t *size)
{
	size_t skip = strlen(name) + 1;

	if (n < skip || line[skip - 1] != ':' || strncasecmp(line, name, skip - 1) != 0)
		return NULL;
	while (skip < n && (line[skip] == ' ' || line[skip] == '\t'))
		skip++;
	while (n > skip && (line[n - 1] == '\r' || line[n - 1] == '\n' || line[n - 1] == ' '))
		n--;
	*size = n - skip;
	return line + skip;
}

static size_t on_header(char *line, size_t one, size_t n, void *userdata)
{
	struct http_pending *p = userdata;
	const char *value;
	char number[24];
	uint64_t seconds;
	size_t size;

	(void)one;
	if (n >= 5 && !strncmp(line, "HTTP/", 5)) {
		/* An interim answer's headers do not count. */
		p->reply.etag[0] = '\0';
		p->reply.retry_after = 0;
		p->streaming = false;
		return n;
	}
	value = header_value(line, n, "ETag", &size);
	if (value && size < sizeof(p->reply.etag)) {
		memcpy(p->reply.etag, value, size);
		p->reply.etag[size] = '\0';
	}
	value = header_value(line, n, "Retry-After", &size);
	if (value && size < sizeof(number)) {
		memcpy(number, value, size);
		number[size] = '\0';
		if (parse_u64(number, UINT32_MAX, &seconds) == 0)
			p->reply.retry_after = (unsigned int)seconds;
	}
	value = header_value(line, n, "Content-Type", &size);
	if (value)
		p->streaming = p->wants_events && size >= 17 &&
			       !strncasecmp(value, "text/event-stream", 17);
	return n;
}

static size_t on_body(char *bytes, size_t one, size_t n, void *userdata)
{
	struct http_pending *p = userdata;
	long status = 0;

	(void)one;
	(void)curl_easy_getinfo(p->easy, CURLINFO_RESPONSE_CODE, &status);
	if (p->streaming && status == 200)
		p->failed = http_events_feed(&p->events, bytes, n);
	else if (p->on_data && status == 200)
		p->failed = p->on_data(bytes, n, p->on_data_userdata);
	else
		p->failed = buf_append(&p->reply.body, bytes, n);
	return p->failed < 0 ? 0 : n;
}

static int add_header(struct http_pending *p, const char *line)
{
	struct curl_slist *longer = curl_slist_append(p->headers, line);

	if (!longer)
		return -ENOMEM;
	p->headers = longer;
	return 0;
}

static int set_headers(struct http_pending *p, const struct http_call *call)
{
	char line[256];
	int n, r = 0;

	if (call->body || call->body_file) {
		n = snprintf(line, sizeof(line), "Content-Type: %s",
			call->content_type ? call->content_type : "application/json");
		if (n < 0 || (size_t)n >= sizeof(line))
			return -EINVAL;
		r = add_header(p, line);
	}
	for (size_t i = 0; r == 0 && i < HTTP_CALL_HEADERS && call->headers[i]; i++)
		r = strpbrk(call->headers[i], "\r\n") ? -EINVAL : add_header(p, call->headers[i]);
	/* The server then may read the body at once, and need not tell us to go on. */
	return r == 0 ? add_header(p, "Expect:") : r;
}

static long to_ms(uint64_t ns, uint64_t fallback)
{
	if (ns == 0)
		ns = fallback;
	return ns == UINT64_MAX ? 0L : (long)(ns / NSEC_PER_MSEC + (ns % NSEC_PER_MSEC != 0));
}

/* Many options, of which any may fail: `failed` says in the end whether one did. */
#define SET(option, value) \
	failed |= curl_easy_setopt(p->easy, CURLOPT_##option, (value)) != CURLE_OK

/* These two say whether it failed. */
static bool set_body(struct http_pending *p, const struct http_call *call)
{
	const char *method = call->method ? call->method : "GET";
	bool failed = false;

	if (call->body) {
		SET(POSTFIELDSIZE_LARGE, (curl_off_t)call->body_size);
		SET(COPYPOSTFIELDS, (const char *)call->body);
	}
	if (call->body_file) {
		SET(UPLOAD, 1L);
		SET(READDATA, call->body_file);
		SET(INFILESIZE_LARGE, (curl_off_t)call->body_size);
	}
	if (!strcmp(method, "HEAD"))
		SET(NOBODY, 1L);
	else
		SET(CUSTOMREQUEST, method);
	return failed;
}

static bool set_options(struct http_pending *p, const struct http_call *call)
{
	bool failed = set_body(p, call);

	SET(URL, call->url);
	SET(PROTOCOLS_STR, "http,https");
	SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(FOLLOWLOCATION, 0L);
	SET(PROXY, "");
	SET(NOSIGNAL, 1L);
	SET(HTTPHEADER, p->headers);
	SET(ERRORBUFFER, p->reason);
	SET(PRIVATE, p);
	SET(HEADERFUNCTION, on_header);
	SET(HEADERDATA, p);
	SET(WRITEFUNCTION, on_body);
	SET(WRITEDATA, p);
	SET(CONNECTTIMEOUT_MS, to_ms(call->connect_timeout_ns, CONNECT_TIMEOUT_NS));
	SET(TIMEOUT_MS, to_ms(call->timeout_ns, TIMEOUT_NS));
	if (call->stall_s) {
		SET(LOW_SPEED_LIMIT, 1L);
		SET(LOW_SPEED_TIME, (long)call->stall_s);
	}
	if (call->unix_path)
		SET(UNIX_SOCKET_PATH, call->unix_path);
	if (call->ca_file) {
		SET(CAINFO, call->ca_file);
		SET(CAPATH, (char *)NULL);
	}
	if (call->bearer) {
		SET(HTTPAUTH, CURLAUTH_BEARER);
		SET(XOAUTH2_BEARER, call->bearer);
	}
	return failed;
}

static int pending_new(const struct http_call *call, struct http_pending **ret)
{
	CLEANUP(pending_free_p) struct http_pending *p = NULL;
	static bool initialised;
	int r;

	if (!call->url || (call->bearer && strpbrk(call->bearer, "\r\n")))
		return -EINVAL;
	if (!initialised && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return -ENOMEM;
	initialised = true;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->reply.body = BUF_INIT(call->max_response ? call->max_response : HTTP_RESPONSE_MAX);
	p->wants_events = call->on_event;
	p->on_data = call->on_data;
	p->on_data_userdata = call->on_data_userdata;
	http_events_init(&p->events, call->on_event, call->on_event_userdata);
	p->easy = curl_easy_init();
	if (!p->easy)
		return -ENOMEM;
	r = set_headers(p, call);
	if (r < 0)
		return r;
	if (set_options(p, call))
		return -EINVAL;
	*ret = TAKE_PTR(p);
	return 0;
}

/* What an HTTP status means that comes without an error body of ours. */
static enum err_code code_of_status(unsigned int status)
{
	for (unsigned int i = 0; i < ERR_CODES; i++)
		if ((unsigned int)err_http_status((enum err_code)i) == status)
			return (enum err_code)i;
	return status >= 500 ? ERR_UNAVAILABLE : ERR_USAGE;
}

static void judge_answer(struct http_reply *reply)
{
	CLEANUP_JSON json_t *body = NULL;

	if (reply->status / 100 == 2 || reply->status == 304)
		return;
	if (http_reply_json(reply, &body, NULL) == 0 && json_to_err(body, &reply->err) == 0)
		return;
	(void)err_set(&reply->err, code_of_status(reply->status),
		"the server answered with HTTP status %u", reply->status);
}

static void judge_failure(struct http_pending *p, CURLcode result)
{
	const char *why = p->reason[0] ? p->reason : curl_easy_strerror(result);
	struct err *e = &p->reply.err;

	p->reply.status = 0;
	if (p->failed == -E2BIG)
		(void)err_set(e, ERR_TOO_LARGE, "the server's answer is too large");
	else if (p->failed < 0)
		(void)err_errno(e, p->failed, "the answer could not be taken");
	else if (result == CURLE_OPERATION_TIMEDOUT)
		(void)err_set(e, ERR_TIMEOUT, "no answer in time: %s", why);
	else if (result == CURLE_URL_MALFORMAT || result == CURLE_UNSUPPORTED_PROTOCOL)
		(void)err_set(e, ERR_USAGE, "the URL is not understood: %s", why);
	else if (result == CURLE_OUT_OF_MEMORY)
		(void)err_set(e, ERR_INTERNAL, "out of memory");
	else
		(void)err_set(e, ERR_UNAVAILABLE, "the server is not reachable: %s", why);
}

static void conclude(struct http_pending *p, CURLcode result)
{
	long status = 0;

	(void)curl_easy_getinfo(p->easy, CURLINFO_RESPONSE_CODE, &status);
	p->reply.status = (unsigned int)status;
	if (result == CURLE_OK)
		judge_answer(&p->reply);
	else
		judge_failure(p, result);
}

int http_call(const struct http_call *call, struct http_reply *ret, struct err *e)
{
	CLEANUP(pending_free_p) struct http_pending *p = NULL;
	int r = pending_new(call, &p);

	if (r < 0)
		return err_errno(e, r, "prepare the HTTP call");
	conclude(p, curl_easy_perform(p->easy));
	if (p->reply.status == 0) {
		if (e)
			*e = p->reply.err;
		return err_set(NULL, p->reply.err.code, "-");
	}
	*ret = p->reply;
	p->reply.body = (struct buf){0};
	return 0;
}

/* Takes the call out of the client. */
static void detach(struct http_pending *p)
{
	struct http_client *c = p->client;

	(void)curl_multi_remove_handle(c->multi, p->easy);
	if (p->next)
		p->next->previous = p->previous;
	if (p->previous)
		p->previous->next = p->next;
	else
		c->calls = p->next;
	c->count--;
}

static void collect(struct http_client *c)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(c->multi, &left))) {
		CLEANUP(pending_free_p) struct http_pending *p = NULL;
		CURLcode result = message->data.result;

		if (message->msg != CURLMSG_DONE ||
			curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &p) != CURLE_OK)
			continue;
		conclude(p, result);
		detach(p);
		c->dispatching = true;
		p->done(&p->reply, p->userdata);
		c->dispatching = false;
	}
}

static int on_socket_ready(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct http_client *c = userdata;
	int running, what = (events & EPOLLIN ? CURL_CSELECT_IN : 0) |
			    (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
			    (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);

	(void)source;
	(void)curl_multi_socket_action(c->multi, fd, what, &running);
	collect(c);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct http_client *c = userdata;
	int running;

	(void)source;
	(void)usec;
	(void)curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	collect(c);
	return 0;
}

/* Curl says what it waits for on a socket; the socket's own pointer is its event source. */
static int set_socket(CURL *easy, curl_socket_t fd, int what, void *userdata, void *socketp)
{
	sd_event_source *source = socketp;
	struct http_client *c = userdata;
	uint32_t events = (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0U) |
			  (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0U);

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		(void)curl_multi_assign(c->multi, fd, NULL);
		loop_drop(&source);
		return 0;
	}
	if (source)
		return sd_event_source_set_io_events(source, events) < 0 ? -1 : 0;
	if (sd_event_add_io(c->event, &source, fd, events, on_socket_ready, c) < 0)
		return -1;
	(void)curl_multi_assign(c->multi, fd, source);
	return 0;
}

static int set_timer(CURLM *multi, long ms, void *userdata)
{
	struct http_client *c = userdata;
	int r;

	(void)multi;
	if (ms < 0)
		r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	else
		r = loop_rearm(c->timer, (uint64_t)ms * NSEC_PER_MSEC);
	return r < 0 ? -1 : 0;
}

int http_client_new(sd_event *event, struct http_client **ret)
{
	CLEANUP(http_client_free_p) struct http_client *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->event = sd_event_ref(event);
	r = loop_after(event, 0, on_timer, c, &c->timer);
	if (r < 0)
		return r;
	c->multi = curl_multi_init();
	if (!c->multi ||
		curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, set_socket) != CURLM_OK ||
		curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c) != CURLM_OK ||
		curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, set_timer) != CURLM_OK ||
		curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c) != CURLM_OK)
		return -ENOMEM;
	*ret = TAKE_PTR(c);
	return 0;
}

void http_client_free(struct http_client *c)
{
	if (!c)
		return;
	assert(!c->dispatching);
	for (struct http_pending *p = c->calls, *next; p; p = next) {
		next = p->next;
		http_cancel(p);
	}
	/* Closes the idle connections, with set_socket() called for each. */
	if (c->multi)
		(void)curl_multi_cleanup(c->multi);
	loop_drop(&c->timer);
	(void)sd_event_unref(c->event);
	free(c);
}

int http_start(struct http_client *c, const struct http_call *call, http_done_fn done,
	void *userdata, struct http_pending **ret)
{
	CLEANUP(pending_free_p) struct http_pending *p = NULL;
	int r;

	if (c->count >= HTTP_CALLS_MAX)
		return -EBUSY;
	r = pending_new(call, &p);
	if (r < 0)
		return r;
	p->client = c;
	p->done = done;
	p->userdata = userdata;
	if (curl_multi_add_handle(c->multi, p->easy) != CURLM_OK)
		return -ENOMEM;
	p->next = c->calls;
	if (p->next)
		p->next->previous = p;
	c->calls = p;
	c->count++;
	if (ret)
		*ret = p;
	(void)TAKE_PTR(p);
	return 0;
}

void http_cancel(struct http_pending *p)
{
	detach(p);
	pending_free(p);
}
