/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agents' side of docs/agent-protocol.md, but for sessions (sessions.c).
 *
 * An agent's report changes rows only where it says something new: a heartbeat with nothing new
 * writes one time and raises no revision, so that a quiet fleet wakes nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/str.h"
#include "sosied/desired.h"
#include "sosied/dispatch.h"
#include "sosied/feed.h"
#include "sosied/hosts.h"
#include "sosied/instances.h"
#include "sosied/routes.h"
#include "store/networks.h"

#define WAIT_MAX_S        30
#define EVENTS_MAX        256
#define EVENT_KIND_MAX    47
#define EVENT_SUBJECT_MAX 31
#define REASON_MAX        1024
#define DATA_FIELDS_MAX   64

static const char *const accels[] = {"kvm", "tcg", NULL};
static const char *const sights[] = {
	"creating", "running", "stopping", "stopped", "failed", "absent", NULL};

static const struct json_field resource_fields[] = {
	{.name = "cores",
		.type = JSON_FIELD_INTEGER,
		.required = JSON_REQUIRED,
		.max = 1 << 16,
		.description = "that guests may have"},
	{.name = "memory_bytes",
		.type = JSON_FIELD_INTEGER,
		.required = JSON_REQUIRED,
		.max = INT64_MAX,
		.description = "that guests may have"},
	{.name = "disk_bytes",
		.type = JSON_FIELD_INTEGER,
		.required = JSON_REQUIRED,
		.max = INT64_MAX,
		.description = "that guests may have"},
	{.name = "cpu_model", .type = JSON_FIELD_STRING, .max = 127, .description = "for people"},
	{0},
};

const struct json_field schema_register[] = {
	{.name = "host",
		.type = JSON_FIELD_NAME,
		.required = JSON_REQUIRED,
		.description = "the host's name"},
	{.name = "zone",
		.type = JSON_FIELD_STRING,
		.max = NAME_MAX_LENGTH,
		.description = "where it stands"},
	{.name = "resources",
		.type = JSON_FIELD_OBJECT,
		.required = JSON_REQUIRED,
		.fields = resource_fields,
		.description = "what it has"},
	{.name = "accel",
		.type = JSON_FIELD_CHOICE,
		.required = JSON_REQUIRED,
		.choices = accels,
		.description = "how guests run"},
	{.name = "agent_version",
		.type = JSON_FIELD_STRING,
		.max = 31,
		.description = "of the agent"},
	{.name = "overlay",
		.type = JSON_FIELD_STRING,
		.max = 127,
		.description = "ADDRESS:PORT where other hosts reach it"},
	{0},
};

static const struct json_field seen_fields[] = {
	{.name = "id",
		.type = JSON_FIELD_NAME,
		.required = JSON_REQUIRED,
		.description = "the instance"},
	{.name = "state",
		.type = JSON_FIELD_CHOICE,
		.required = JSON_REQUIRED,
		.choices = sights,
		.description = "what it is"},
	{.name = "reboots",
		.type = JSON_FIELD_INTEGER,
		.max = INT64_MAX,
		.description = "how many of the reboots asked for are done"},
	{.name = "starts",
		.type = JSON_FIELD_INTEGER,
		.max = INT64_MAX,
		.description = "how many of the starts asked for are done"},
	{.name = "pid", .type = JSON_FIELD_INTEGER, .max = INT64_MAX, .description = "of QEMU"},
	{.name = "reason",
		.type = JSON_FIELD_STRING,
		.max = REASON_MAX,
		.description = "of the state, for people"},
	{.name = "since_ns",
		.type = JSON_FIELD_INTEGER,
		.max = INT64_MAX,
		.description = "since when"},
	{.name = "console_bytes",
		.type = JSON_FIELD_INTEGER,
		.max = INT64_MAX,
		.description = "written to its console"},
	{0},
};
static const struct json_field seen_item = {.name = "instances",
	.type = JSON_FIELD_OBJECT,
	.fields = seen_fields,
	.description = "an instance"};

const struct json_field schema_observed[] = {
	{.name = "boot_id",
		.type = JSON_FIELD_STRING,
		.required = JSON_REQUIRED,
		.max = 64,
		.description = "of the host's kernel"},
	{.name = "revision",
		.type = JSON_FIELD_INTEGER,
		.required = JSON_REQUIRED,
		.max = INT64_MAX,
		.description = "of the desired state that has been acted on"},
	{.name = "instances",
		.type = JSON_FIELD_ARRAY,
		.required = JSON_REQUIRED,
		.max = HOST_INSTANCES_MAX,
		.items = &seen_item,
		.description = "all there are"},
	{.name = "resources",
		.type = JSON_FIELD_OBJECT,
		.fields = resource_fields,
		.description = "what the host has [as before]"},
	{0},
};

static const struct json_field event_fields[] = {
	{.name = "sequence",
		.type = JSON_FIELD_INTEGER,
		.required = JSON_REQUIRED,
		.min = 1,
		.max = INT64_MAX,
		.description = "rising"},
	{.name = "time_ns",
		.type = JSON_FIELD_INTEGER,
		.required = JSON_REQUIRED,
		.max = INT64_MAX,
		.description = "when, since 1970"},
	{.name = "kind",
		.type = JSON_FIELD_NAME,
		.required = JSON_REQUIRED,
		.description = "such as guest.panicked"},
	{.name = "subject",
		.type = JSON_FIELD_STRING,
		.required = JSON_REQUIRED,
		.max = EVENT_SUBJECT_MAX,
		.description = "the instance, or empty: the host"},
	{.name = "data", .type = JSON_FIELD_OBJECT, .max = DATA_FIELDS_MAX, .description = "more"},
	{0},
};
static const struct json_field event_item = {.name = "events",
	.type = JSON_FIELD_OBJECT,
	.fields = event_fields,
	.description = "an event"};

const struct json_field schema_agent_events[] = {
	{.name = "events",
		.type = JSON_FIELD_ARRAY,
		.required = JSON_REQUIRED,
		.max = EVENTS_MAX,
		.items = &event_item,
		.description = "in the order of their sequence"},
	{0},
};

static uint64_t number(const json_t *object, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(object, name));
}

static const char *text(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));

	return s ? s : "";
}

/* ERR_INVALID when more is reserved than there would be. */
static int take_resources(struct store_host *h, const json_t *resources, struct err *e)
{
	uint64_t cores = number(resources, "cores");
	uint64_t memory = number(resources, "memory_bytes"), disk = number(resources, "disk_bytes");

	if (h->cores - h->cores_free > cores || h->memory - h->memory_free > memory ||
		h->disk - h->disk_free > disk)
		return err_set(e, ERR_INVALID, "/resources: more than that is reserved on host %s",
			h->name);
	h->cores = cores;
	h->memory = memory;
	h->disk = disk;
	if (json_object_get(resources, "cpu_model"))
		COPY(h->cpu_model, text(resources, "cpu_model"));
	return 0;
}

static int describe_host(struct call *c, struct store_host *h, struct err *e)
{
	int r = take_resources(h, json_object_get(c->body, "resources"), e);

	if (r < 0)
		return r;
	COPY(h->zone, text(c->body, "zone"));
	COPY(h->accel, text(c->body, "accel"));
	COPY(h->agent_version, text(c->body, "agent_version"));
	COPY(h->endpoint, text(c->body, "overlay"));
	return 0;
}

/* The hosts that share networks with its instances are told where it is to be reached now. */
static int tell_neighbours(struct call *c, const struct store_host *h, struct err *e)
{
	CLEANUP_FREE struct store_instance *rows = NULL;
	int r = 0, n = host_instances(c->d, h->id, &rows, e);

	for (int i = 0; r == 0 && i < n; i++)
		r = store_network_touch_instance(c->d->store, rows[i].id, e);
	return n < 0 ? n : r;
}

static int enrol(struct call *c, struct store_host *h, struct err *e)
{
	struct store_host row = {.state = STORE_HOST_ENROLLED};
	int r;

	if (c->token.role != STORE_ROLE_JOIN)
		return err_set(e, ERR_FORBIDDEN, "a new host joins with a join token");
	COPY(row.name, text(c->body, "host"));
	r = describe_host(c, &row, e);
	if (r == 0)
		r = store_host_create(c->d->store, &row, e);
	/* So that no revision is 0: an agent that says 0 knows nothing and is answered. */
	if (r == 0)
		r = store_host_wake(c->d->store, row.id, e);
	if (r == 0)
		r = event_add(c->d->store, "", "host.enrolled", row.id,
			json_pack("{s:s}", "name", row.name), e);
	if (r == 0)
		*h = row;
	return r;
}

static int enrol_again(struct call *c, struct store_host *h, struct err *e)
{
	char endpoint[sizeof(h->endpoint)];
	int r;

	if (c->token.role != STORE_ROLE_JOIN && strcmp(c->token.host_id, h->id) != 0)
		return err_set(e, ERR_FORBIDDEN, "the name %s is another host's", h->name);
	COPY(endpoint, h->endpoint);
	r = describe_host(c, h, e);
	if (r == 0)
		r = store_host_update(c->d->store, h, e);
	if (r == 0 && strcmp(endpoint, h->endpoint) != 0)
		r = tell_neighbours(c, h, e);
	return r;
}

/* A new token in place of the ones before. */
static int give_token(
	struct call *c, const struct store_host *h, char secret[SECRET_SIZE], struct err *e)
{
	struct store_token token = {.role = STORE_ROLE_AGENT};
	int r = host_revoke(c->d, h->id, "", e);

	if (r == 0)
		r = secret_new(c->d, secret, token.hash, e);
	if (r < 0)
		return r;
	COPY(token.host_id, h->id);
	copy_utf8(token.comment, sizeof(token.comment), h->name);
	return store_token_create(c->d->store, &token, e);
}

int route_agent_register(struct call *c, json_t **ret, struct err *e)
{
	char secret[SECRET_SIZE];
	struct store_host h = {0};
	struct err why = {0};
	int r = store_host_by_name(c->d->store, text(c->body, "host"), &h, &why);

	if (r < 0 && why.code != ERR_NOT_FOUND) {
		*e = why;
		return r;
	}
	r = r < 0 ? enrol(c, &h, e) : enrol_again(c, &h, e);
	if (r < 0)
		return r;
	/* With its own token it keeps that: an answer that is lost must not lock it out. */
	if (c->token.role == STORE_ROLE_JOIN)
		r = give_token(c, &h, secret, e);
	else
		copy_text(secret, sizeof(secret), http_bearer(c->request));
	if (r == 0)
		*ret = json_pack("{s:s,s:s}", "host_id", h.id, "token", secret);
	explicit_bzero(secret, sizeof(secret));
	return r;
}

/* "revision" or the like, and "wait", of a long poll. */
static int parse_wait(
	struct call *c, const char *name, uint64_t *ret, unsigned int *ret_wait, struct err *e)
{
	const char *position = http_query(c->request, name), *wait = http_query(c->request, "wait");
	uint64_t n = 0, seconds = 0;

	if (position && parse_u64(position, INT64_MAX, &n) < 0)
		return err_set(e, ERR_INVALID, "'%s' is a number", name);
	if (wait && parse_u64(wait, WAIT_MAX_S, &seconds) < 0)
		return err_set(e, ERR_INVALID, "'wait' is from 0 to %d", WAIT_MAX_S);
	*ret = n;
	*ret_wait = (unsigned int)seconds;
	return 0;
}

int route_agent_desired(struct call *c, json_t **ret, struct err *e)
{
	struct store_host h = {0};
	unsigned int wait_s = 0;
	uint64_t known = 0;
	int r = parse_wait(c, "revision", &known, &wait_s, e);

	if (r == 0)
		r = store_host_get(c->d->store, c->token.host_id, &h, e);
	if (r < 0)
		return r;
	if (!http_query(c->request, "revision") || h.desired_revision != known)
		return desired_state(c->d, &h, ret, e);
	return feed_desired(c, known, wait_s, e);
}

/* What the agent says of one instance. Of one that is not its host's, nothing. */
static int observe(struct call *c, const json_t *seen, uint64_t revision, struct err *e)
{
	struct store_observation o = {.desired_revision = revision};
	char reason[sizeof(((struct store_instance *)0)->reason)];
	struct store_instance i = {0};
	struct err why = {0};
	int r = store_instance_get(c->d->store, store_scope_all(), text(seen, "id"), &i, &why);

	if (r < 0 && why.code != ERR_NOT_FOUND) {
		*e = why;
		return r;
	}
	if (r < 0 || strcmp(i.host_id, c->token.host_id) != 0)
		return 0;
	o.observed = word(&store_observed_states, text(seen, "state"));
	o.boot = number(seen, "reboots");
	copy_utf8(reason, sizeof(reason), text(seen, "reason"));
	o.reason = reason;
	if (o.observed == i.observed && o.boot == i.observed_boot && !strcmp(reason, i.reason) &&
		(i.observed_revision >= i.desired_revision || revision < i.desired_revision))
		return 0;
	r = store_instance_observe(c->d->store, i.id, c->token.host_id, &o, e);
	return r < 0 ? r : instance_observed(c->d, &i, e);
}

/* The host lives: it was never or no longer known to. */
static int revive(struct call *c, const struct store_host *before, struct err *e)
{
	bool was_heard = host_heard(c->d, before);
	struct store_host h = {0};
	int r = store_host_get(c->d->store, before->id, &h, e);

	if (r == 0 && (h.state == STORE_HOST_ENROLLED || h.state == STORE_HOST_OFFLINE)) {
		h.state = STORE_HOST_ONLINE;
		was_heard = false;
		r = store_host_update(c->d->store, &h, e);
	}
	if (r < 0 || was_heard)
		return r;
	r = event_add(c->d->store, "", "host.online", h.id, json_pack("{s:s}", "name", h.name), e);
	return r < 0 ? r : host_turned(c->d, &h, "instance.found", e);
}

static int update_resources(struct call *c, const json_t *resources, struct err *e)
{
	struct store_host h = {0}, was;
	struct err why = {0};
	int r = store_host_get(c->d->store, c->token.host_id, &h, e);

	if (r < 0 || !resources)
		return r;
	was = h;
	/* A host that lost memory still lives: what it says counts once what it promised is gone.
	 */
	if (take_resources(&h, resources, &why) < 0) {
		log_data(LOG_WARNING, "host has less than is reserved on it", " host=%s", h.name);
		return 0;
	}
	if (h.cores == was.cores && h.memory == was.memory && h.disk == was.disk &&
		!strcmp(h.cpu_model, was.cpu_model))
		return 0;
	return store_host_update(c->d->store, &h, e);
}

int route_agent_observed(struct call *c, json_t **ret, struct err *e)
{
	const json_t *list = json_object_get(c->body, "instances");
	uint64_t revision = number(c->body, "revision");
	struct store_host h = {0};
	int r = store_host_get(c->d->store, c->token.host_id, &h, e);

	if (r == 0)
		r = store_host_seen(c->d->store, h.id, e);
	if (r == 0)
		r = update_resources(c, json_object_get(c->body, "resources"), e);
	for (size_t i = 0; r == 0 && i < json_array_size(list); i++)
		r = observe(c, json_array_get(list, i), revision, e);
	/* After what it says of its instances, so that groups are looked at with that. */
	if (r == 0)
		r = revive(c, &h, e);
	if (r == 0)
		r = store_host_get(c->d->store, h.id, &h, e);
	if (r == 0)
		*ret = json_pack("{s:o}", "desired_revision", json_u64(h.desired_revision));
	return r;
}

/* An event of the host's own, or of an instance on it, which is its tenant's. */
static int take_event(struct call *c, const json_t *event, struct err *e)
{
	const char *subject = text(event, "subject"), *kind = text(event, "kind");
	struct store_instance i = {0};
	json_t *data;

	if (strlen(kind) > EVENT_KIND_MAX)
		return err_set(e, ERR_INVALID, "/events/kind: longer than %d", EVENT_KIND_MAX);
	if (!*subject ||
		store_instance_get(c->d->store, store_scope_all(), subject, &i, NULL) < 0 ||
		strcmp(i.host_id, c->token.host_id) != 0)
		i = (struct store_instance){0};
	data = json_pack("{s:s,s:o,s:O?}", "host", c->token.host_id, "time",
		json_time(number(event, "time_ns")), "data", json_object_get(event, "data"));
	return event_add(
		c->d->store, i.tenant_id, kind, i.id[0] ? i.id : c->token.host_id, data, e);
}

int route_agent_events(struct call *c, json_t **ret, struct err *e)
{
	const json_t *list = json_object_get(c->body, "events");
	struct store_host h = {0};
	uint64_t last;
	int r = store_host_get(c->d->store, c->token.host_id, &h, e);

	last = r < 0 ? 0 : h.event_sequence;
	for (size_t i = 0; r == 0 && i < json_array_size(list); i++) {
		const json_t *event = json_array_get(list, i);

		if (number(event, "sequence") <= last)
			continue;
		last = number(event, "sequence");
		r = take_event(c, event, e);
	}
	if (r == 0 && last > h.event_sequence)
		r = store_host_take_events(c->d->store, h.id, last, e);
	if (r == 0)
		*ret = json_pack("{s:o}", "acknowledged", json_u64(last));
	return r;
}

/* The image, if an instance on the token's host is made of it. */
static int find_image(struct call *c, struct store_image *ret, struct err *e)
{
	CLEANUP_FREE struct store_instance *rows = NULL;
	const char *name = c->params[0];
	int n = host_instances(c->d, c->token.host_id, &rows, e);

	for (int i = 0; i < n; i++) {
		struct store_image image = {0};
		int r = store_image_get(
			c->d->store, store_scope_all(), rows[i].image_id, &image, e);

		if (r < 0)
			return r;
		if (!strcmp(image.id, name) || !strcmp(image.name, name)) {
			*ret = image;
			return 0;
		}
	}
	return n < 0 ? n : err_set(e, ERR_NOT_FOUND, "the host needs no image %s", name);
}

int route_agent_image(struct call *c, json_t **ret, struct err *e)
{
	CLEANUP_CLOSE int fd = -1;
	const char *known = http_header(c->request, "If-None-Match");
	struct store_image image = {0};
	char etag[STORE_HASH_SIZE + 2];
	struct stat st;
	int r = find_image(c, &image, e);

	(void)ret;
	if (r < 0)
		return r;
	(void)snprintf(etag, sizeof(etag), "\"%s\"", image.sha256);
	(void)http_answer_header(c->request, "ETag", etag);
	if (known && !strcmp(known, etag)) {
		http_answer(c->request, 304, "application/octet-stream", "", 0);
		return CALL_LATER;
	}
	fd = open(image.path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, -errno, "open the image's file");
	http_answer_file(
		c->request, 200, "application/octet-stream", TAKE_FD(fd), (uint64_t)st.st_size);
	return CALL_LATER;
}
