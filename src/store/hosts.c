/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why no host is ever overbooked: a reservation takes what it needs from the host's free counters
 * in one UPDATE that requires them to suffice. Of two that race for the last core, the second
 * waits for the first one's transaction and then reads the counter that it left. The CHECKs of
 * the schema are the second line, store_check() the third.
 */
#include "store/hosts.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "store/entity.h"
#include "store/touch.h"

STORE_DEFINE_NAMES(store_host_states, STORE_HOST_STATE_TABLE);

/* The hosts on which one holder may have reservations: two while it moves. */
#define RESERVATIONS_PER_HOLDER_MAX 16

static const struct field host_fields[] = {
	TEXT(store_host, id),
	TEXT(store_host, name),
	TEXT(store_host, zone),
	INTEGER(store_host, cores),
	INTEGER(store_host, memory),
	INTEGER(store_host, disk),
	INTEGER(store_host, cores_free),
	INTEGER(store_host, memory_free),
	INTEGER(store_host, disk_free),
	TEXT(store_host, cpu_model),
	TEXT(store_host, accel),
	TEXT(store_host, agent_version),
	TEXT(store_host, endpoint),
	ENUM(store_host, state, &store_host_states),
	INTEGER(store_host, last_seen),
	TEXT(store_host, join_token_hash),
	INTEGER(store_host, desired_revision),
	INTEGER(store_host, event_sequence),
	INTEGER(store_host, created),
	INTEGER(store_host, revision),
};
DEFINE_ENTITY(host_entity, "host", "h", store_host, host_fields);

int store_host_create(struct store *s, struct store_host *host, struct err *e)
{
	struct store_host row = *host;
	int r;

	row.cores_free = row.cores;
	row.memory_free = row.memory;
	row.disk_free = row.disk;
	row.desired_revision = row.event_sequence = 0;
	r = entity_insert(s, &host_entity, HOST_INSERT, &row, e);
	if (r == 0)
		*host = row;
	return r;
}

int store_host_get(struct store *s, const char *id, struct store_host *ret, struct err *e)
{
	return entity_get(s, &host_entity, HOST_GET, STORE_VALUES(store_text(id)), id, ret, e);
}

int store_host_by_name(struct store *s, const char *name, struct store_host *ret, struct err *e)
{
	return entity_get(
		s, &host_entity, HOST_BY_NAME, STORE_VALUES(store_text(name)), name, ret, e);
}

int store_host_list(struct store *s, const struct store_page *after, struct store_host *ret,
	size_t max, struct err *e)
{
	return entity_list(s, &host_entity, HOST_LIST,
		STORE_VALUES(store_text(page_id(after)), store_integer(page_limit(max))), ret, max,
		e);
}

int store_host_update(struct store *s, struct store_host *host, struct err *e)
{
	struct store_value v[FIELDS_MAX];
	uint64_t revision = 0;
	int r = entity_values(&host_entity, host, v, e);

	if (r == 0)
		r = store_next_revision(s, &revision, e);
	if (r < 0)
		return store_doom(s, r);
	r = entity_update(s, &host_entity, HOST_UPDATE,
		STORE_VALUES(store_text(host->id), store_integer(host->revision),
			store_text(host->zone), store_text(host->cpu_model),
			store_text(host->accel), store_text(host->agent_version),
			store_text(host->endpoint),
			store_text(store_name(&store_host_states, host->state)),
			store_text(host->join_token_hash), store_integer(host->cores),
			store_integer(host->memory), store_integer(host->disk),
			store_integer(revision)),
		HOST_GET, STORE_VALUES(store_text(host->id)), e);
	if (r == -EINVAL)
		return err_set(
			e, ERR_INVALID, "host %s: more than that is reserved on it", host->name);
	if (r == 0)
		host->revision = revision;
	return r;
}

int store_host_seen(struct store *s, const char *id, struct err *e)
{
	uint64_t changed = 0;
	int r = store_exec(s, HOST_SEEN, STORE_VALUES(store_text(id), store_integer(store_now(s))),
		&changed, e);

	if (r == 0 && changed == 0)
		return store_doom(s, err_set(e, ERR_NOT_FOUND, "no host %s", id));
	return r;
}

int store_host_take_events(struct store *s, const char *id, uint64_t sequence, struct err *e)
{
	return entity_update(s, &host_entity, HOST_TAKE_EVENTS,
		STORE_VALUES(store_text(id), store_integer(sequence)), HOST_GET,
		STORE_VALUES(store_text(id)), e);
}

int store_host_touch(struct store *s, enum store_query q, const char *id, struct err *e)
{
	uint64_t revision = 0;
	int r = store_next_revision(s, &revision, e);

	if (r < 0)
		return r;
	return store_exec(s, q, STORE_VALUES(store_text(id), store_integer(revision)), NULL, e);
}

int store_host_wake(struct store *s, const char *id, struct err *e)
{
	return store_host_touch(s, HOST_WAKE, id, e);
}

int store_host_delete(struct store *s, const char *id, struct err *e)
{
	return entity_delete(s, &host_entity, HOST_DELETE, STORE_VALUES(store_text(id)), e);
}

/* Nothing was taken: says why. */
static int explain_shortage(
	struct store *s, const char *host_id, const struct store_resources *need, struct err *e)
{
	struct store_host host;
	int r = store_host_get(s, host_id, &host, e);

	if (r < 0)
		return store_doom(s, r);
	if (host.state != STORE_HOST_ONLINE)
		return store_doom(
			s, err_set(e, ERR_CONFLICT, "host %s is %s and takes nothing", host.name,
				   store_name(&store_host_states, host.state)));
	return store_doom(
		s, err_set(e, ERR_NO_CAPACITY,
			   "host %s has %" PRIu64 " cores, %" PRIu64 " MiB memory and %" PRIu64
			   " MiB disk free; %" PRIu64 " cores, %" PRIu64 " MiB and %" PRIu64
			   " MiB are needed",
			   host.name, host.cores_free, host.memory_free >> 20, host.disk_free >> 20,
			   need->cores, need->memory >> 20, need->disk >> 20));
}

int store_reserve(struct store *s, const char *holder_id, const char *host_id,
	const struct store_resources *need, struct err *e)
{
	uint64_t taken = 0;
	int r = store_exec(s, HOST_TAKE,
		STORE_VALUES(store_text(host_id), store_integer(need->cores),
			store_integer(need->memory), store_integer(need->disk)),
		&taken, e);

	if (r < 0)
		return r;
	if (taken == 0)
		return explain_shortage(s, host_id, need, e);
	r = store_exec(s, RESERVATION_INSERT,
		STORE_VALUES(store_text(holder_id), store_text(host_id), store_integer(need->cores),
			store_integer(need->memory), store_integer(need->disk),
			store_integer(store_now(s))),
		NULL, e);
	if (r == -EEXIST)
		return err_set(
			e, ERR_CONFLICT, "%s has a reservation on that host already", holder_id);
	return r;
}

/* Deletes the reservation and tells what it held. */
static int drop_reservation(struct store *s, const char *holder_id, const char *host_id,
	struct store_resources *ret, struct err *e)
{
	CLEANUP_ROWS struct store_rows rows = {0};
	struct store_value held[3];
	int r = store_query(s, RESERVATION_DELETE,
		STORE_VALUES(store_text(holder_id), store_text(host_id)), &rows, e);

	if (r == 0)
		r = store_next(&rows, e);
	if (r < 0)
		return r;
	if (r == 0)
		return store_doom(
			s, err_set(e, ERR_NOT_FOUND, "%s has no reservation there", holder_id));
	for (unsigned int i = 0; i < ARRAY_SIZE(held); i++) {
		r = store_column(&rows, i, STORE_INTEGER, &held[i], e);
		if (r < 0)
			return r;
	}
	*ret = (struct store_resources){
		(uint64_t)held[0].integer, (uint64_t)held[1].integer, (uint64_t)held[2].integer};
	return store_next(&rows, e); /* to its end: 0, there is one row at most */
}

int store_release(struct store *s, const char *holder_id, const char *host_id, struct err *e)
{
	struct store_resources held = {0};
	int r = drop_reservation(s, holder_id, host_id, &held, e);

	if (r < 0)
		return r;
	return store_exec(s, HOST_GIVE_BACK,
		STORE_VALUES(store_text(host_id), store_integer(held.cores),
			store_integer(held.memory), store_integer(held.disk)),
		NULL, e);
}

/* The first host behind `after` on which the holder has a reservation. 1 if there is one. */
static int next_reserved_host(struct store *s, const char *holder_id, const char *after,
	char ret[STORE_ID_SIZE], struct err *e)
{
	CLEANUP_ROWS struct store_rows rows = {0};
	struct store_value v;
	int r = store_query(s, RESERVATION_HOSTS,
		STORE_VALUES(store_text(holder_id), store_text(after)), &rows, e);

	if (r == 0)
		r = store_next(&rows, e);
	if (r <= 0)
		return r;
	r = store_column(&rows, 0, STORE_TEXT, &v, e);
	if (r < 0)
		return r;
	assert(v.size < STORE_ID_SIZE);
	memcpy(ret, v.bytes, v.size);
	ret[v.size] = '\0';
	return 1;
}

int store_release_all(struct store *s, const char *holder_id, struct err *e)
{
	char host_id[STORE_ID_SIZE], after[STORE_ID_SIZE] = "";

	for (unsigned int i = 0; i < RESERVATIONS_PER_HOLDER_MAX; i++) {
		int r = next_reserved_host(s, holder_id, after, host_id, e);

		if (r <= 0)
			return r;
		r = store_release(s, holder_id, host_id, e);
		if (r < 0)
			return r;
		memcpy(after, host_id, sizeof(after));
	}
	return store_doom(s, err_set(e, ERR_INTERNAL, "%s has too many reservations", holder_id));
}
