/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP: one JSON object a line from QEMU; ours need no line ends, but get them.
 *
 *   GREETING ── {"QMP":…} ──> NEGOTIATING ── return of qmp_capabilities ──> READY
 *       └──────────────────────────┴──────────────┬─────────────────────────┘
 *                                                 v
 *                                              CLOSED
 *
 * Invariants:
 * 1. An outstanding command sits in one slot of a fixed table; its id is a counter that is never
 *    used twice, modulo the table's size its slot. So a reply finds its command without a search,
 *    and a reply to anything else is a violation of the protocol.
 * 2. A command that timed out keeps its slot, without a callback, until QEMU replies: a peer that
 *    never does cannot make us send without bound.
 * 3. Every user callback may free the client. It is then only marked as freed, and goes away when
 *    the outermost entry from the loop returns: each entry holds it with enter() and leave().
 */
#include "io/qmp.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "io/json.h"
#include "io/listen.h"
#include "io/loop.h"

#define GREETING_NS (10 * NSEC_PER_SEC)
#define READ_BLOCK  (16U << 10)
/* Reads at one wake-up, so that one chatty QEMU does not starve the loop. */
#define READS_MAX 16

enum qmp_state {
	QMP_GREETING,
	QMP_NEGOTIATING,
	QMP_READY,
	QMP_CLOSED,
};

struct command {
	struct qmp *qmp;
	bool used;
	uint64_t id;
	qmp_reply_fn reply; /* NULL when nobody waits any more */
	void *userdata;
	sd_event_source *timer;
};

struct qmp {
	sd_event *event;
	int fd;
	enum qmp_state state;
	struct qmp_options options;
	bool oob;
	struct buf input, output;
	size_t scanned; /* bytes of input known to hold no line end */
	uint64_t next_id;
	struct command commands[QMP_OUTSTANDING_MAX];
	sd_event_source *io, *greeting_timer;
	unsigned int entered;
	bool freed;
};

static void destroy(struct qmp *q)
{
	for (size_t i = 0; i < QMP_OUTSTANDING_MAX; i++)
		loop_drop(&q->commands[i].timer);
	loop_drop(&q->io);
	loop_drop(&q->greeting_timer);
	if (q->fd >= 0)
		(void)close(q->fd);
	buf_free(&q->input);
	buf_free(&q->output);
	(void)sd_event_unref(q->event);
	free(q);
}

static void enter(struct qmp *q)
{
	q->entered++;
}

static void leave(struct qmp *q)
{
	if (--q->entered == 0 && q->freed)
		destroy(q);
}

void qmp_free(struct qmp *q)
{
	if (!q)
		return;
	q->freed = true;
	if (q->entered == 0)
		destroy(q);
}

/* Frees the slot and tells its owner. The caller is within enter() and leave(). */
static void end_command(struct command *c, const struct qmp_reply *reply)
{
	qmp_reply_fn callback = c->reply;
	void *userdata = c->userdata;

	loop_drop(&c->timer);
	c->used = false;
	c->reply = NULL;
	if (callback && !c->qmp->freed)
		callback(reply, userdata);
}

static void close_with(struct qmp *q, const struct err *e)
{
	const struct qmp_reply lost = {
		.err = {.code = ERR_UNAVAILABLE,
			.message = "the connection to QEMU ended before its reply"}};

	if (q->state == QMP_CLOSED)
		return;
	q->state = QMP_CLOSED;
	loop_drop(&q->io);
	loop_drop(&q->greeting_timer);
	(void)close(q->fd);
	q->fd = -1;
	for (size_t i = 0; i < QMP_OUTSTANDING_MAX; i++)
		if (q->commands[i].used)
			end_command(&q->commands[i], &lost);
	if (q->options.callbacks.closed && !q->freed)
		q->options.callbacks.closed(q, e, q->options.userdata);
}

static void violated(struct qmp *q, const char *what)
{
	struct err e;

	(void)err_set(&e, ERR_CORRUPT, "QEMU's answer is no QMP: %s", what);
	close_with(q, &e);
}

/* Which of our codes QEMU's error class stands for. */
static enum err_code code_of_class(const char *class)
{
	static const struct {
		const char *class;
		enum err_code code;
	} table[] = {
		{"CommandNotFound", ERR_VERSION},
		{"DeviceNotFound", ERR_NOT_FOUND},
		{"DeviceNotActive", ERR_CONFLICT},
		{"KVMMissingCap", ERR_UNAVAILABLE},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!strcmp(table[i].class, class))
			return table[i].code;
	return ERR_INVALID;
}

static void fill_error(struct qmp_reply *reply, const json_t *error)
{
	const char *class = json_string_value(json_object_get(error, "class"));
	const char *desc = json_string_value(json_object_get(error, "desc"));

	(void)snprintf(reply->class, sizeof(reply->class), "%s", class ? class : "GenericError");
	(void)err_set(&reply->err, code_of_class(reply->class), "%s",
		desc ? desc : "QEMU refused the command without saying why");
}

static void on_capabilities(const struct qmp_reply *reply, void *userdata)
{
	struct qmp *q = userdata;

	if (reply->err.code != ERR_NONE) {
		close_with(q, &reply->err);
		return;
	}
	q->state = QMP_READY;
	loop_drop(&q->greeting_timer);
	if (q->options.callbacks.ready)
		q->options.callbacks.ready(q, q->oob, q->options.userdata);
}

static int send_command(struct qmp *q, const char *verb, const char *command, json_t *arguments,
	uint64_t timeout_ns, qmp_reply_fn reply, void *userdata);

static void take_greeting(struct qmp *q, const json_t *message)
{
	const json_t *greeting = json_object_get(message, "QMP");
	const json_t *offered = json_object_get(greeting, "capabilities");
	json_t *arguments = NULL;

	if (!json_is_object(greeting)) {
		violated(q, "there is no greeting");
		return;
	}
	for (size_t i = 0; q->options.oob && i < json_array_size(offered); i++) {
		const char *name = json_string_value(json_array_get(offered, i));

		if (name && !strcmp(name, "oob"))
			q->oob = true;
	}
	if (q->oob)
		arguments = json_pack("{s:[s]}", "enable", "oob");
	q->state = QMP_NEGOTIATING;
	if (send_command(q, "execute", "qmp_capabilities", arguments, QMP_NO_TIMEOUT,
		    on_capabilities, q) < 0)
		violated(q, "capabilities cannot be negotiated");
}

static void take_event(struct qmp *q, const char *name, const json_t *message)
{
	const json_t *timestamp = json_object_get(message, "timestamp");
	const json_t *seconds = json_object_get(timestamp, "seconds");
	const json_t *microseconds = json_object_get(timestamp, "microseconds");
	struct qmp_event event = {
		.name = name, .data = json_object_get(message, "data"), .timestamp_ns = -1};
	int64_t ns;

	if (json_integer_value(seconds) > 0 && json_integer_value(microseconds) >= 0 &&
		!__builtin_mul_overflow(json_integer_value(seconds), NSEC_PER_SEC, &ns) &&
		json_integer_value(microseconds) < 1000000 &&
		!__builtin_add_overflow(ns, json_integer_value(microseconds) * NSEC_PER_USEC, &ns))
		event.timestamp_ns = ns;
	if (q->options.callbacks.event)
		q->options.callbacks.event(q, &event, q->options.userdata);
}

static void take_reply(struct qmp *q, const json_t *message)
{
	const json_t *id = json_object_get(message, "id");
	const json_t *error = json_object_get(message, "error");
	struct qmp_reply reply = {.result = json_object_get(message, "return")};
	struct command *c;
	uint64_t n;

	/* A real in a message whose big integers made all its numbers reals. */
	if (!json_is_number(id) || json_number_value(id) < 0 || json_number_value(id) > 1e15) {
		violated(q, "a reply without one of our ids");
		return;
	}
	n = (uint64_t)json_number_value(id);
	c = &q->commands[n % QMP_OUTSTANDING_MAX];
	if (!c->used || c->id != n) {
		violated(q, "a reply to no command of ours");
		return;
	}
	if (!reply.result && !json_is_object(error)) {
		violated(q, "a message that is neither reply nor event");
		return;
	}
	if (!reply.result)
		fill_error(&reply, error);
	end_command(c, &reply);
}

static void take_line(struct qmp *q, const char *line, size_t n)
{
	const struct json_limits limits = {
		.max_bytes = QMP_LINE_MAX, .max_depth = QMP_DEPTH_MAX, .big_integers = true};
	CLEANUP_JSON json_t *message = NULL;
	const char *event;
	struct err e;

	if (n == 0)
		return;
	if (json_parse(line, n, &limits, &message, &e) < 0) {
		violated(q, e.message);
		return;
	}
	event = json_string_value(json_object_get(message, "event"));
	if (q->state == QMP_GREETING)
		take_greeting(q, message);
	else if (event)
		take_event(q, event, message);
	else
		take_reply(q, message);
}

static bool is_open(const struct qmp *q)
{
	return q->state != QMP_CLOSED && !q->freed;
}

/* Takes every whole line out of the input. */
static void take_lines(struct qmp *q)
{
	size_t taken = 0;

	while (is_open(q)) {
		char *from = q->input.data + taken;
		char *end = memchr(from + q->scanned, '\n', q->input.size - taken - q->scanned);
		size_t n;

		if (!end)
			break;
		n = (size_t)(end - from);
		q->scanned = 0;
		taken += n + 1;
		take_line(q, from, n > 0 && from[n - 1] == '\r' ? n - 1 : n);
	}
	buf_consume(&q->input, taken);
	q->scanned = q->input.size;
}

static void read_some(struct qmp *q)
{
	char block[READ_BLOCK];

	for (int i = 0; i < READS_MAX && is_open(q); i++) {
		ssize_t n = recv(q->fd, block, sizeof(block), MSG_DONTWAIT);
		struct err e;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			(void)err_set(&e, ERR_UNAVAILABLE, "QEMU closed the connection%s%s",
				n < 0 ? ": " : "", n < 0 ? strerror(errno) : "");
			close_with(q, &e);
			return;
		}
		if (buf_append(&q->input, block, (size_t)n) < 0) {
			violated(q, "a line that is too long");
			return;
		}
		take_lines(q);
	}
}

static int watch(struct qmp *q)
{
	uint32_t events = EPOLLIN | (q->output.size > 0 ? (uint32_t)EPOLLOUT : 0U);

	return sd_event_source_set_io_events(q->io, events);
}

/* A broken connection is noticed by reading, after what QEMU still had to say. */
static void write_some(struct qmp *q)
{
	ssize_t n = 0;

	if (q->output.size > 0)
		n = send(q->fd, q->output.data, q->output.size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0)
		buf_consume(&q->output, (size_t)n);
	else if (n < 0 && errno != EAGAIN && errno != EINTR)
		buf_reset(&q->output);
	(void)watch(q);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct qmp *q = userdata;

	(void)source;
	(void)fd;
	enter(q);
	if (events & EPOLLOUT)
		write_some(q);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		read_some(q);
	leave(q);
	return 0;
}

static int on_no_greeting(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct qmp *q = userdata;
	struct err e;

	(void)source;
	(void)usec;
	enter(q);
	(void)err_set(&e, ERR_TIMEOUT, "QEMU did not greet in time");
	(void)err_hint(&e, "a QMP socket serves one client at a time: is another one connected?");
	close_with(q, &e);
	leave(q);
	return 0;
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct command *c = userdata;
	struct qmp *q = c->qmp;
	qmp_reply_fn callback = c->reply;
	struct qmp_reply reply = {0};

	(void)source;
	(void)usec;
	enter(q);
	c->reply = NULL;
	(void)err_set(&reply.err, ERR_TIMEOUT, "QEMU did not reply in time");
	if (callback)
		callback(&reply, c->userdata);
	leave(q);
	return 0;
}

/* The slot of the next id, which leaves out those whose slot is taken. NULL when all are. */
static struct command *free_slot(struct qmp *q)
{
	for (uint64_t id = q->next_id; id < q->next_id + QMP_OUTSTANDING_MAX; id++) {
		struct command *c = &q->commands[id % QMP_OUTSTANDING_MAX];

		if (!c->used) {
			q->next_id = id;
			return c;
		}
	}
	return NULL;
}

/* Takes arguments. verb: "execute" or "exec-oob". */
static int send_command(struct qmp *q, const char *verb, const char *command, json_t *arguments,
	uint64_t timeout_ns, qmp_reply_fn reply, void *userdata)
{
	CLEANUP_JSON json_t *own = arguments, *message = NULL;
	CLEANUP_FREE char *text = NULL;
	struct command *c = free_slot(q);
	size_t n;
	int r;

	if (!c)
		return -EBUSY;
	message = json_pack("{s:s, s:I}", verb, command, "id", (json_int_t)q->next_id);
	if (!message || (own && json_object_set(message, "arguments", own) < 0))
		return -ENOMEM;
	text = json_dumps(message, JSON_COMPACT);
	if (!text)
		return -ENOMEM;
	n = strlen(text);
	text[n] = '\n'; /* in place of the NUL: the text is sent, not read again */
	if (q->output.size + n + 1 > QMP_OUTPUT_MAX)
		return -ENOBUFS;
	if (timeout_ns != QMP_NO_TIMEOUT) {
		r = loop_after(q->event, timeout_ns, on_timeout, c, &c->timer);
		if (r < 0)
			return r;
	}
	r = buf_append(&q->output, text, n + 1);
	if (r < 0) {
		loop_drop(&c->timer);
		return r;
	}
	*c = (struct command){.qmp = q,
		.used = true,
		.id = q->next_id++,
		.reply = reply,
		.userdata = userdata,
		.timer = c->timer};
	write_some(q);
	return 0;
}

int qmp_execute(struct qmp *q, const char *command, json_t *arguments, uint64_t timeout_ns,
	qmp_reply_fn reply, void *userdata)
{
	if (q->state != QMP_READY) {
		json_decref(arguments);
		return -ENOTCONN;
	}
	return send_command(q, "execute", command, arguments, timeout_ns, reply, userdata);
}

int qmp_execute_oob(struct qmp *q, const char *command, json_t *arguments, uint64_t timeout_ns,
	qmp_reply_fn reply, void *userdata)
{
	if (q->state != QMP_READY || !q->oob) {
		json_decref(arguments);
		return q->state != QMP_READY ? -ENOTCONN : -EOPNOTSUPP;
	}
	return send_command(q, "exec-oob", command, arguments, timeout_ns, reply, userdata);
}

int qmp_open(sd_event *event, int fd, const struct qmp_options *options, struct qmp **ret)
{
	CLEANUP(qmp_free_p) struct qmp *q = calloc(1, sizeof(*q));
	int r;

	if (!q)
		return -ENOMEM;
	*q = (struct qmp){
		.event = sd_event_ref(event),
		.fd = -1,
		.options = *options,
		/* A line and the block that ends it. */
		.input = BUF_INIT(QMP_LINE_MAX + READ_BLOCK),
		.output = BUF_INIT(QMP_OUTPUT_MAX),
		.next_id = 1,
	};
	r = sd_event_add_io(event, &q->io, fd, EPOLLIN, on_io, q);
	if (r < 0)
		return r;
	r = loop_after(event, options->greeting_ns ? options->greeting_ns : GREETING_NS,
		on_no_greeting, q, &q->greeting_timer);
	if (r < 0)
		return r;
	q->fd = fd;
	*ret = TAKE_PTR(q);
	return 0;
}

int qmp_connect(sd_event *event, const char *path, const struct qmp_options *options,
	struct qmp **ret, struct err *e)
{
	CLEANUP_CLOSE int fd = -1;
	int r = connect_unix(path, &fd, e);

	if (r < 0)
		return r;
	r = qmp_open(event, fd, options, ret);
	if (r < 0)
		return err_errno(e, r, "open the QMP connection %s", path);
	(void)TAKE_FD(fd);
	return 0;
}

struct sync_call {
	const char *command;
	json_t *arguments;
	bool done;
	json_t *result;
	struct err err;
};

static void sync_fail(struct sync_call *s, const struct err *e)
{
	if (!s->done)
		s->err = *e;
	s->done = true;
}

static void on_sync_reply(const struct qmp_reply *reply, void *userdata)
{
	struct sync_call *s = userdata;

	if (reply->err.code != ERR_NONE) {
		sync_fail(s, &reply->err);
		return;
	}
	s->done = true;
	s->result = json_incref((json_t *)reply->result);
}

static void on_sync_ready(struct qmp *q, bool oob, void *userdata)
{
	struct sync_call *s = userdata;
	struct err e;
	int r;

	(void)oob;
	r = qmp_execute(q, s->command, TAKE_PTR(s->arguments), QMP_NO_TIMEOUT, on_sync_reply, s);
	if (r < 0) {
		(void)err_errno(&e, r, "execute %s", s->command);
		sync_fail(s, &e);
	}
}

static void on_sync_closed(struct qmp *q, const struct err *e, void *userdata)
{
	(void)q;
	sync_fail(userdata, e);
}

static int on_sync_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct err e;

	(void)source;
	(void)usec;
	(void)err_set(&e, ERR_TIMEOUT, "QEMU did not reply in time");
	sync_fail(userdata, &e);
	return 0;
}

static int sync_run(struct sync_call *s, const char *path, uint64_t timeout_ns)
{
	const struct qmp_options options = {
		.greeting_ns = timeout_ns,
		.callbacks = {.ready = on_sync_ready, .closed = on_sync_closed},
		.userdata = s,
	};
	CLEANUP_EVENT sd_event *event = NULL;
	CLEANUP_SOURCE sd_event_source *timer = NULL;
	CLEANUP(qmp_free_p) struct qmp *q = NULL;
	int r = sd_event_new(&event);

	if (r >= 0)
		r = loop_after(event, timeout_ns, on_sync_timeout, s, &timer);
	if (r < 0)
		return err_errno(&s->err, r, "make a loop");
	r = qmp_connect(event, path, &options, &q, &s->err);
	while (r >= 0 && !s->done)
		r = sd_event_run(event, UINT64_MAX);
	return s->done ? 0 : r;
}

int qmp_call_sync(const char *path, const char *command, json_t *arguments, uint64_t timeout_ns,
	json_t **ret, struct err *e)
{
	CLEANUP_JSON json_t *result = NULL;
	struct sync_call s = {.command = command, .arguments = arguments};
	int r = sync_run(&s, path, timeout_ns);

	json_decref(s.arguments);
	result = s.result;
	if (r < 0 || s.err.code != ERR_NONE) {
		if (s.err.code == ERR_NONE)
			(void)err_errno(&s.err, r, "wait for QEMU");
		if (e)
			*e = s.err;
		return r < 0 ? r : err_set(NULL, s.err.code, "-");
	}
	if (ret)
		*ret = TAKE_PTR(result);
	return 0;
}
