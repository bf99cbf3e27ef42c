/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two pipes a session, both bounded, both resumable:
 *
 *   client ── POST input ──> [input, by byte offset] ── GET input?offset=N ──> agent
 *   client <── GET output ── [output, by sequence]  <── POST output ────────── agent
 *
 * Input is kept from the last offset that the agent has acknowledged by asking for more. Output
 * pieces are numbered by the agent from 0; one that is known is ignored, a gap refused, and when
 * the client does not read the agent is told to come again. A client that comes back names the
 * last piece it has (Last-Event-ID); pieces already sent give way to new ones first.
 */
#include "sosied/sessions.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "io/digest.h"
#include "sosied/instances.h"
#include "sosied/routes.h"

#define CHUNK_TEXT_MAX (4 * ((SESSION_CHUNK_MAX + 2) / 3))
#define INPUT_TEXT_MAX (4 * ((SESSION_INPUT_MAX + 2) / 3))
#define ARGUMENT_MAX   4096
#define STREAM_AHEAD   (64U << 10)
#define STREAM_AGAIN   (20 * (uint64_t)NSEC_PER_MSEC)
#define SESSION_RANDOM 12

static const char *const kinds[] = {"exec", "console", NULL};
static const char *const streams[] = {"stdout", "stderr", "exit", NULL};

static const struct json_field argument = {.name = "argv",
	.type = JSON_FIELD_STRING,
	.max = ARGUMENT_MAX,
	.description = "an argument"};

const struct json_field schema_session[] = {
	{.name = "kind",
		.type = JSON_FIELD_CHOICE,
		.required = JSON_REQUIRED,
		.choices = kinds,
		.description = "run a program, or open the console"},
	{.name = "argv",
		.type = JSON_FIELD_ARRAY,
		.max = SESSION_ARGV_MAX,
		.items = &argument,
		.description = "of exec: the program and its arguments"},
	{0},
};

const struct json_field schema_input[] = {
	{.name = "data", .type = JSON_FIELD_STRING, .max = INPUT_TEXT_MAX, .description = "base64"},
	{.name = "eof", .type = JSON_FIELD_BOOLEAN, .description = "nothing more comes"},
	{0},
};

const struct json_field schema_output[] = {
	{.name = "sequence",
		.type = JSON_FIELD_INTEGER,
		.required = JSON_REQUIRED,
		.max = INT64_MAX,
		.description = "from 0"},
	{.name = "stream",
		.type = JSON_FIELD_CHOICE,
		.required = JSON_REQUIRED,
		.choices = streams,
		.description = "exit is the last"},
	{.name = "data",
		.type = JSON_FIELD_STRING,
		.max = CHUNK_TEXT_MAX,
		.description = "of stdout and stderr: base64"},
	{.name = "status", .type = JSON_FIELD_INTEGER, .max = 255, .description = "of exit"},
	{.name = "reason",
		.type = JSON_FIELD_STRING,
		.max = 255,
		.description = "of exit: why the program did not run or was ended"},
	{0},
};

struct chunk {
	struct chunk *next;
	uint64_t sequence;
	char stream[8];
	char *text; /* the event's data */
	size_t size;
};

struct session {
	struct sosied *d;
	struct session *next;
	char id[STORE_ID_SIZE];
	char tenant_id[STORE_ID_SIZE];
	char host_id[STORE_ID_SIZE];
	char instance_id[STORE_ID_SIZE];
	char instance[STORE_NAME_SIZE];
	json_t *argv;     /* NULL: console */
	uint64_t used_ns; /* CLOCK_MONOTONIC: when the client was last seen to read */
	bool ended;       /* its exit is known */

	struct buf input;
	uint64_t input_offset; /* of its first byte */
	bool eof;
	struct http_request *taker; /* the agent, waiting for input */
	uint64_t taker_offset;
	sd_event_source *taker_timer;

	struct chunk *first, *last;
	uint64_t next_sequence; /* that the agent is to send */
	uint64_t sent;          /* pieces below have been sent to the client */
	size_t kept;            /* bytes of text in the chunks */
	struct http_request *reader;
	sd_event_source *again;
};

struct sessions {
	struct session *list;
	unsigned int count;
};

static void chunk_free(struct chunk *k)
{
	free(k->text);
	free(k);
}

static void end_taker(struct session *s)
{
	static const struct err over = {.code = ERR_NOT_FOUND, .message = "the session is over"};

	loop_drop(&s->taker_timer);
	if (s->taker)
		http_answer_error(TAKE_PTR(s->taker), &over);
}

/* Takes it out of the list; whoever waits is told. */
static void session_end(struct session *s)
{
	struct sessions *sessions = s->d->sessions;
	struct session **at = &sessions->list;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	sessions->count--;
	end_taker(s);
	if (s->reader)
		http_stream_end(TAKE_PTR(s->reader));
	loop_drop(&s->again);
	for (struct chunk *k = s->first, *next; k; k = next) {
		next = k->next;
		chunk_free(k);
	}
	json_decref(s->argv);
	buf_free(&s->input);
	free(s);
}

int sessions_new(struct sosied *d, struct err *e)
{
	d->sessions = calloc(1, sizeof(*d->sessions));
	return d->sessions ? 0 : err_errno(e, -ENOMEM, "keep sessions");
}

void sessions_free(struct sessions *sessions)
{
	while (sessions && sessions->list)
		session_end(sessions->list);
	free(sessions);
}

/* An agent sees its host's sessions, others their tenant's. */
static bool visible(const struct call *c, const struct session *s)
{
	if (c->token.host_id[0])
		return !strcmp(s->host_id, c->token.host_id);
	return strcmp(s->tenant_id, c->scope.first) >= 0 &&
	       strcmp(s->tenant_id, c->scope.last) <= 0;
}

static int find(struct call *c, struct session **ret, struct err *e)
{
	for (struct session *s = c->d->sessions->list; s; s = s->next)
		if (!strcmp(s->id, c->params[0]) && visible(c, s)) {
			*ret = s;
			return 0;
		}
	(void)err_set(e, ERR_NOT_FOUND, "no session %s", c->params[0]);
	return -ENOENT;
}

static json_t *view(const struct session *s)
{
	return json_pack("{s:s,s:s,s:s,s:s,s:O?,s:b}", "id", s->id, "instance", s->instance_id,
		"instance_name", s->instance, "kind", s->argv ? "exec" : "console", "argv", s->argv,
		"ended", s->ended);
}

json_t *sessions_of_host(struct sosied *d, const char *host_id)
{
	json_t *list = json_array();

	for (const struct session *s = d->sessions->list; s; s = s->next)
		if (!s->ended && !strcmp(s->host_id, host_id))
			(void)json_array_append_new(
				list, json_pack("{s:s,s:s,s:s,s:O?}", "id", s->id, "instance",
					      s->instance_id, "kind", s->argv ? "exec" : "console",
					      "argv", s->argv));
	return list;
}

static void send_output(struct session *s)
{
	for (const struct chunk *k = s->first; k && s->reader; k = k->next) {
		char id[24];

		if (k->sequence < s->sent)
			continue;
		if (http_stream_backlog(s->reader) > STREAM_AHEAD) {
			(void)loop_rearm(s->again, STREAM_AGAIN);
			return;
		}
		(void)snprintf(id, sizeof(id), "%llu", (unsigned long long)k->sequence);
		/* A client that is gone is told of by on_reader_gone(). */
		if (http_stream_event(s->reader, id, k->stream, k->text) < 0)
			return;
		s->sent = k->sequence + 1;
	}
	if (s->reader && s->ended && s->sent == s->next_sequence)
		http_stream_end(TAKE_PTR(s->reader));
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	send_output(userdata);
	return 0;
}

static int make(struct call *c, const struct store_instance *i, struct session **ret, struct err *e)
{
	uint8_t random[SESSION_RANDOM];
	struct session *s = calloc(1, sizeof(*s));
	int r = s ? c->d->source->random(c->d->source->context, random, sizeof(random)) : -ENOMEM;

	if (r == 0)
		r = loop_after(c->d->event, STREAM_AGAIN, on_again, s, &s->again);
	if (r < 0) {
		free(s);
		(void)err_errno(e, r, "make a session");
		return r;
	}
	s->d = c->d;
	s->input = BUF_INIT(SESSION_INPUT_MAX);
	s->used_ns = monotonic_ns(c->d);
	s->id[0] = 's';
	s->id[1] = '-';
	hex_encode(random, sizeof(random), s->id + 2);
	COPY(s->tenant_id, i->tenant_id);
	COPY(s->host_id, i->host_id);
	COPY(s->instance_id, i->id);
	COPY(s->instance, i->name);
	s->argv = json_incref(json_object_get(c->body, "argv"));
	s->next = c->d->sessions->list;
	c->d->sessions->list = s;
	c->d->sessions->count++;
	*ret = s;
	return 0;
}

int route_sessions_create(struct call *c, json_t **ret, struct err *e)
{
	bool exec = !strcmp(json_string_value(json_object_get(c->body, "kind")), "exec");
	size_t arguments = json_array_size(json_object_get(c->body, "argv"));
	struct store_instance i = {0};
	struct session *s = NULL;
	int r = instance_find(c, c->params[0], &i, e);

	if (r < 0)
		return r;
	if (exec != (arguments > 0))
		return err_set(e, ERR_INVALID, "/argv: %s",
			exec ? "which program?" : "a console takes none");
	if (!i.host_id[0] || strcmp(instance_state(c->d, &i), "running") != 0) {
		(void)err_set(e, ERR_CONFLICT, "instance %s is not running but %s", i.name,
			instance_state(c->d, &i));
		return err_hint(e, "wait for it, or start it");
	}
	if (c->d->sessions->count >= SESSIONS_MAX)
		return err_set(e, ERR_LIMIT, "there are %d sessions already", SESSIONS_MAX);
	r = store_host_wake(c->d->store, i.host_id, e);
	if (r == 0)
		r = event_add(c->d->store, i.tenant_id, "session.opened", i.id,
			json_pack("{s:s,s:b}", "name", i.name, "exec", exec), e);
	if (r == 0)
		r = make(c, &i, &s, e);
	if (r == 0)
		*ret = view(s);
	return r;
}

int route_sessions_list(struct call *c, json_t **ret, struct err *e)
{
	json_t *list = json_array();

	(void)e;
	for (const struct session *s = c->d->sessions->list; s; s = s->next)
		if (visible(c, s))
			(void)json_array_append_new(list, view(s));
	*ret = json_pack("{s:o}", "items", list);
	return 0;
}

int route_sessions_delete(struct call *c, json_t **ret, struct err *e)
{
	struct session *s = NULL;
	int r = find(c, &s, e);

	(void)ret;
	if (r == 0)
		r = store_host_wake(c->d->store, s->host_id, e);
	if (r == 0)
		session_end(s);
	return r;
}

static void on_reader_gone(struct http_request *request, void *userdata)
{
	struct session *s = userdata;

	(void)request;
	s->reader = NULL;
	s->used_ns = monotonic_ns(s->d);
}

int route_sessions_output(struct call *c, json_t **ret, struct err *e)
{
	const char *last = http_header(c->request, "Last-Event-ID");
	uint64_t sequence = 0;
	struct session *s = NULL;
	int r = find(c, &s, e);

	(void)ret;
	if (r < 0)
		return r;
	if (last && parse_u64(last, INT64_MAX, &sequence) < 0)
		return err_set(e, ERR_INVALID, "Last-Event-ID is not one of a session");
	if (s->reader)
		return err_set(e, ERR_CONFLICT, "somebody reads session %s already", s->id);
	if (last && sequence >= s->next_sequence)
		return err_set(e, ERR_INVALID, "Last-Event-ID is of no piece that there was");
	sequence = last ? sequence + 1 : 0;
	if (s->first && sequence < s->first->sequence)
		return err_set(e, ERR_CONFLICT, "that part of the output is not kept any more");
	s->sent = sequence;
	s->reader = c->request;
	http_stream_begin(c->request, NULL, on_reader_gone, s);
	(void)loop_rearm(s->again, 0);
	return CALL_LATER;
}

/* Answers the agent with what there is. */
static void give_input(struct session *s)
{
	CLEANUP_BUF struct buf text = BUF_INIT(CHUNK_TEXT_MAX + 1);
	size_t skip = (size_t)(s->taker_offset - s->input_offset);
	size_t n = MIN(s->input.size - skip, (size_t)SESSION_CHUNK_MAX);
	struct http_request *taker = TAKE_PTR(s->taker);
	int r = base64_encode(&text, s->input.data ? s->input.data + skip : "", n);

	loop_drop(&s->taker_timer);
	http_answer_json(taker, 200,
		r < 0 ? NULL
		      : json_pack("{s:I,s:s,s:b}", "offset", (json_int_t)s->taker_offset, "data",
				buf_text(&text), "eof", s->eof && skip + n == s->input.size));
}

static bool has_input(const struct session *s, uint64_t offset)
{
	return s->eof || offset < s->input_offset + s->input.size;
}

int route_sessions_input(struct call *c, json_t **ret, struct err *e)
{
	CLEANUP_BUF struct buf bytes = BUF_INIT(SESSION_INPUT_MAX);
	const char *data = json_string_value(json_object_get(c->body, "data"));
	struct session *s = NULL;
	int r = find(c, &s, e);

	if (r < 0)
		return r;
	r = data ? base64_decode(&bytes, data) : 0;
	if (r < 0)
		return err_set(e, ERR_INVALID, "/data: not base64");
	if (s->eof)
		return err_set(e, ERR_CONFLICT, "the session's input has ended");
	if (bytes.size > SESSION_INPUT_MAX - s->input.size) {
		(void)http_answer_header(c->request, "Retry-After", "1");
		return err_set(e, ERR_LIMIT, "the program does not read its input");
	}
	r = buf_append(&s->input, buf_text(&bytes), bytes.size);
	if (r < 0)
		return err_errno(e, r, "keep input");
	s->eof = json_is_true(json_object_get(c->body, "eof"));
	s->used_ns = monotonic_ns(c->d);
	if (s->taker && has_input(s, s->taker_offset))
		give_input(s);
	*ret = json_pack("{s:o}", "offset", json_u64(s->input_offset + s->input.size));
	return 0;
}

static void on_taker_gone(struct http_request *request, void *userdata)
{
	struct session *s = userdata;

	(void)request;
	s->taker = NULL;
	loop_drop(&s->taker_timer);
}

static int on_taker_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct session *s = userdata;

	(void)source;
	(void)usec;
	http_answer(TAKE_PTR(s->taker), 304, "application/json", "", 0);
	loop_drop(&s->taker_timer);
	return 0;
}

static int parse_input_query(
	struct call *c, uint64_t *ret_offset, uint64_t *ret_wait, struct err *e)
{
	const char *offset = http_query(c->request, "offset"),
		   *wait = http_query(c->request, "wait");

	if (offset && parse_u64(offset, INT64_MAX, ret_offset) < 0)
		return err_set(e, ERR_INVALID, "'offset' is a number of bytes");
	if (wait && parse_u64(wait, SESSION_WAIT_MAX_S, ret_wait) < 0)
		return err_set(e, ERR_INVALID, "'wait' is from 0 to %d", SESSION_WAIT_MAX_S);
	return 0;
}

int route_agent_session_input(struct call *c, json_t **ret, struct err *e)
{
	uint64_t offset = 0, wait_s = 0;
	struct session *s = NULL;
	int r = find(c, &s, e);

	(void)ret;
	if (r == 0)
		r = parse_input_query(c, &offset, &wait_s, e);
	if (r < 0)
		return r;
	if (offset < s->input_offset || offset > s->input_offset + s->input.size)
		return err_set(e, ERR_CONFLICT, "input is kept from %" PRIu64 " on, %zu bytes",
			s->input_offset, s->input.size);
	if (s->taker)
		return err_set(e, ERR_CONFLICT, "somebody waits for this input already");
	buf_consume(&s->input, (size_t)(offset - s->input_offset));
	s->input_offset = s->taker_offset = offset;
	s->taker = c->request;
	if (has_input(s, offset)) {
		give_input(s);
		return CALL_LATER;
	}
	r = loop_after(
		c->d->event, wait_s * (uint64_t)NSEC_PER_SEC, on_taker_timeout, s, &s->taker_timer);
	if (r < 0) {
		s->taker = NULL;
		return err_errno(e, r, "wait for input");
	}
	http_defer(c->request, on_taker_gone, s);
	return CALL_LATER;
}

/* Makes room by forgetting pieces that the client has been sent. */
static bool make_room(struct session *s, size_t size)
{
	while (s->kept + size > SESSION_OUTPUT_MAX && s->first && s->first->sequence < s->sent) {
		struct chunk *k = s->first;

		s->first = k->next;
		if (!s->first)
			s->last = NULL;
		s->kept -= k->size;
		chunk_free(k);
	}
	return s->kept + size <= SESSION_OUTPUT_MAX;
}

static char *chunk_text(struct call *c, const char *stream)
{
	const char *reason = json_string_value(json_object_get(c->body, "reason"));
	const char *data = json_string_value(json_object_get(c->body, "data"));
	CLEANUP_JSON json_t *j = NULL;

	if (strcmp(stream, "exit") != 0)
		return data ? strdup(data) : zalloc(1, 1);
	j = json_pack("{s:I,s:o}", "status", json_integer_value(json_object_get(c->body, "status")),
		"reason", json_or_null(reason ? reason : ""));
	return j ? json_dumps(j, JSON_COMPACT) : NULL;
}

static int append(struct call *c, struct session *s, const char *stream, struct err *e)
{
	struct chunk *k = calloc(1, sizeof(*k));

	if (k)
		k->text = chunk_text(c, stream);
	if (!k || !k->text) {
		free(k);
		return err_errno(e, -ENOMEM, "keep output");
	}
	k->size = strlen(k->text);
	if (!make_room(s, k->size)) {
		chunk_free(k);
		(void)http_answer_header(c->request, "Retry-After", "1");
		return err_set(e, ERR_LIMIT, "the client does not read the output");
	}
	k->sequence = s->next_sequence++;
	COPY(k->stream, stream);
	s->kept += k->size;
	if (s->last)
		s->last->next = k;
	else
		s->first = k;
	s->last = k;
	return 0;
}

int route_agent_session_output(struct call *c, json_t **ret, struct err *e)
{
	CLEANUP_BUF struct buf bytes = BUF_INIT(SESSION_CHUNK_MAX);
	uint64_t sequence = (uint64_t)json_integer_value(json_object_get(c->body, "sequence"));
	const char *stream = json_string_value(json_object_get(c->body, "stream"));
	const char *data = json_string_value(json_object_get(c->body, "data"));
	struct session *s = NULL;
	int r = find(c, &s, e);

	if (r < 0)
		return r;
	if (data && base64_decode(&bytes, data) < 0)
		return err_set(
			e, ERR_INVALID, "/data: not base64 of at most %u bytes", SESSION_CHUNK_MAX);
	if (sequence > s->next_sequence || (s->ended && sequence == s->next_sequence))
		return err_set(e, ERR_CONFLICT, "/sequence: %llu was expected",
			(unsigned long long)s->next_sequence);
	if (sequence == s->next_sequence) {
		r = append(c, s, stream, e);
		if (r < 0)
			return r;
		s->ended = !strcmp(stream, "exit");
		if (s->ended)
			s->used_ns = monotonic_ns(c->d);
		(void)loop_rearm(s->again, 0);
	}
	*ret = json_pack("{s:I}", "acknowledged", (json_int_t)sequence);
	return 0;
}

void sessions_tick(struct sosied *d)
{
	uint64_t now_ns = monotonic_ns(d);
	struct session *next;

	for (struct session *s = d->sessions->list; s; s = next) {
		CLEANUP_TRANSACTION struct store_transaction t = {0};

		next = s->next;
		if (s->reader || s->used_ns + SESSION_IDLE_NS > now_ns)
			continue;
		/* The agent is told by its desired state, and at its next call. */
		if (store_begin(d->store, STORE_WRITE, &t, NULL) == 0 &&
			store_host_wake(d->store, s->host_id, NULL) == 0)
			(void)store_commit(&t, NULL);
		session_end(s);
	}
}
