/* SPDX-License-Identifier: Apache-2.0 */
#include "store/volumes.h"

#include "store/entity.h"
#include "store/hosts.h"

STORE_DEFINE_NAMES(store_volume_kinds, STORE_VOLUME_KIND_TABLE);
STORE_DEFINE_NAMES(store_volume_states, STORE_VOLUME_STATE_TABLE);

static const struct field volume_fields[] = {
	TEXT(store_volume, id),
	TEXT(store_volume, tenant_id),
	TEXT(store_volume, name),
	ENUM(store_volume, kind, &store_volume_kinds),
	ENUM(store_volume, format, &store_formats),
	INTEGER(store_volume, size),
	REFERENCE(store_volume, host_id),
	REFERENCE(store_volume, instance_id),
	TEXT(store_volume, location),
	INTEGER(store_volume, epoch),
	ENUM(store_volume, state, &store_volume_states),
	INTEGER(store_volume, created),
	INTEGER(store_volume, revision),
};
DEFINE_ENTITY(volume_entity, "volume", "v", store_volume, volume_fields);

int store_volume_create(struct store *s, struct store_volume *volume, struct err *e)
{
	return entity_insert(s, &volume_entity, VOLUME_INSERT, volume, e);
}

int store_volume_get(struct store *s, struct store_scope scope, const char *id,
	struct store_volume *ret, struct err *e)
{
	return entity_get(
		s, &volume_entity, VOLUME_GET, STORE_VALUES(SCOPED_ID(scope, id)), id, ret, e);
}

int store_volume_by_name(struct store *s, const char *tenant_id, const char *name,
	struct store_volume *ret, struct err *e)
{
	return entity_get(s, &volume_entity, VOLUME_BY_NAME,
		STORE_VALUES(store_text(tenant_id), store_text(name)), name, ret, e);
}

int store_volume_list(struct store *s, struct store_scope scope, const char *instance_id,
	const struct store_page *after, struct store_volume *ret, size_t max, struct err *e)
{
	return entity_list(s, &volume_entity, VOLUME_LIST,
		STORE_VALUES(PAGE_VALUES(scope, after, max), store_text(instance_id)), ret, max, e);
}

int store_volume_update(
	struct store *s, struct store_scope scope, struct store_volume *volume, struct err *e)
{
	const char *state = store_name(&store_volume_states, volume->state);
	uint64_t revision = 0;
	int r;

	if (!state)
		return store_doom(s, err_set(e, ERR_INVALID, "volume: no such state"));
	r = store_next_revision(s, &revision, e);
	if (r < 0)
		return r;
	r = entity_update(s, &volume_entity, VOLUME_UPDATE,
		STORE_VALUES(store_text(volume->id), store_integer(volume->revision),
			store_integer(volume->size), store_reference(volume->host_id),
			store_reference(volume->instance_id), store_text(volume->location),
			store_integer(volume->epoch), store_text(state), store_integer(revision),
			store_text(scope_first(scope)), store_text(scope_last(scope))),
		VOLUME_GET, STORE_VALUES(SCOPED_ID(scope, volume->id)), e);
	if (r == 0)
		volume->revision = revision;
	return r;
}

int store_volume_delete(struct store *s, struct store_scope scope, const char *id, struct err *e)
{
	struct store_volume volume;
	int r = store_volume_get(s, scope, id, &volume, e);

	if (r < 0)
		return store_doom(s, r);
	if (volume.instance_id[0])
		return store_doom(
			s, err_set(e, ERR_CONFLICT, "volume %s is attached", volume.name));
	r = store_release_all(s, id, e);
	if (r < 0)
		return r;
	return entity_delete(
		s, &volume_entity, VOLUME_DELETE, STORE_VALUES(SCOPED_ID(scope, id)), e);
}
