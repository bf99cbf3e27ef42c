/* SPDX-License-Identifier: Apache-2.0 */
#include "store/groups.h"

#include "store/entity.h"
#include "store/touch.h"

STORE_DEFINE_NAMES(store_placements, STORE_PLACEMENT_TABLE);
STORE_DEFINE_NAMES(store_commit_modes, STORE_COMMIT_TABLE);
STORE_DEFINE_NAMES(store_divergences, STORE_DIVERGENCE_TABLE);
STORE_DEFINE_NAMES(store_member_states, STORE_MEMBER_STATE_TABLE);

static const struct field group_fields[] = {
	TEXT(store_group, id),
	TEXT(store_group, tenant_id),
	TEXT(store_group, name),
	INTEGER(store_group, size),
	INTEGER(store_group, min_copies),
	ENUM(store_group, placement, &store_placements),
	ENUM(store_group, commit_mode, &store_commit_modes),
	ENUM(store_group, divergence, &store_divergences),
	INTEGER(store_group, epoch),
	REFERENCE(store_group, source_host_id),
	REFERENCE(store_group, primary_member_id),
	INTEGER(store_group, created),
	INTEGER(store_group, revision),
};
DEFINE_ENTITY(group_entity, "group", "g", store_group, group_fields);

static const struct field member_fields[] = {
	TEXT(store_member, id),
	TEXT(store_member, tenant_id),
	TEXT(store_member, group_id),
	TEXT(store_member, name),
	REFERENCE(store_member, instance_id),
	REFERENCE(store_member, host_id),
	ENUM(store_member, state, &store_member_states),
	TEXT(store_member, reason),
	INTEGER(store_member, created),
	INTEGER(store_member, revision),
};
DEFINE_ENTITY(member_entity, "member", "b", store_member, member_fields);

int store_group_create(struct store *s, struct store_group *group, struct err *e)
{
	return entity_insert(s, &group_entity, GROUP_INSERT, group, e);
}

int store_group_get(struct store *s, struct store_scope scope, const char *id,
	struct store_group *ret, struct err *e)
{
	return entity_get(
		s, &group_entity, GROUP_GET, STORE_VALUES(SCOPED_ID(scope, id)), id, ret, e);
}

int store_group_by_name(struct store *s, const char *tenant_id, const char *name,
	struct store_group *ret, struct err *e)
{
	return entity_get(s, &group_entity, GROUP_BY_NAME,
		STORE_VALUES(store_text(tenant_id), store_text(name)), name, ret, e);
}

int store_group_list(struct store *s, struct store_scope scope, const struct store_page *after,
	struct store_group *ret, size_t max, struct err *e)
{
	return entity_list(s, &group_entity, GROUP_LIST,
		STORE_VALUES(PAGE_VALUES(scope, after, max)), ret, max, e);
}

int store_group_update(
	struct store *s, struct store_scope scope, struct store_group *group, struct err *e)
{
	struct store_value v[FIELDS_MAX];
	uint64_t revision = 0;
	int r = entity_values(&group_entity, group, v, e);

	if (r == 0)
		r = store_next_revision(s, &revision, e);
	if (r < 0)
		return store_doom(s, r);
	r = entity_update(s, &group_entity, GROUP_UPDATE,
		STORE_VALUES(store_text(group->id), store_integer(group->revision),
			store_integer(group->size), store_integer(group->min_copies),
			store_text(store_name(&store_placements, group->placement)),
			store_text(store_name(&store_commit_modes, group->commit_mode)),
			store_text(store_name(&store_divergences, group->divergence)),
			store_integer(revision), store_text(scope_first(scope)),
			store_text(scope_last(scope))),
		GROUP_GET, STORE_VALUES(SCOPED_ID(scope, group->id)), e);
	if (r == 0)
		r = store_host_touch(s, HOST_TOUCH_OF_GROUP, group->id, e);
	if (r == 0)
		group->revision = revision;
	return r;
}

int store_group_reconfigure(struct store *s, const char *id, uint64_t epoch,
	const char *source_host_id, const char *primary_member_id, struct err *e)
{
	uint64_t revision = 0;
	int r = store_host_touch(s, HOST_TOUCH_OF_GROUP, id, e); /* the source that was */

	if (r == 0)
		r = store_next_revision(s, &revision, e);
	if (r < 0)
		return r;
	r = entity_update(s, &group_entity, GROUP_RECONFIGURE,
		STORE_VALUES(store_text(id), store_integer(epoch), store_reference(source_host_id),
			store_reference(primary_member_id), store_integer(revision)),
		GROUP_GET, STORE_VALUES(SCOPED_ID(store_scope_all(), id)), e);
	return r < 0 ? r : store_host_touch(s, HOST_TOUCH_OF_GROUP, id, e);
}

int store_group_delete(struct store *s, struct store_scope scope, const char *id, struct err *e)
{
	return entity_delete(s, &group_entity, GROUP_DELETE, STORE_VALUES(SCOPED_ID(scope, id)), e);
}

int store_member_create(struct store *s, struct store_member *member, struct err *e)
{
	int r = entity_insert(s, &member_entity, MEMBER_INSERT, member, e);

	return r < 0 ? r : store_host_touch(s, HOST_TOUCH_OF_GROUP, member->group_id, e);
}

int store_member_get(struct store *s, struct store_scope scope, const char *id,
	struct store_member *ret, struct err *e)
{
	return entity_get(
		s, &member_entity, MEMBER_GET, STORE_VALUES(SCOPED_ID(scope, id)), id, ret, e);
}

int store_member_list(struct store *s, struct store_scope scope, const char *group_id,
	const struct store_page *after, struct store_member *ret, size_t max, struct err *e)
{
	return entity_list(s, &member_entity, MEMBER_LIST,
		STORE_VALUES(PAGE_VALUES(scope, after, max), store_text(group_id)), ret, max, e);
}

int store_member_update(struct store *s, struct store_member *member, struct err *e)
{
	const char *state = store_name(&store_member_states, member->state);
	uint64_t revision = 0;
	int r;

	if (!state)
		return store_doom(s, err_set(e, ERR_INVALID, "member: no such state"));
	r = store_host_touch(s, HOST_TOUCH_OF_GROUP, member->group_id, e);
	if (r == 0)
		r = store_next_revision(s, &revision, e);
	if (r < 0)
		return r;
	r = entity_update(s, &member_entity, MEMBER_UPDATE,
		STORE_VALUES(store_text(member->id), store_integer(member->revision),
			store_reference(member->host_id), store_text(state),
			store_text(member->reason), store_integer(revision)),
		MEMBER_GET, STORE_VALUES(SCOPED_ID(store_scope_all(), member->id)), e);
	if (r == 0)
		r = store_host_touch(s, HOST_TOUCH_OF_GROUP, member->group_id, e);
	if (r == 0)
		member->revision = revision;
	return r;
}

int store_member_delete(struct store *s, struct store_scope scope, const char *id, struct err *e)
{
	struct store_member member;
	int r = store_member_get(s, scope, id, &member, e);

	if (r == 0)
		r = store_host_touch(s, HOST_TOUCH_OF_GROUP, member.group_id, e);
	if (r < 0)
		return store_doom(s, r);
	return entity_delete(
		s, &member_entity, MEMBER_DELETE, STORE_VALUES(SCOPED_ID(scope, id)), e);
}
