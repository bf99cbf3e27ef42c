/* SPDX-License-Identifier: Apache-2.0 */
#include "store/events.h"

#include "store/entity.h"

static const struct field event_fields[] = {
	INTEGER(store_event, revision),
	INTEGER(store_event, at),
	TEXT(store_event, tenant_id),
	TEXT(store_event, kind),
	TEXT(store_event, subject),
	TEXT(store_event, data),
};
DEFINE_ENTITY(event_entity, "event", "", store_event, event_fields);

static const struct field audit_fields[] = {
	INTEGER(store_audit, revision),
	INTEGER(store_audit, at),
	TEXT(store_audit, tenant_id),
	TEXT(store_audit, token_id),
	TEXT(store_audit, role),
	TEXT(store_audit, method),
	TEXT(store_audit, path),
	INTEGER(store_audit, status),
	TEXT(store_audit, remote),
};
DEFINE_ENTITY(audit_entity, "audit entry", "", store_audit, audit_fields);

/* Both journals begin with revision and time, which are made here. */
static int append(struct store *s, const struct entity *entity, enum store_query q, const void *row,
	uint64_t *ret_revision, uint64_t *ret_at, struct err *e)
{
	struct store_value values[FIELDS_MAX];
	uint64_t revision = 0, at = store_now(s);
	int r = entity_values(entity, row, values, e);

	if (r == 0)
		r = store_next_revision(s, &revision, e);
	if (r < 0)
		return store_doom(s, r);
	values[0] = store_integer(revision);
	values[1] = store_integer(at);
	r = store_exec(s, q, values, entity->count, NULL, e);
	if (r < 0)
		return r;
	*ret_revision = revision;
	*ret_at = at;
	return 0;
}

#define SINCE_VALUES(scope, since, max)                                                      \
	store_integer(since), store_text(scope_first(scope)), store_text(scope_last(scope)), \
		store_integer(page_limit(max))

int store_event_append(struct store *s, struct store_event *event, struct err *e)
{
	return append(s, &event_entity, EVENT_INSERT, event, &event->revision, &event->at, e);
}

int store_event_since(struct store *s, struct store_scope scope, uint64_t since,
	struct store_event *ret, size_t max, struct err *e)
{
	return entity_list(s, &event_entity, EVENT_SINCE,
		STORE_VALUES(SINCE_VALUES(scope, since, max)), ret, max, e);
}

int store_event_trim(struct store *s, uint64_t before, struct err *e)
{
	return store_exec(s, EVENT_TRIM, STORE_VALUES(store_integer(before)), NULL, e);
}

int store_audit_append(struct store *s, struct store_audit *entry, struct err *e)
{
	return append(s, &audit_entity, AUDIT_INSERT, entry, &entry->revision, &entry->at, e);
}

int store_audit_since(struct store *s, struct store_scope scope, uint64_t since,
	struct store_audit *ret, size_t max, struct err *e)
{
	return entity_list(s, &audit_entity, AUDIT_SINCE,
		STORE_VALUES(SINCE_VALUES(scope, since, max)), ret, max, e);
}

int store_audit_trim(struct store *s, uint64_t before, struct err *e)
{
	return store_exec(s, AUDIT_TRIM, STORE_VALUES(store_integer(before)), NULL, e);
}
