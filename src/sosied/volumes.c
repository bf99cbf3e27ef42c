/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local volumes: room that is reserved on a host, and to which instance it belongs. Hosts are not
 * told of volumes yet: the desired state names none, so that no guest has one as a disk.
 */
#include <errno.h>
#include <string.h>

#include "sosied/instances.h"
#include "sosied/routes.h"
#include "store/volumes.h"

#define VOLUME_MIB_MAX (64LL << 20)
#define MIB            (1ULL << 20)

const struct json_field schema_volume[] = {
	{.name = "name",
		.type = JSON_FIELD_NAME,
		.required = JSON_REQUIRED,
		.description = "the volume's name"},
	{.name = "size_mib",
		.type = JSON_FIELD_INTEGER,
		.required = JSON_REQUIRED,
		.min = 1,
		.max = VOLUME_MIB_MAX,
		.description = "how large"},
	{.name = "instance",
		.type = JSON_FIELD_NAME,
		.description = "on whose host it is to be [on the one with most room]"},
	{0},
};

const struct json_field schema_attach[] = {
	{.name = "instance",
		.type = JSON_FIELD_NAME,
		.required = JSON_REQUIRED,
		.description = "id or name, of an instance on the volume's host"},
	{0},
};

static json_t *volume_view(struct call *c, const void *row)
{
	const struct store_volume *v = row;
	struct store_instance instance = {0};
	struct store_tenant tenant = {0};
	struct store_host host = {0};

	(void)store_tenant_get(c->d->store, v->tenant_id, &tenant, NULL);
	if (v->host_id[0])
		(void)store_host_get(c->d->store, v->host_id, &host, NULL);
	if (v->instance_id[0])
		(void)store_instance_get(
			c->d->store, store_scope_all(), v->instance_id, &instance, NULL);
	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:o,s:s,s:o,s:o}", "id", v->id, "name",
		v->name, "tenant", tenant.name, "kind", store_name(&store_volume_kinds, v->kind),
		"format", store_name(&store_formats, v->format), "size", json_u64(v->size), "host",
		json_or_null(host.name), "instance", json_or_null(instance.name), "state",
		store_name(&store_volume_states, v->state), "created", json_time(v->created),
		"revision", json_u64(v->revision));
}

static int find(struct call *c, struct store_volume *ret, struct err *e)
{
	const char *name = c->params[0];

	int r = is_id(name) ? store_volume_get(c->d->store, c->scope, name, ret, e)
			    : store_volume_by_name(c->d->store, c->tenant.id, name, ret, e);

	return r < 0 ? r : call_about(c, ret->tenant_id);
}

static int volume_read(
	struct call *c, const struct store_page *after, void *rows, size_t max, struct err *e)
{
	return store_volume_list(c->d->store, c->scope, "", after, rows, max, e);
}

int route_volumes_list(struct call *c, json_t **ret, struct err *e)
{
	static const struct listing listing = {sizeof(struct store_volume),
		offsetof(struct store_volume, id), offsetof(struct store_volume, tenant_id),
		volume_read, volume_view};

	return call_list(c, &listing, ret, e);
}

int route_volumes_show(struct call *c, json_t **ret, struct err *e)
{
	struct store_volume v = {0};
	int r = find(c, &v, e);

	if (r < 0)
		return r;
	c->revision = v.revision;
	*ret = volume_view(c, &v);
	return 0;
}

/* The host of the instance that is named, or the one with most room. */
static int choose_host(struct call *c, uint64_t size, char ret[STORE_ID_SIZE], struct err *e)
{
	const char *named = json_string_value(json_object_get(c->body, "instance"));
	const struct placement_size need = {.disk = size};
	CLEANUP_FLEET struct fleet fleet = {0};
	struct store_instance instance = {0};
	size_t host;
	int r;

	if (named) {
		r = instance_find(c, named, &instance, e);
		if (r == 0 && !instance.host_id[0])
			return err_set(e, ERR_CONFLICT, "instance %s is on no host", instance.name);
		if (r == 0)
			copy_text(ret, STORE_ID_SIZE, instance.host_id);
		return r;
	}
	r = fleet_read(c->d, &fleet, e);
	if (r == 0)
		r = placement_choose(fleet.view, fleet.n, &need, SPREAD_ANY, 1, &host, e);
	if (r == 0)
		copy_text(ret, STORE_ID_SIZE, fleet.hosts[host].id);
	return r;
}

int route_volumes_create(struct call *c, json_t **ret, struct err *e)
{
	struct store_volume v = {.kind = STORE_VOLUME_LOCAL,
		.format = STORE_FORMAT_RAW,
		.state = STORE_VOLUME_AVAILABLE};
	struct store_resources need = {0};
	int r;

	v.size = need.disk =
		(uint64_t)json_integer_value(json_object_get(c->body, "size_mib")) * MIB;
	COPY(v.tenant_id, c->tenant.id);
	COPY(v.name, json_string_value(json_object_get(c->body, "name")));
	r = choose_host(c, v.size, v.host_id, e);
	if (r == 0)
		r = store_volume_create(c->d->store, &v, e);
	if (r == 0)
		r = store_reserve(c->d->store, v.id, v.host_id, &need, e);
	if (r == 0)
		r = event_add(c->d->store, v.tenant_id, "volume.created", v.id,
			json_pack("{s:s}", "name", v.name), e);
	if (r < 0)
		return r;
	c->revision = v.revision;
	*ret = volume_view(c, &v);
	return 0;
}

static int update(
	struct call *c, struct store_volume *v, const char *kind, json_t **ret, struct err *e)
{
	int r = store_volume_update(c->d->store, c->scope, v, e);

	if (r == 0)
		r = event_add(c->d->store, v->tenant_id, kind, v->id,
			json_pack("{s:s}", "name", v->name), e);
	if (r < 0)
		return r;
	c->revision = v->revision;
	*ret = volume_view(c, v);
	return 0;
}

int route_volumes_attach(struct call *c, json_t **ret, struct err *e)
{
	struct store_instance instance = {0};
	struct store_volume v = {0};
	int r = find(c, &v, e);

	if (r == 0)
		r = call_match(c, v.revision, e);
	if (r == 0)
		r = instance_find(
			c, json_string_value(json_object_get(c->body, "instance")), &instance, e);
	if (r < 0)
		return r;
	/* The provider may name any tenant's; the two must be one tenant's all the same. */
	if (strcmp(instance.tenant_id, v.tenant_id) != 0)
		return err_set(e, ERR_NOT_FOUND, "no instance %s", instance.id);
	if (v.instance_id[0])
		return err_set(e, ERR_CONFLICT, "volume %s is attached already", v.name);
	if (instance.desired == STORE_DESIRED_TERMINATED)
		return err_set(e, ERR_CONFLICT, "instance %s is to end", instance.name);
	if (strcmp(instance.host_id, v.host_id) != 0)
		return err_set(e, ERR_CONFLICT, "volume %s and instance %s are on different hosts",
			v.name, instance.name);
	COPY(v.instance_id, instance.id);
	v.state = STORE_VOLUME_ATTACHED;
	v.epoch++;
	return update(c, &v, "volume.attached", ret, e);
}

int route_volumes_detach(struct call *c, json_t **ret, struct err *e)
{
	struct store_volume v = {0};
	int r = find(c, &v, e);

	if (r == 0)
		r = call_match(c, v.revision, e);
	if (r < 0)
		return r;
	if (!v.instance_id[0])
		return err_set(e, ERR_CONFLICT, "volume %s is not attached", v.name);
	v.instance_id[0] = '\0';
	v.state = STORE_VOLUME_AVAILABLE;
	return update(c, &v, "volume.detached", ret, e);
}

int route_volumes_delete(struct call *c, json_t **ret, struct err *e)
{
	struct store_volume v = {0};
	int r = find(c, &v, e);

	(void)ret;
	if (r == 0)
		r = call_match(c, v.revision, e);
	if (r == 0)
		r = store_volume_delete(c->d->store, c->scope, v.id, e);
	if (r < 0)
		return r;
	return event_add(c->d->store, v.tenant_id, "volume.deleted", v.id,
		json_pack("{s:s}", "name", v.name), e);
}
