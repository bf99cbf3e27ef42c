/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instances after their launch (which is in launch.c).
 *
 * What is asked of an instance changes only what is wished for; its host makes it so and reports.
 * One that is to end stays in the store until its host has said that nothing is left of it, or
 * the host itself has been declared off for good.
 */
#include "sosied/instances.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sosied/groups.h"
#include "sosied/networks.h"
#include "sosied/routes.h"

static const enum life_wish wishes[] = {
	[STORE_DESIRED_RUNNING] = LIFE_RUNNING,
	[STORE_DESIRED_PAUSED] = LIFE_RUNNING,
	[STORE_DESIRED_STOPPED] = LIFE_STOPPED,
	[STORE_DESIRED_TERMINATED] = LIFE_ENDED,
};

static const enum store_desired desires[] = {
	[LIFE_RUNNING] = STORE_DESIRED_RUNNING,
	[LIFE_STOPPED] = STORE_DESIRED_STOPPED,
	[LIFE_ENDED] = STORE_DESIRED_TERMINATED,
};
static_assert(ARRAY_SIZE(desires) == LIFE_WISHES, "one per wish");

static const enum life_sight sights[] = {
	[STORE_OBSERVED_PENDING] = SIGHT_PENDING,
	[STORE_OBSERVED_CREATING] = SIGHT_CREATING,
	[STORE_OBSERVED_RUNNING] = SIGHT_RUNNING,
	[STORE_OBSERVED_PAUSED] = SIGHT_RUNNING,
	[STORE_OBSERVED_STOPPING] = SIGHT_STOPPING,
	[STORE_OBSERVED_STOPPED] = SIGHT_STOPPED,
	[STORE_OBSERVED_FAILED] = SIGHT_FAILED,
	[STORE_OBSERVED_ABSENT] = SIGHT_ABSENT,
};

enum life_wish instance_wish(const struct store_instance *instance)
{
	assert(instance->desired < ARRAY_SIZE(wishes));
	return wishes[instance->desired];
}

enum life_sight instance_sight(const struct store_instance *instance)
{
	assert(instance->observed < ARRAY_SIZE(sights));
	return sights[instance->observed];
}

static const char *state_on(const struct sosied *d, const struct store_instance *instance,
	const struct store_host *host)
{
	return life_state(instance_wish(instance), instance_sight(instance), host->id[0] != '\0',
		host_heard(d, host));
}

const char *instance_state(const struct sosied *d, const struct store_instance *instance)
{
	struct store_host host = {0};

	if (instance->host_id[0])
		(void)store_host_get(d->store, instance->host_id, &host, NULL);
	return state_on(d, instance, &host);
}

int instance_find(struct call *c, const char *name, struct store_instance *ret, struct err *e)
{
	int r = is_id(name) ? store_instance_get(c->d->store, c->scope, name, ret, e)
			    : store_instance_by_name(c->d->store, c->tenant.id, name, ret, e);

	return r < 0 ? r : call_about(c, ret->tenant_id);
}

json_t *instance_view(struct call *c, const void *row)
{
	const struct store_instance *i = row;
	struct store *s = c->d->store;
	struct store_tenant tenant = {0};
	struct store_group group = {0};
	struct store_image image = {0};
	struct store_host host = {0};
	json_t *j;

	(void)store_tenant_get(s, i->tenant_id, &tenant, NULL);
	(void)store_image_get(s, store_scope_all(), i->image_id, &image, NULL);
	if (i->group_id[0])
		(void)store_group_get(s, store_scope_all(), i->group_id, &group, NULL);
	if (i->host_id[0])
		(void)store_host_get(s, i->host_id, &host, NULL);
	j = json_pack("{s:s,s:s,s:s,s:s,s:s,s:o,s:s,s:s,s:o,s:o}", "id", i->id, "name", i->name,
		"tenant", tenant.name, "state", state_on(c->d, i, &host), "desired",
		store_name(&store_desired_states, i->desired), "reason", json_or_null(i->reason),
		"image", image.name, "image_version", image.version, "group",
		json_or_null(group.name), "host", json_or_null(host.name));
	if (!j)
		return NULL;
	(void)json_object_set_new(j, "cores", json_u64(i->cores));
	(void)json_object_set_new(j, "memory_mib", json_u64(i->memory >> 20));
	(void)json_object_set_new(j, "disk_bytes", json_u64(i->disk));
	(void)json_object_set_new(j, "nics", network_nics(s, i->id));
	(void)json_object_set_new(j, "published", network_published(s, i->id));
	(void)json_object_set_new(j, "reboots", json_u64(i->desired_boot));
	(void)json_object_set_new(j, "reboots_done", json_u64(i->observed_boot));
	(void)json_object_set_new(j, "observed", json_time(i->observed_at));
	(void)json_object_set_new(j, "created", json_time(i->created));
	(void)json_object_set_new(j, "revision", json_u64(i->revision));
	return j;
}

static int instance_read(
	struct call *c, const struct store_page *after, void *rows, size_t max, struct err *e)
{
	const char *named = http_query(c->request, "group");
	struct store_group group = {0};
	int r = named && *named ? group_find(c, named, &group, e) : 0;

	return r < 0 ? r
		     : store_instance_list(
			       c->d->store, c->scope, group.id, "", after, rows, max, e);
}

int route_instances_list(struct call *c, json_t **ret, struct err *e)
{
	static const struct listing listing = {sizeof(struct store_instance),
		offsetof(struct store_instance, id), offsetof(struct store_instance, tenant_id),
		instance_read, instance_view};

	return call_list(c, &listing, ret, e);
}

int route_instances_show(struct call *c, json_t **ret, struct err *e)
{
	struct store_instance instance = {0};
	int r = instance_find(c, c->params[0], &instance, e);

	if (r < 0)
		return r;
	c->revision = instance.revision;
	*ret = instance_view(c, &instance);
	return 0;
}

static int tell(struct sosied *d, const struct store_instance *i, const char *kind,
	const char *detail, struct err *e)
{
	return event_add(d->store, i->tenant_id, kind, i->id,
		json_pack("{s:s,s:o}", "name", i->name, "detail", json_or_null(detail)), e);
}

/* Nothing is left of it anywhere. */
static int forget(struct sosied *d, const struct store_instance *i, struct err *e)
{
	int r = store_instance_delete(d->store, store_scope_all(), i->id, e);

	if (r == 0)
		r = tell(d, i, "instance.terminated", "", e);
	return r < 0 ? r : group_review(d, i->group_id, e);
}

static int act(struct call *c, enum life_action action, json_t **ret, struct err *e)
{
	struct store_instance i = {0};
	enum life_wish wish = LIFE_RUNNING;
	char kind[48];
	int r = instance_find(c, c->params[0], &i, e);

	if (r == 0)
		r = call_match(c, i.revision, e);
	if (r == 0)
		r = life_apply(instance_wish(&i), action, &wish, e);
	if (r < 0)
		return r;
	i.desired = desires[wish];
	i.desired_boot += action == LIFE_REBOOT;
	i.desired_starts += action == LIFE_START;
	r = store_instance_desire(c->d->store, c->scope, &i, e);
	if (r == 0 && action == LIFE_START && !i.host_id[0])
		r = instance_place(c->d, &i, e);
	(void)snprintf(kind, sizeof(kind), "instance.%s", life_action_name(action));
	if (r == 0)
		r = tell(c->d, &i, kind, "asked for", e);
	if (r < 0)
		return r;
	c->revision = i.revision;
	*ret = instance_view(c, &i);
	if (wish == LIFE_ENDED && !i.host_id[0])
		return forget(c->d, &i, e);
	return group_review(c->d, i.group_id, e);
}

int route_instances_start(struct call *c, json_t **ret, struct err *e)
{
	return act(c, LIFE_START, ret, e);
}

int route_instances_stop(struct call *c, json_t **ret, struct err *e)
{
	return act(c, LIFE_STOP, ret, e);
}

int route_instances_reboot(struct call *c, json_t **ret, struct err *e)
{
	return act(c, LIFE_REBOOT, ret, e);
}

int route_instances_delete(struct call *c, json_t **ret, struct err *e)
{
	return act(c, LIFE_TERMINATE, ret, e);
}

int instance_observed(struct sosied *d, const struct store_instance *before, struct err *e)
{
	struct store_instance i = {0};
	char kind[48];
	int r = store_instance_get(d->store, store_scope_all(), before->id, &i, e);

	if (r < 0)
		return r;
	if (i.observed == STORE_OBSERVED_ABSENT && i.desired == STORE_DESIRED_TERMINATED)
		return forget(d, &i, e);
	if (i.observed == before->observed && i.observed_boot == before->observed_boot)
		return 0;
	(void)snprintf(kind, sizeof(kind), "instance.%s",
		i.observed == before->observed ? "rebooted"
					       : store_name(&store_observed_states, i.observed));
	r = tell(d, &i, kind, i.reason, e);
	return r < 0 ? r : group_review(d, i.group_id, e);
}

/* No host takes it: it stays without one, and says why. */
static int strand(struct sosied *d, struct store_instance *i, const struct err *why,
	const char **ret_outcome, struct err *e)
{
	int r = tell(d, i, "instance.stranded", why->message, e);

	*ret_outcome = "failed";
	return r < 0 ? r : group_review(d, i->group_id, e);
}

/* Whether there would be room, before anything is tried: a failed call dooms the transaction. */
int instance_rescue(
	struct sosied *d, struct store_instance *i, const char **ret_outcome, struct err *e)
{
	struct store_observation lost = {.observed = STORE_OBSERVED_FAILED,
		.boot = i->desired_boot,
		.reason = "its host was declared off for good"};
	struct err why = {0};
	int r;

	*ret_outcome = "terminated";
	if (i->desired == STORE_DESIRED_TERMINATED)
		return forget(d, i, e);
	r = store_instance_observe(d->store, i->id, i->host_id, &lost, e);
	if (r == 0)
		r = store_release_all(d->store, i->id, e);
	if (r == 0)
		r = store_instance_get(d->store, store_scope_all(), i->id, i, e);
	if (r == 0)
		r = store_instance_place(d->store, i, "", e);
	if (r < 0)
		return r;
	if (i->desired != STORE_DESIRED_RUNNING) {
		*ret_outcome = "stopped";
		return group_review(d, i->group_id, e);
	}
	r = instance_place(d, i, &why);
	if (r < 0 && why.code == ERR_NO_CAPACITY)
		return strand(d, i, &why, ret_outcome, e);
	if (r < 0) {
		*e = why;
		return r;
	}
	*ret_outcome = "started elsewhere";
	r = tell(d, i, "instance.moved", lost.reason, e);
	return r < 0 ? r : group_review(d, i->group_id, e);
}
