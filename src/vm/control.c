/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events are pulled, not pushed: a client asks for those from a sequence on, and is answered at
 * once or as soon as there is one. So nothing piles up for a slow client, and asking for N says
 * that everything below N has been taken for good, which lets the record forget it.
 */
#include "vm/control.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "io/json.h"
#include "io/lines.h"
#include "io/listen.h"
#include "io/loop.h"

struct client {
	struct control *control;
	struct lines *lines; /* NULL: the place is free */
	bool waiting;        /* for an entry from `from` on */
	int64_t id, from;    /* of the request that waits */
};

struct control {
	sd_event *event;
	struct machine *machine;
	struct record *record;
	int listener;
	sd_event_source *io;
	struct client clients[CONTROL_CLIENTS_MAX];
};

/* Sends an answer with the request's id. answer: taken. */
static void answer(struct client *c, int64_t id, json_t *message)
{
	if (!message || json_object_set_new(message, "id", json_integer(id)) < 0) {
		json_decref(message);
		message = json_pack("{s:I, s:{s:s, s:s}}", "id", (json_int_t)id, "error", "code",
			"internal", "message", "out of memory");
	}
	/* A client that does not read is closed by lines. */
	(void)lines_send(c->lines, message);
}

static int answer_status(struct client *c, const json_t *request, int64_t id, struct err *e)
{
	(void)request;
	(void)e;
	answer(c, id,
		json_pack("{s:o, s:I}", "status", machine_status(c->control->machine), "next",
			(json_int_t)record_next(c->control->record)));
	return 0;
}

static int answer_stop(struct client *c, const json_t *request, int64_t id, struct err *e)
{
	bool force = false;
	int r = json_get_boolean_or(request, "force", false, &force, e);

	if (r == 0)
		r = machine_stop(c->control->machine, force, e);
	if (r == 0)
		answer(c, id, json_object());
	return r;
}

static int answer_reboot(struct client *c, const json_t *request, int64_t id, struct err *e)
{
	int64_t count = 0;
	bool force = false;
	int r = json_get_boolean_or(request, "force", false, &force, e);

	if (r == 0)
		r = json_get_integer(request, "count", 1, INT64_MAX, &count, e);
	if (r == 0)
		r = machine_reboot(c->control->machine, force, (uint64_t)count, e);
	if (r == 0)
		answer(c, id, json_object());
	return r;
}

static int answer_console(struct client *c, const json_t *request, int64_t id, struct err *e)
{
	(void)request;
	(void)e;
	answer(c, id, json_pack("{s:s, s:s}", "socket", "console.sock", "log", "console.log"));
	return 0;
}

struct batch {
	json_t *events;
	size_t bytes;
};

/* 1: enough. */
static int collect(uint64_t sequence, const json_t *entry, void *userdata)
{
	struct batch *b = userdata;
	size_t n = json_dumpb(entry, NULL, 0, JSON_COMPACT);

	(void)sequence;
	if (json_array_size(b->events) > 0 && b->bytes + n > CONTROL_EVENTS_BYTES)
		return 1;
	b->bytes += n;
	if (json_array_append(b->events, (json_t *)entry) < 0)
		return -ENOMEM;
	return json_array_size(b->events) >= CONTROL_EVENTS_MAX;
}

/* Whatever there is from c->from on. */
static int send_events(struct client *c, struct err *e)
{
	struct batch b = {.events = json_array()};
	struct record *record = c->control->record;
	uint64_t first = MAX((uint64_t)c->from, record_first(record));
	int r = b.events ? record_each(record, first, collect, &b) : -ENOMEM;

	c->waiting = false;
	if (r < 0) {
		json_decref(b.events);
		return err_errno(e, r, "read the events");
	}
	first += json_array_size(b.events);
	answer(c, c->id, json_pack("{s:o, s:I}", "events", b.events, "next", (json_int_t)first));
	return 0;
}

static int answer_events(struct client *c, const json_t *request, int64_t id, struct err *e)
{
	struct record *record = c->control->record;
	int64_t from = 0;
	bool wait = false;
	int r = json_get_integer(request, "from", 1, INT64_MAX, &from, e);

	if (r == 0)
		r = json_get_boolean_or(request, "wait", false, &wait, e);
	if (r < 0)
		return r;
	if (c->waiting)
		return err_set(e, ERR_CONFLICT, "another request waits for events already");
	c->id = id;
	c->from = from;
	r = record_forget(record, (uint64_t)from);
	if (r < 0)
		log_control(LOG_WARNING, "the events file cannot be shortened", " why=%s",
			log_quote(strerror(-r)));
	if (!wait || (uint64_t)from < record_next(record))
		return send_events(c, e);
	c->waiting = true;
	return 0;
}

static const struct {
	const char *op;
	int (*answer)(struct client *c, const json_t *request, int64_t id, struct err *e);
} operations[] = {
	{"status", answer_status},
	{"stop", answer_stop},
	{"reboot", answer_reboot},
	{"console", answer_console},
	{"events", answer_events},
};

static int dispatch(struct client *c, const json_t *request, int64_t id, struct err *e)
{
	const char *op = NULL;
	int r = json_get_string(request, "op", 32, &op, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(operations); i++)
		if (!strcmp(operations[i].op, op))
			return operations[i].answer(c, request, id, e);
	return err_set(e, ERR_USAGE, "there is no operation %s", op);
}

static void on_message(struct lines *lines, const json_t *request, void *userdata)
{
	struct client *c = userdata;
	struct err e = {0};
	int64_t id = 0;

	(void)lines;
	if (json_get_integer_or(request, "id", 0, INT64_MAX, 0, &id, &e) < 0 ||
		dispatch(c, request, id, &e) < 0)
		answer(c, id, json_from_err(&e));
}

static void on_closed(struct lines *lines, const struct err *e, void *userdata)
{
	struct client *c = userdata;

	log_control(LOG_DEBUG, "control connection ended", " why=%s", log_quote(e->message));
	lines_free(lines);
	c->lines = NULL;
	c->waiting = false;
}

static int on_connect(sd_event_source *source, int listener, uint32_t events, void *userdata)
{
	static const struct lines_callbacks callbacks = {on_message, on_closed};
	CLEANUP_CLOSE int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct control *k = userdata;

	(void)source;
	(void)events;
	for (size_t i = 0; fd >= 0 && i < CONTROL_CLIENTS_MAX; i++) {
		struct client *c = &k->clients[i];

		if (c->lines)
			continue;
		*c = (struct client){.control = k};
		if (lines_open(k->event, fd, &callbacks, c, &c->lines) == 0)
			(void)TAKE_FD(fd);
		return 0;
	}
	return 0;
}

int control_new(sd_event *event, const char *path, struct machine *machine, struct record *record,
	struct control **ret, struct err *e)
{
	CLEANUP(control_free_p) struct control *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return err_errno(e, -ENOMEM, "make the control socket");
	*k = (struct control){
		.event = sd_event_ref(event), .machine = machine, .record = record, .listener = -1};
	r = listen_unix(path, 0600, &k->listener, e);
	if (r < 0)
		return r;
	r = sd_event_add_io(event, &k->io, k->listener, EPOLLIN, on_connect, k);
	if (r < 0)
		return err_errno(e, r, "watch the control socket");
	*ret = TAKE_PTR(k);
	return 0;
}

void control_free(struct control *k)
{
	if (!k)
		return;
	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
		lines_free(k->clients[i].lines);
	loop_drop(&k->io);
	if (k->listener >= 0)
		(void)close(k->listener);
	(void)sd_event_unref(k->event);
	free(k);
}

void control_written(struct control *k)
{
	struct err e;

	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		struct client *c = &k->clients[i];

		if (c->lines && c->waiting && (uint64_t)c->from < record_next(k->record) &&
			send_events(c, &e) < 0)
			answer(c, c->id, json_from_err(&e));
	}
}
