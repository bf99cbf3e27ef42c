/* SPDX-License-Identifier: Apache-2.0 */
#include "store/instances.h"

#include <errno.h>
#include <stdio.h>

#include "store/entity.h"
#include "store/hosts.h"
#include "store/images.h"
#include "store/networks.h"
#include "store/touch.h"

STORE_DEFINE_NAMES(store_desired_states, STORE_DESIRED_TABLE);
STORE_DEFINE_NAMES(store_observed_states, STORE_OBSERVED_TABLE);

static const struct field instance_fields[] = {
	TEXT(store_instance, id),
	TEXT(store_instance, tenant_id),
	TEXT(store_instance, name),
	TEXT(store_instance, image_id),
	REFERENCE(store_instance, group_id),
	REFERENCE(store_instance, host_id),
	INTEGER(store_instance, cores),
	INTEGER(store_instance, memory),
	INTEGER(store_instance, disk),
	ENUM(store_instance, desired, &store_desired_states),
	INTEGER(store_instance, desired_boot),
	INTEGER(store_instance, desired_starts),
	INTEGER(store_instance, desired_revision),
	ENUM(store_instance, observed, &store_observed_states),
	INTEGER(store_instance, observed_boot),
	INTEGER(store_instance, observed_revision),
	INTEGER(store_instance, observed_at),
	TEXT(store_instance, reason),
	INTEGER(store_instance, created),
	INTEGER(store_instance, revision),
};
DEFINE_ENTITY(instance_entity, "instance", "i", store_instance, instance_fields);

int store_instance_create(struct store *s, struct store_instance *instance, const void *user_data,
	size_t user_data_size, struct err *e)
{
	struct store_value extra = store_blob(user_data, user_data_size);
	struct store_instance row = *instance;
	struct store_image image;
	int r;

	if (user_data_size > STORE_USER_DATA_MAX)
		return store_doom(s, err_set(e, ERR_TOO_LARGE, "user data is larger than %d bytes",
					     STORE_USER_DATA_MAX));
	/* The one reference that the schema cannot keep inside the tenant. */
	r = store_image_get(s, store_scope_tenant(row.tenant_id), row.image_id, &image, e);
	if (r < 0)
		return store_doom(s, r);
	r = store_next_revision(s, &row.desired_revision, e);
	if (r == 0)
		r = entity_insert_extra(s, &instance_entity, INSTANCE_INSERT, &row, &extra, 1, e);
	if (r == 0)
		r = store_host_touch(s, HOST_TOUCH_OF_INSTANCE, row.id, e);
	if (r == 0)
		*instance = row;
	return r;
}

int store_instance_get(struct store *s, struct store_scope scope, const char *id,
	struct store_instance *ret, struct err *e)
{
	return entity_get(
		s, &instance_entity, INSTANCE_GET, STORE_VALUES(SCOPED_ID(scope, id)), id, ret, e);
}

int store_instance_by_name(struct store *s, const char *tenant_id, const char *name,
	struct store_instance *ret, struct err *e)
{
	return entity_get(s, &instance_entity, INSTANCE_BY_NAME,
		STORE_VALUES(store_text(tenant_id), store_text(name)), name, ret, e);
}

int store_instance_list(struct store *s, struct store_scope scope, const char *group_id,
	const char *host_id, const struct store_page *after, struct store_instance *ret, size_t max,
	struct err *e)
{
	return entity_list(s, &instance_entity, INSTANCE_LIST,
		STORE_VALUES(
			PAGE_VALUES(scope, after, max), store_text(group_id), store_text(host_id)),
		ret, max, e);
}

int store_instance_user_data(
	struct store *s, struct store_scope scope, const char *id, struct buf *out, struct err *e)
{
	CLEANUP_ROWS struct store_rows rows = {0};
	struct store_value v;
	int r = store_query(s, INSTANCE_USER_DATA, STORE_VALUES(SCOPED_ID(scope, id)), &rows, e);

	if (r == 0)
		r = store_next(&rows, e);
	if (r < 0)
		return r;
	if (r == 0)
		return err_set(e, ERR_NOT_FOUND, "no instance %s", id);
	r = store_column(&rows, 0, STORE_BLOB, &v, e);
	if (r < 0)
		return r;
	r = buf_append(out, v.bytes, v.size);
	return r < 0 ? err_errno(e, r, "read user data") : 0;
}

/* Its host, and the hosts that share its networks. */
static int touch_surroundings(struct store *s, const char *id, struct err *e)
{
	int r = store_host_touch(s, HOST_TOUCH_OF_INSTANCE, id, e);

	return r < 0 ? r : store_network_touch_instance(s, id, e);
}

int store_instance_desire(
	struct store *s, struct store_scope scope, struct store_instance *instance, struct err *e)
{
	const char *desired = store_name(&store_desired_states, instance->desired);
	uint64_t revision = 0;
	int r;

	if (!desired)
		return store_doom(s, err_set(e, ERR_INVALID, "instance: no such state"));
	r = store_next_revision(s, &revision, e);
	if (r < 0)
		return r;
	r = entity_update(s, &instance_entity, INSTANCE_DESIRE,
		STORE_VALUES(store_text(instance->id), store_integer(instance->revision),
			store_text(desired), store_integer(instance->desired_boot),
			store_integer(instance->cores), store_integer(instance->memory),
			store_integer(instance->disk), store_integer(instance->desired_starts),
			store_integer(revision), store_text(scope_first(scope)),
			store_text(scope_last(scope))),
		INSTANCE_GET, STORE_VALUES(SCOPED_ID(scope, instance->id)), e);
	if (r == 0)
		r = store_host_touch(s, HOST_TOUCH_OF_INSTANCE, instance->id, e);
	if (r == 0)
		instance->revision = instance->desired_revision = revision;
	return r;
}

int store_instance_place(
	struct store *s, struct store_instance *instance, const char *host_id, struct err *e)
{
	uint64_t revision = 0;
	int r = touch_surroundings(s, instance->id, e);

	if (r == 0)
		r = store_next_revision(s, &revision, e);
	if (r < 0)
		return r;
	r = entity_update(s, &instance_entity, INSTANCE_PLACE,
		STORE_VALUES(store_text(instance->id), store_integer(instance->revision),
			store_reference(host_id), store_integer(revision)),
		INSTANCE_GET, STORE_VALUES(SCOPED_ID(store_scope_all(), instance->id)), e);
	if (r == 0)
		r = touch_surroundings(s, instance->id, e);
	if (r < 0)
		return r;
	instance->revision = instance->desired_revision = revision;
	(void)snprintf(instance->host_id, sizeof(instance->host_id), "%s", host_id);
	return 0;
}

int store_instance_of_host_since(struct store *s, const char *host_id, uint64_t since,
	struct store_instance *ret, size_t max, struct err *e)
{
	return entity_list(s, &instance_entity, INSTANCE_OF_HOST_SINCE,
		STORE_VALUES(
			store_text(host_id), store_integer(since), store_integer(page_limit(max))),
		ret, max, e);
}

int store_instance_observe(struct store *s, const char *id, const char *host_id,
	const struct store_observation *o, struct err *e)
{
	const char *observed = store_name(&store_observed_states, o->observed);
	char reason[sizeof(((struct store_instance *)0)->reason)];
	uint64_t revision = 0, changed = 0;
	int r;

	if (!observed)
		return store_doom(s, err_set(e, ERR_INVALID, "instance: no such state"));
	(void)snprintf(reason, sizeof(reason), "%s", o->reason ? o->reason : "");
	r = store_next_revision(s, &revision, e);
	if (r == 0)
		r = store_exec(s, INSTANCE_OBSERVE,
			STORE_VALUES(store_text(id), store_text(host_id), store_text(observed),
				store_integer(o->boot), store_integer(o->desired_revision),
				store_integer(store_now(s)), store_text(reason),
				store_integer(revision)),
			&changed, e);
	if (r == 0 && changed == 0)
		return store_doom(s, err_set(e, ERR_NOT_FOUND, "no instance %s on that host", id));
	return r;
}

/* Everything that refers to the instance, in an order that keeps every reference whole. */
static int drop_belongings(struct store *s, const char *id, struct err *e)
{
	static const enum store_query parts[] = {PUBLISHED_PORT_DELETE_OF_INSTANCE,
		PORT_DELETE_OF_INSTANCE, MEMBER_DELETE_OF_INSTANCE};
	uint64_t revision = 0;
	int r = touch_surroundings(s, id, e);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(parts); i++)
		r = store_exec(s, parts[i], STORE_VALUES(store_text(id)), NULL, e);
	if (r == 0)
		r = store_next_revision(s, &revision, e);
	if (r < 0)
		return r;
	r = store_exec(s, VOLUME_DETACH_INSTANCE,
		STORE_VALUES(store_text(id), store_integer(revision)), NULL, e);
	return r < 0 ? r : store_release_all(s, id, e);
}

int store_instance_delete(struct store *s, struct store_scope scope, const char *id, struct err *e)
{
	struct store_instance instance;
	int r = store_instance_get(s, scope, id, &instance, e);

	if (r < 0)
		return store_doom(s, r);
	if (instance.desired != STORE_DESIRED_TERMINATED)
		return store_doom(
			s, err_set(e, ERR_CONFLICT, "instance %s is to be %s", instance.name,
				   store_name(&store_desired_states, instance.desired)));
	r = drop_belongings(s, id, e);
	if (r < 0)
		return r;
	return entity_delete(
		s, &instance_entity, INSTANCE_DELETE, STORE_VALUES(SCOPED_ID(scope, id)), e);
}
