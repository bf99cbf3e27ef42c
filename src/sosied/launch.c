/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Launching instances: one transaction chooses hosts, reserves, names, gives addresses and, for a
 * group, fixes its first configuration before any member starts. All of it happens or nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sosied/groups.h"
#include "sosied/images.h"
#include "sosied/instances.h"
#include "sosied/networks.h"
#include "sosied/routes.h"

#define CORES_MAX      256
#define MEMORY_MIB_MIN 16
#define MEMORY_MIB_MAX (16LL << 20)
#define MEMORY_MIB     512
#define DISK_MIB_MAX   (64LL << 20)
#define FLEET_PAGE     256
#define IMAGE_NAME_MAX 127
#define NUMBER_MAX     99999
#define MIB            (1ULL << 20)

static const char *const spreads[] = {"any", "hosts", "zones", "same-host", NULL};
static const char *const publish_protocols[] = {"tcp", "udp", NULL};

static const struct json_field publish_fields[] = {
	{.name = "port",
		.type = JSON_FIELD_INTEGER,
		.required = JSON_REQUIRED,
		.min = 1,
		.max = 65535,
		.description = "of the instance"},
	{.name = "host_port",
		.type = JSON_FIELD_INTEGER,
		.min = 1024,
		.max = 65535,
		.description = "of its host [one that is free]"},
	{.name = "protocol",
		.type = JSON_FIELD_CHOICE,
		.choices = publish_protocols,
		.description = "[tcp]"},
	{0},
};
static const struct json_field publish_item = {.name = "publish",
	.type = JSON_FIELD_OBJECT,
	.fields = publish_fields,
	.description = "a port to publish"};

const struct json_field schema_launch[] = {
	{.name = "name",
		.type = JSON_FIELD_NAME,
		.required = JSON_REQUIRED,
		.description = "its name; of several, or in a group, what -1, -2 … is added to"},
	{.name = "image",
		.type = JSON_FIELD_STRING,
		.required = JSON_REQUIRED,
		.min = 1,
		.max = IMAGE_NAME_MAX,
		.description = "NAME, NAME:VERSION or id"},
	{.name = "count",
		.type = JSON_FIELD_INTEGER,
		.min = 1,
		.max = PLACEMENT_BATCH_MAX,
		.description = "how many [1]"},
	{.name = "group",
		.type = JSON_FIELD_NAME,
		.description = "the group that they are to form or join"},
	{.name = "spread",
		.type = JSON_FIELD_CHOICE,
		.choices = spreads,
		.description = "[a group: hosts; others: any]"},
	{.name = "cores",
		.type = JSON_FIELD_INTEGER,
		.min = 1,
		.max = CORES_MAX,
		.description = "[1]"},
	{.name = "memory_mib",
		.type = JSON_FIELD_INTEGER,
		.min = MEMORY_MIB_MIN,
		.max = MEMORY_MIB_MAX,
		.description = "[512]"},
	{.name = "disk_mib",
		.type = JSON_FIELD_INTEGER,
		.min = 1,
		.max = DISK_MIB_MAX,
		.description = "at least the image's size [the image's size]"},
	{.name = "network", .type = JSON_FIELD_NAME, .description = "[default]"},
	{.name = "user_data",
		.type = JSON_FIELD_STRING,
		.max = STORE_USER_DATA_MAX,
		.description = "for the instance to read from its metadata service"},
	{.name = "publish",
		.type = JSON_FIELD_ARRAY,
		.max = INSTANCE_PUBLISH_MAX,
		.items = &publish_item,
		.description = "ports to publish on its host"},
	{0},
};

struct launch {
	struct call *c;
	const char *name;
	const char *user_data;
	unsigned int count;
	enum placement_spread spread;
	struct placement_size size;
	struct store_image image;
	struct store_network network;
	struct store_group group; /* id "": none */
	unsigned int number;      /* the last one put behind a name */
	struct store_instance *instances;
};

void fleet_free(struct fleet *fleet)
{
	free(fleet->hosts);
	free(fleet->view);
	*fleet = (struct fleet){0};
}

static const char *why_closed(const struct sosied *d, const struct store_host *host)
{
	if (host->state == STORE_HOST_DRAINING)
		return "draining";
	if (!host_heard(d, host))
		return "offline";
	return host->state == STORE_HOST_ONLINE ? NULL
						: store_name(&store_host_states, host->state);
}

static int read_hosts(struct sosied *d, struct fleet *fleet, struct err *e)
{
	struct store_page after = {0};
	int got;

	do {
		struct store_host *more =
			realloc(fleet->hosts, (fleet->n + FLEET_PAGE) * sizeof(*fleet->hosts));

		if (!more)
			return err_errno(e, -ENOMEM, "read the hosts");
		fleet->hosts = more;
		/* The cursor lies in the array that may have moved. */
		after.id = fleet->n > 0 ? fleet->hosts[fleet->n - 1].id : NULL;
		got = store_host_list(d->store, &after, fleet->hosts + fleet->n, FLEET_PAGE, e);
		if (got < 0)
			return got;
		fleet->n += (size_t)got;
	} while (got == FLEET_PAGE && fleet->n < FLEET_MAX);
	return 0;
}

int fleet_read(struct sosied *d, struct fleet *ret, struct err *e)
{
	CLEANUP_FLEET struct fleet fleet = {0};
	int r = read_hosts(d, &fleet, e);

	if (r < 0)
		return r;
	fleet.view = zalloc(fleet.n + 1, sizeof(*fleet.view));
	if (!fleet.view)
		return err_errno(e, -ENOMEM, "read the hosts");
	for (size_t i = 0; i < fleet.n; i++) {
		const struct store_host *h = &fleet.hosts[i];

		fleet.view[i] = (struct placement_host){
			.name = h->name,
			.zone = h->zone,
			.closed = why_closed(d, h),
			.free = {h->cores_free, h->memory_free, h->disk_free},
		};
	}
	*ret = fleet;
	fleet = (struct fleet){0};
	return 0;
}

static enum placement_spread spread_of(const struct store_group *g)
{
	switch (g->placement) {
	case STORE_PLACEMENT_ZONES:
		return SPREAD_ZONES;
	case STORE_PLACEMENT_SAME_HOST:
		return SPREAD_NONE;
	default:
		return SPREAD_HOSTS;
	}
}

/* Counts the group's members on each host; returns how many there are. */
static int count_members(struct sosied *d, const char *group_id, struct fleet *fleet, struct err *e)
{
	CLEANUP_ROSTER struct roster roster = {0};
	int r = roster_read(d, group_id, &roster, e);

	if (r < 0)
		return r;
	for (size_t m = 0; m < roster.n; m++)
		for (size_t h = 0; h < fleet->n; h++)
			if (!strcmp(roster.members[m].host.id, fleet->hosts[h].id))
				fleet->view[h].members++;
	return (int)roster.n;
}

int instance_place(struct sosied *d, struct store_instance *i, struct err *e)
{
	const struct placement_size size = {i->cores, i->memory, i->disk};
	const struct store_resources need = {i->cores, i->memory, i->disk};
	enum placement_spread spread = SPREAD_ANY;
	CLEANUP_FLEET struct fleet fleet = {0};
	struct store_group group = {0};
	size_t host;
	int r = fleet_read(d, &fleet, e);

	if (r == 0 && i->group_id[0]) {
		r = store_group_get(d->store, store_scope_all(), i->group_id, &group, e);
		if (r == 0)
			r = count_members(d, i->group_id, &fleet, e);
		spread = r < 0 ? SPREAD_ANY : spread_of(&group);
	}
	if (r < 0)
		return r;
	r = placement_choose(fleet.view, fleet.n, &size, spread, 1, &host, e);
	if (r == 0)
		r = store_reserve(d->store, i->id, fleet.hosts[host].id, &need, e);
	return r < 0 ? r : store_instance_place(d->store, i, fleet.hosts[host].id, e);
}

static int find_network(struct launch *l, struct err *e)
{
	const char *name = json_string_value(json_object_get(l->c->body, "network"));

	return network_find(l->c, name ? name : DEFAULT_NETWORK, &l->network, e);
}

static int parse_size_fields(struct launch *l, struct err *e)
{
	int64_t cores = 0, memory = 0, disk = 0, count = 0;
	int64_t least = (int64_t)((l->image.size + MIB - 1) / MIB);
	const json_t *body = l->c->body;
	int r = json_get_integer_or(body, "cores", 1, CORES_MAX, 1, &cores, e);

	if (r == 0)
		r = json_get_integer_or(
			body, "memory_mib", MEMORY_MIB_MIN, MEMORY_MIB_MAX, MEMORY_MIB, &memory, e);
	if (r == 0)
		r = json_get_integer_or(body, "disk_mib", 1, DISK_MIB_MAX, least, &disk, e);
	if (r == 0)
		r = json_get_integer_or(body, "count", 1, PLACEMENT_BATCH_MAX, 1, &count, e);
	if (r < 0)
		return r;
	if (disk < least)
		return err_set(e, ERR_INVALID, "/disk_mib: the image %s needs at least %lld",
			l->image.name, (long long)least);
	l->count = (unsigned int)count;
	l->size = (struct placement_size){
		(uint64_t)cores, (uint64_t)memory * MIB, (uint64_t)disk * MIB};
	return 0;
}

static int make_group(struct launch *l, const char *name, const char *spread, struct err *e)
{
	struct store_group g = {.min_copies = 1, .size = l->count};
	int r;

	if (spread && !strcmp(spread, "any"))
		return err_set(e, ERR_INVALID,
			"/spread: a group is spread over hosts, zones or "
			"same-host");
	COPY(g.tenant_id, l->c->tenant.id);
	COPY(g.name, name);
	g.placement = word(&store_placements, spread ? spread : "hosts");
	r = store_group_create(l->c->d->store, &g, e);
	if (r == 0)
		r = event_add(l->c->d->store, g.tenant_id, "group.created", g.id,
			json_pack("{s:s}", "name", g.name), e);
	if (r == 0)
		l->group = g;
	return r;
}

/* The group that they are to be in, made when there is none yet. */
static int find_group(struct launch *l, struct err *e)
{
	const char *name = json_string_value(json_object_get(l->c->body, "group"));
	const char *spread = json_string_value(json_object_get(l->c->body, "spread"));
	struct err why = {0};
	int r;

	if (!name) {
		l->spread = !spread || !strcmp(spread, "any") ? SPREAD_ANY
			    : !strcmp(spread, "hosts")        ? SPREAD_HOSTS
			    : !strcmp(spread, "zones")        ? SPREAD_ZONES
							      : SPREAD_NONE;
		return 0;
	}
	r = store_group_by_name(l->c->d->store, l->c->tenant.id, name, &l->group, &why);
	if (r < 0 && why.code != ERR_NOT_FOUND) {
		*e = why;
		return r;
	}
	if (r < 0)
		r = make_group(l, name, spread, e);
	else if (spread && strcmp(spread, store_name(&store_placements, l->group.placement)) != 0)
		r = err_set(e, ERR_CONFLICT, "/spread: group %s has another: %s", name,
			store_name(&store_placements, l->group.placement));
	l->spread = spread_of(&l->group);
	return r;
}

static int parse(struct launch *l, struct err *e)
{
	const json_t *body = l->c->body;
	int r = image_find_ready(
		l->c, json_string_value(json_object_get(body, "image")), &l->image, e);

	l->name = json_string_value(json_object_get(body, "name"));
	l->user_data = json_string_value(json_object_get(body, "user_data"));
	if (r == 0)
		r = parse_size_fields(l, e);
	if (r == 0)
		r = find_network(l, e);
	return r < 0 ? r : find_group(l, e);
}

/* "web", or "web-3" where there are or will be others: the lowest numbers that are free. */
static int name_instance(struct launch *l, char out[STORE_NAME_SIZE], struct err *e)
{
	struct store_instance taken = {0};
	struct err why = {0};
	int n, r;

	if (l->count == 1 && !l->group.id[0]) {
		copy_text(out, STORE_NAME_SIZE, l->name);
		return 0;
	}
	do {
		n = snprintf(out, STORE_NAME_SIZE, "%s-%u", l->name, ++l->number);
		if (n < 0 || n >= STORE_NAME_SIZE || l->number > NUMBER_MAX)
			return err_set(
				e, ERR_INVALID, "/name: no number behind it is free and fits");
		r = store_instance_by_name(l->c->d->store, l->c->tenant.id, out, &taken, &why);
	} while (r == 0);
	if (why.code == ERR_NOT_FOUND)
		return 0;
	*e = why;
	return r;
}

static int make_member(const struct launch *l, const struct store_instance *i, struct err *e)
{
	struct store_member m = {.state = STORE_MEMBER_JOINING};

	COPY(m.tenant_id, i->tenant_id);
	COPY(m.group_id, l->group.id);
	COPY(m.name, i->name);
	/* Its host is its instance's: kept there alone, they cannot disagree. */
	COPY(m.instance_id, i->id);
	return store_member_create(l->c->d->store, &m, e);
}

static int make_instance(struct launch *l, unsigned int k, const char *host_id, struct err *e)
{
	const struct store_resources need = {l->size.cores, l->size.memory, l->size.disk};
	struct store_instance *i = &l->instances[k];
	const char *data = l->user_data ? l->user_data : "";
	struct store *s = l->c->d->store;
	int r;

	*i = (struct store_instance){
		.cores = (uint32_t)l->size.cores, .memory = l->size.memory, .disk = l->size.disk};
	COPY(i->tenant_id, l->c->tenant.id);
	COPY(i->image_id, l->image.id);
	COPY(i->group_id, l->group.id);
	COPY(i->host_id, host_id);
	r = name_instance(l, i->name, e);
	if (r == 0)
		r = store_instance_create(s, i, data, strlen(data), e);
	if (r == 0)
		r = store_reserve(s, i->id, host_id, &need, e);
	if (r == 0 && l->group.id[0])
		r = make_member(l, i, e);
	if (r < 0)
		return r;
	return event_add(s, i->tenant_id, "instance.launched", i->id,
		json_pack("{s:s,s:s}", "name", i->name, "image", l->image.name), e);
}

static int place_all(struct launch *l, struct err *e)
{
	CLEANUP_FLEET struct fleet fleet = {0};
	size_t chosen[PLACEMENT_BATCH_MAX];
	int r = fleet_read(l->c->d, &fleet, e);

	if (r == 0 && l->group.id[0]) {
		r = count_members(l->c->d, l->group.id, &fleet, e);
		if (r >= 0 && (unsigned int)r + l->count > SUCCESSION_MEMBERS_MAX)
			return err_set(e, ERR_LIMIT, "a group has at most %d members",
				SUCCESSION_MEMBERS_MAX);
	}
	if (r >= 0)
		r = placement_choose(fleet.view, fleet.n, &l->size, l->spread, l->count, chosen, e);
	for (unsigned int k = 0; r == 0 && k < l->count; k++)
		r = make_instance(l, k, fleet.hosts[chosen[k]].id, e);
	return r;
}

static int give_addresses(struct launch *l, struct err *e)
{
	char ids[PLACEMENT_BATCH_MAX][STORE_ID_SIZE];

	for (unsigned int k = 0; k < l->count; k++)
		COPY(ids[k], l->instances[k].id);
	return network_join(l->c, &l->network, (const char(*)[STORE_ID_SIZE])ids, l->count, e);
}

static int publish_one(
	struct launch *l, const struct store_instance *i, const json_t *item, struct err *e)
{
	const char *protocol = json_string_value(json_object_get(item, "protocol"));
	struct store_published_port p = {0};

	return network_publish(l->c, i->id, i->host_id,
		word(&store_protocols, protocol ? protocol : "tcp"),
		(uint16_t)json_integer_value(json_object_get(item, "host_port")),
		(uint16_t)json_integer_value(json_object_get(item, "port")), &p, e);
}

static int publish(struct launch *l, struct err *e)
{
	const json_t *list = json_object_get(l->c->body, "publish");
	int r = 0;

	for (unsigned int k = 0; r == 0 && k < l->count; k++)
		for (size_t n = 0; r == 0 && n < json_array_size(list); n++)
			r = publish_one(l, &l->instances[k], json_array_get(list, n), e);
	return r;
}

static json_t *launched(struct launch *l)
{
	json_t *list = json_array();

	for (unsigned int k = 0; k < l->count; k++) {
		/* As it became: addresses and the group's leaders have touched it. */
		if (store_instance_get(l->c->d->store, store_scope_all(), l->instances[k].id,
			    &l->instances[k], NULL) == 0)
			(void)json_array_append_new(list, instance_view(l->c, &l->instances[k]));
	}
	return json_pack("{s:o}", "items", list);
}

int route_instances_create(struct call *c, json_t **ret, struct err *e)
{
	CLEANUP_FREE struct store_instance *instances =
		zalloc(PLACEMENT_BATCH_MAX, sizeof(*instances));
	struct launch l = {.c = c, .instances = instances};
	int r = instances ? parse(&l, e) : err_errno(e, -ENOMEM, "launch");

	if (r == 0)
		r = place_all(&l, e);
	if (r == 0)
		r = give_addresses(&l, e);
	if (r == 0)
		r = publish(&l, e);
	if (r == 0)
		r = group_review(c->d, l.group.id, e);
	if (r == 0)
		*ret = launched(&l);
	return r;
}
