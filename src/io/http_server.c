/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmicrohttpd (MHD) on an sd-event loop.
 *
 * MHD runs in its external epoll mode: it keeps all sockets in an epoll descriptor of its own, on
 * which the loop waits; when that is readable or MHD's time-out has come, MHD_run() does what can
 * be done and calls back. It has no thread.
 *
 * Invariants:
 * 1. A connection is known to us from MHD's start to its close notification, and owns the one
 *    request in progress on it.
 * 2. A suspended connection is invisible to MHD, which therefore neither times it out nor notices
 *    that its client has gone. While, and only while, it is suspended, a source of ours watches
 *    its socket for a hang-up; the source is dropped before MHD may close the socket.
 * 3. The deadline of a connection runs exactly while it owes us a whole request, whatever trickles
 *    in meanwhile, since MHD's own time-out begins anew with every byte.
 * 4. A response is given to MHD only within MHD's handler callback.
 * 5. MHD must not be stopped with suspended connections: http_server_free() first resumes them,
 *    and every callback refuses from then on.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/str.h"
#include "io/http_server_internal.h"
#include "io/listen.h"
#include "io/loop.h"

/* What MHD needs of a connection's memory beside the headers: its write buffer. */
#define CONNECTION_MEMORY_EXTRA (32U << 10)
/* Largest PEM file. */
#define PEM_MAX        (1U << 20)
#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

static void drive(struct http_server *s)
{
	MHD_UNSIGNED_LONG_LONG ms;

	s->running = true;
	s->again = false;
	(void)MHD_run(s->daemon);
	s->running = false;
	if (s->again)
		(void)loop_rearm(s->timer, 0);
	else if (MHD_get_timeout(s->daemon, &ms) == MHD_YES)
		(void)loop_rearm(s->timer, (uint64_t)ms * NSEC_PER_MSEC);
	else
		(void)sd_event_source_set_enabled(s->timer, SD_EVENT_OFF);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void)source;
	(void)fd;
	(void)events;
	drive(userdata);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	drive(userdata);
	return 0;
}

static int on_hangup(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct http_request *q = userdata;

	(void)source;
	(void)fd;
	(void)events;
	q->cut = true;
	http_request_resume(q);
	return 0;
}

void http_request_suspend(struct http_request *q)
{
	struct connection *c = q->connection;

	assert(!q->suspended);
	MHD_suspend_connection(c->mhd);
	q->suspended = true;
	/* Without the watch a client's leaving would not be noticed: then rather end it now. */
	if (sd_event_add_io(c->server->event, &c->hangup, c->fd, EPOLLRDHUP, on_hangup, q) < 0) {
		q->cut = true;
		http_request_resume(q);
	}
}

void http_request_resume(struct http_request *q)
{
	struct connection *c = q->connection;

	assert(q->suspended);
	loop_drop(&c->hangup);
	q->suspended = false;
	MHD_resume_connection(c->mhd);
	c->server->again = true;
	(void)loop_rearm(c->server->timer, 0);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct connection *c = userdata;

	(void)source;
	(void)usec;
	c->server->counters.timeouts++;
	/* MHD closes the connection when it reads the end that this makes. */
	(void)shutdown(c->fd, SHUT_RDWR);
	return 0;
}

static void describe_peer(struct connection *c, const struct sockaddr *address)
{
	char text[INET6_ADDRSTRLEN] = "?";
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (address && address->sa_family == AF_INET) {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;

		(void)inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
		(void)snprintf(c->peer, sizeof(c->peer), "%s:%u", text, ntohs(v4->sin_port));
	} else if (address && address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;

		(void)inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
		(void)snprintf(c->peer, sizeof(c->peer), "[%s]:%u", text, ntohs(v6->sin6_port));
	} else if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0) {
		c->has_uid = true;
		c->uid = peer.uid;
		(void)snprintf(c->peer, sizeof(c->peer), "unix:pid=%d,uid=%u", peer.pid, peer.uid);
	}
}

static struct connection *connection_new(struct http_server *s, struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info;
	struct connection *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	*c = (struct connection){.server = s, .mhd = mhd};
	info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	c->fd = info ? info->connect_fd : -1;
	info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	describe_peer(c, info ? info->client_addr : NULL);
	if (loop_after(s->event, s->options.timeout_s * (uint64_t)NSEC_PER_SEC, on_deadline, c,
		    &c->deadline) < 0) {
		free(c);
		return NULL;
	}
	c->next = s->connections;
	if (c->next)
		c->next->previous = c;
	s->connections = c;
	s->counters.connections++;
	return c;
}

static void connection_free(struct connection *c)
{
	if (c->request)
		http_request_finish(TAKE_PTR(c->request));
	loop_drop(&c->deadline);
	if (c->next)
		c->next->previous = c->previous;
	if (c->previous)
		c->previous->next = c->next;
	else
		c->server->connections = c->next;
	free(c);
}

static void on_connection(void *context, struct MHD_Connection *mhd, void **connection,
	enum MHD_ConnectionNotificationCode code)
{
	struct http_server *s = context;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		*connection = connection_new(s, mhd);
		return;
	}
	if (*connection)
		connection_free(TAKE_PTR(*connection));
	/* At its limit MHD stops listening, and begins again only when it is run once more. */
	s->again = true;
}

/* MHD decodes path and query in place; what would then be ambiguous is refused beforehand. */
static bool uri_is_clear(const char *uri)
{
	size_t path = strcspn(uri, "?");

	if (uri[0] != '/')
		return false;
	for (size_t i = 0; uri[i]; i++) {
		uint8_t decoded;
		char digits[3];

		if ((unsigned char)uri[i] < 0x20 || uri[i] == 0x7f)
			return false;
		if (uri[i] != '%')
			continue;
		(void)snprintf(digits, sizeof(digits), "%.2s", uri + i + 1);
		if (hex_decode(digits, &decoded, 1) < 0 || decoded == 0)
			return false;
		if (i < path && (decoded < 0x20 || decoded == 0x7f || decoded == '/'))
			return false;
	}
	return true;
}

/* A request begins: MHD has its first line, not yet decoded. Returns its context. */
static void *on_uri(void *context, const char *uri, struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct connection *c = info ? info->socket_context : NULL;
	struct http_server *s = context;

	if (!c)
		return NULL;
	if (c->request)
		http_request_finish(TAKE_PTR(c->request));
	c->request = http_request_new(c);
	if (c->request && strlen(uri) > s->options.max_url)
		http_request_refuse(c->request, 414, ERR_TOO_LARGE, "the URL is too long", "");
	else if (c->request && !uri_is_clear(uri))
		http_request_refuse(c->request, 400, ERR_USAGE,
			"the request's path or query is malformed",
			"it begins with '/', and encodes no control character and no '/'");
	return c->request;
}

static void on_completed(void *context, struct MHD_Connection *mhd, void **request,
	enum MHD_RequestTerminationCode code)
{
	struct http_request *q = *request;
	struct http_server *s = context;

	(void)mhd;
	(void)code;
	if (!q)
		return;
	(void)loop_rearm(q->connection->deadline, s->options.timeout_s * (uint64_t)NSEC_PER_SEC);
	q->connection->request = NULL;
	*request = NULL;
	http_request_finish(q);
}

static enum MHD_Result queue_answer(struct http_request *q)
{
	enum MHD_Result r;

	if (q->cut || !q->response)
		return MHD_NO;
	r = MHD_queue_response(q->connection->mhd, q->status, q->response);
	MHD_destroy_response(TAKE_PTR(q->response));
	return r;
}

static void refuse_with(struct http_request *q, const struct err *why)
{
	http_request_refuse(
		q, (unsigned int)err_http_status(why->code), why->code, why->message, why->hint);
}

static void take_method(struct http_request *q, const char *name)
{
	for (unsigned int i = 0; i < HTTP_METHODS; i++) {
		if (!strcmp(name, http_method_name((enum http_method)i))) {
			q->method = (enum http_method)i;
			return;
		}
	}
	http_request_refuse(q, 501, ERR_USAGE, "this method is not implemented",
		"GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS are");
}

/* Lets the user look at the headers, and refuse. */
static void ask_head(struct http_request *q)
{
	struct http_server *s = q->connection->server;
	struct err why = {.code = ERR_INTERNAL};

	if (s->options.head && !s->stopping && s->options.head(q, s->userdata, &why) < 0)
		refuse_with(q, &why);
}

/* The headers are there. True when the request is to be answered without its body. */
static bool check_head(struct http_request *q, const char *method)
{
	const struct http_server_options *o = &q->connection->server->options;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
		q->connection->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	const char *length = http_header(q, "Content-Length");
	uint64_t size = 0;

	take_method(q, method);
	if (info && info->header_size > o->max_header)
		http_request_refuse(
			q, 431, ERR_TOO_LARGE, "the request's headers are too long", "");
	if (length && http_header(q, "Transfer-Encoding"))
		http_request_refuse(q, 400, ERR_USAGE,
			"the request has both Content-Length and Transfer-Encoding", "");
	if (length && parse_u64(length, UINT64_MAX, &size) < 0)
		http_request_refuse(q, 400, ERR_USAGE, "Content-Length is not a number", "");
	if (!q->refused)
		ask_head(q);
	if (size > (q->part ? q->part_max : o->max_body))
		http_request_refuse(q, 413, ERR_TOO_LARGE, "the request's body is too large", "");
	/* Read a moderate rest, so that a client that first sends and then reads gets its answer.
	 */
	return q->refused && (http_header(q, "Expect") || size > o->max_body + HTTP_DRAIN_MAX);
}

static enum MHD_Result take_part(struct http_request *q, const char *bytes, size_t n)
{
	struct http_server *s = q->connection->server;
	struct err why = {.code = ERR_INTERNAL};

	if (n > q->part_max - q->part_size) {
		http_request_refuse(q, 413, ERR_TOO_LARGE, "the request's body is too large", "");
		return MHD_YES;
	}
	q->part_size += n;
	(void)loop_rearm(q->connection->deadline, s->options.timeout_s * (uint64_t)NSEC_PER_SEC);
	if (q->part(q, bytes, n, q->part_userdata, &why) < 0)
		refuse_with(q, &why);
	return MHD_YES;
}

static enum MHD_Result take_body(struct http_request *q, const char *bytes, size_t n)
{
	int r;

	if (q->refused) {
		q->drained += n;
		return q->drained > q->body.max + HTTP_DRAIN_MAX ? MHD_NO : MHD_YES;
	}
	if (q->part)
		return take_part(q, bytes, n);
	r = buf_append(&q->body, bytes, n);
	if (r == -E2BIG)
		http_request_refuse(q, 413, ERR_TOO_LARGE, "the request's body is too large", "");
	return r == 0 || r == -E2BIG ? MHD_YES : MHD_NO;
}

static enum MHD_Result handle(struct http_request *q)
{
	static const struct err unanswered = {
		.code = ERR_INTERNAL, .message = "the handler gave no answer"};
	struct http_server *s = q->connection->server;

	(void)sd_event_source_set_enabled(q->connection->deadline, SD_EVENT_OFF);
	if (q->refused) {
		http_request_answer_refusal(q);
		return queue_answer(q);
	}
	q->state = REQUEST_HANDLING;
	s->counters.requests++;
	s->handler(q, s->userdata);
	if (q->state == REQUEST_HANDLING)
		http_answer_error(q, &unanswered);
	if (q->state == REQUEST_ANSWERED)
		return queue_answer(q);
	http_request_suspend(q);
	return MHD_YES;
}

/* MHD calls this with the headers, with parts of the body, at its end, and when resumed. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *mhd, const char *url,
	const char *method, const char *version, const char *bytes, size_t *n, void **request)
{
	struct http_server *s = context;
	struct http_request *q = *request;

	(void)mhd;
	(void)version;
	if (!q || s->stopping || q->cut)
		return MHD_NO;
	switch (q->state) {
	case REQUEST_HEAD:
		q->path = url;
		q->state = REQUEST_BODY;
		return check_head(q, method) ? handle(q) : MHD_YES;
	case REQUEST_BODY:
		if (*n == 0)
			return handle(q);
		if (take_body(q, bytes, *n) != MHD_YES)
			return MHD_NO;
		*n = 0;
		return MHD_YES;
	case REQUEST_ANSWERED:
		return queue_answer(q);
	case REQUEST_HANDLING:
	case REQUEST_DEFERRED:
		break;
	}
	return MHD_NO;
}

/* The whole file with a NUL behind it. */
static int read_pem(const char *path, struct buf *out, struct err *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	char block[4096];
	ssize_t n;

	if (fd < 0)
		return err_errno(e, -errno, "open %s", path);
	while ((n = read(fd, block, sizeof(block))) != 0) {
		if (n < 0)
			return err_errno(e, -errno, "read %s", path);
		if (buf_append(out, block, (size_t)n) < 0)
			return err_set(e, ERR_INVALID, "%s is too large for a PEM file", path);
	}
	explicit_bzero(block, sizeof(block));
	return 0;
}

static void forget(struct buf *secret)
{
	if (secret->data)
		explicit_bzero(secret->data, secret->capacity);
	buf_free(secret);
}

static void set_defaults(struct http_server_options *o)
{
#define DEFAULT(member, value) o->member = o->member ? o->member : (value)
	DEFAULT(unix_mode, 0600);
	DEFAULT(address, "127.0.0.1");
	DEFAULT(max_body, 1U << 20);
	DEFAULT(max_header, 16U << 10);
	DEFAULT(max_url, 4U << 10);
	DEFAULT(max_connections, 256);
	DEFAULT(timeout_s, 30);
	DEFAULT(max_backlog, 256U << 10);
#undef DEFAULT
}

/* Gives fd to MHD, which closes it in the end. */
static int start_mhd(struct http_server *s, int fd, const char *cert, const char *key)
{
	const struct http_server_options *o = &s->options;
	unsigned int flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | (cert ? MHD_USE_TLS : 0);
	struct MHD_OptionItem tls[] = {
		{MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)cert},
		{MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)key},
		{MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)TLS_PRIORITIES},
		{MHD_OPTION_END, 0, NULL},
	};

	/* MHD's own time-out comes after ours, so that ours counts; it is for slow readers. */
	s->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET,
		fd, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_NOTIFY_COMPLETED,
		on_completed, s, MHD_OPTION_URI_LOG_CALLBACK, on_uri, s,
		MHD_OPTION_CONNECTION_LIMIT, o->max_connections, MHD_OPTION_CONNECTION_TIMEOUT,
		o->timeout_s + 1, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		o->max_header + CONNECTION_MEMORY_EXTRA, MHD_OPTION_STRICT_FOR_CLIENT, 1,
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_ARRAY, cert ? tls : tls + 3,
		MHD_OPTION_END);
	return s->daemon ? 0 : -EIO;
}

static int start(struct http_server *s, const struct http_server_options *o, struct err *e)
{
	CLEANUP(forget) struct buf cert = BUF_INIT(PEM_MAX);
	CLEANUP(forget) struct buf key = BUF_INIT(PEM_MAX);
	CLEANUP_CLOSE int fd = -1;
	int r;

	if (!o->tls_cert_file != !o->tls_key_file)
		return err_set(e, ERR_INVALID, "TLS needs both a certificate and a key");
	if (o->tls_cert_file) {
		r = read_pem(o->tls_cert_file, &cert, e);
		if (r == 0)
			r = read_pem(o->tls_key_file, &key, e);
		if (r < 0)
			return r;
	}
	if (o->unix_path)
		r = listen_unix(o->unix_path, o->unix_mode, &fd, e);
	else
		r = listen_tcp(o->address, o->port, &fd, &s->port, e);
	if (r < 0)
		return r;
	if (o->unix_path) {
		s->unix_path = strdup(o->unix_path);
		if (!s->unix_path)
			return err_errno(e, -ENOMEM, "start the HTTP server");
	}
	if (start_mhd(s, fd, cert.data, key.data) < 0) {
		(void)err_set(e, ERR_INTERNAL, "the HTTP server does not start");
		if (o->tls_cert_file)
			return err_hint(e, "check certificate and key: %s, %s", o->tls_cert_file,
				o->tls_key_file);
		return -EIO;
	}
	(void)TAKE_FD(fd); /* MHD's from here */
	return 0;
}

static int attach(struct http_server *s, struct err *e)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	int r = -EIO;

	if (info)
		r = sd_event_add_io(s->event, &s->io, info->epoll_fd, EPOLLIN, on_io, s);
	if (r >= 0)
		r = loop_after(s->event, 0, on_timer, s, &s->timer);
	return r < 0 ? err_errno(e, r, "attach the HTTP server to the loop") : 0;
}

int http_server_new(sd_event *event, const struct http_server_options *options,
	http_handler_fn handler, void *userdata, struct http_server **ret, struct err *e)
{
	struct http_server *s = calloc(1, sizeof(*s));
	struct http_server_options o = *options;
	int r;

	if (!s)
		return err_errno(e, -ENOMEM, "make an HTTP server");
	set_defaults(&o);
	s->event = sd_event_ref(event);
	s->handler = handler;
	s->userdata = userdata;
	s->options = o;
	s->options.unix_path = s->options.address = NULL;
	s->options.tls_cert_file = s->options.tls_key_file = NULL;
	r = start(s, &o, e);
	if (r == 0)
		r = attach(s, e);
	if (r < 0) {
		http_server_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

static void stop_mhd(struct http_server *s)
{
	int fd = MHD_quiesce_daemon(s->daemon);

	s->stopping = true;
	for (struct connection *c = s->connections; c; c = c->next)
		if (c->request && c->request->suspended) {
			c->request->cut = true;
			http_request_resume(c->request);
		}
	if (s->timer)
		drive(s);
	MHD_stop_daemon(s->daemon);
	if (fd >= 0)
		(void)close(fd);
}

void http_server_free(struct http_server *s)
{
	if (!s)
		return;
	assert(!s->running);
	if (s->daemon)
		stop_mhd(s);
	loop_drop(&s->io);
	loop_drop(&s->timer);
	if (s->unix_path)
		(void)unlink(s->unix_path);
	free(s->unix_path);
	(void)sd_event_unref(s->event);
	free(s);
}

uint16_t http_server_port(const struct http_server *s)
{
	return s->port;
}

const struct http_server_counters *http_server_counters(const struct http_server *s)
{
	return &s->counters;
}
