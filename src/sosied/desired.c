/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The desired state of one host as a document: always whole, so that an agent needs no history.
 */
#include "sosied/desired.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sosied/groups.h"
#include "sosied/hosts.h"
#include "sosied/instances.h"
#include "sosied/networks.h"
#include "sosied/sessions.h"

#define CPU_MODEL    "max"
#define NETWORKS_MAX 64
#define ROWS_PAGE    256
#define RULES_MAX    STORE_PAGE_MAX

/* Both ends of "running" are a host's to bring about; a paused instance is one that runs. */
static const char *state_word(const struct store_instance *i)
{
	switch (instance_wish(i)) {
	case LIFE_STOPPED:
		return "stopped";
	case LIFE_ENDED:
		return "absent";
	default:
		return "running";
	}
}

static int group_part(struct sosied *d, const struct store_instance *i, const char *host_id,
	json_t **ret, struct err *e)
{
	struct store_group g = {0};
	int r;

	if (!i->group_id[0]) {
		*ret = json_null();
		return 0;
	}
	r = store_group_get(d->store, store_scope_all(), i->group_id, &g, e);
	if (r == 0)
		*ret = json_pack("{s:s,s:s,s:s,s:b}", "name", g.name, "id", g.id, "member", i->name,
			"source", !strcmp(g.source_host_id, host_id));
	return r;
}

static int instance_part(
	struct sosied *d, const struct store_instance *i, json_t **ret, struct err *e)
{
	CLEANUP_BUF struct buf user_data = BUF_INIT(STORE_USER_DATA_MAX + 1);
	struct store_tenant tenant = {0};
	struct store_image image = {0};
	json_t *group = NULL, *j;
	int r = store_tenant_get(d->store, i->tenant_id, &tenant, e);

	if (r == 0)
		r = store_image_get(d->store, store_scope_all(), i->image_id, &image, e);
	if (r == 0)
		r = store_instance_user_data(d->store, store_scope_all(), i->id, &user_data, e);
	if (r == 0)
		r = group_part(d, i, i->host_id, &group, e);
	if (r < 0)
		return r;
	j = json_pack("{s:s,s:s,s:s,s:s,s:o,s:o,s:{s:s,s:s,s:s,s:s,s:s},s:s,s:s}", "id", i->id,
		"name", i->name, "tenant", tenant.name, "state", state_word(i), "reboots",
		json_u64(i->desired_boot), "revision", json_u64(i->desired_revision), "image", "id",
		image.id, "name", image.name, "format", store_name(&store_formats, image.format),
		"sha256", image.sha256, "path", image.path, "hostname", i->name, "cpu", CPU_MODEL);
	if (!j) {
		json_decref(group);
		return err_errno(e, -ENOMEM, "describe an instance");
	}
	(void)json_object_set_new(j, "starts", json_u64(i->desired_starts));
	(void)json_object_set_new(j, "cores", json_u64(i->cores));
	(void)json_object_set_new(j, "memory_mib", json_u64(i->memory >> 20));
	(void)json_object_set_new(j, "disk_bytes", json_u64(i->disk));
	(void)json_object_set_new(j, "nics", network_nics(d->store, i->id));
	(void)json_object_set_new(j, "group", group);
	(void)json_object_set_new(
		j, "user_data", json_stringn(buf_text(&user_data), user_data.size));
	*ret = j;
	return 0;
}

/* Where each port of the network is: its host's overlay address. */
static json_t *port_part(struct sosied *d, const struct store_port *port)
{
	struct store_instance instance = {0};
	struct store_host host = {0};

	if (port->instance_id[0] &&
		store_instance_get(
			d->store, store_scope_all(), port->instance_id, &instance, NULL) == 0 &&
		instance.host_id[0])
		(void)store_host_get(d->store, instance.host_id, &host, NULL);
	if (!host.id[0])
		return NULL;
	return json_pack("{s:s,s:s,s:s,s:s,s:s}", "mac", port->mac, "ip", port->ip, "host",
		host.endpoint, "host_id", host.id, "instance", instance.id);
}

static int ports_part(struct sosied *d, const struct store_network *n, json_t *list, struct err *e)
{
	CLEANUP_FREE struct store_port *ports = zalloc(ROWS_PAGE, sizeof(*ports));
	char tenant_id[STORE_ID_SIZE] = "", id[STORE_ID_SIZE] = "";
	const struct store_page after = {tenant_id, id};
	int got;

	if (!ports)
		return err_errno(e, -ENOMEM, "describe a network");
	do {
		got = store_port_list(d->store, store_scope_tenant(n->tenant_id), n->id, "", &after,
			ports, ROWS_PAGE, e);
		for (int i = 0; i < got; i++) {
			json_t *j = port_part(d, &ports[i]);

			if (j)
				(void)json_array_append_new(list, j);
		}
		if (got == ROWS_PAGE) {
			COPY(tenant_id, ports[got - 1].tenant_id);
			COPY(id, ports[got - 1].id);
		}
	} while (got == ROWS_PAGE);
	return got < 0 ? got : 0;
}

static int rules_part(struct sosied *d, const struct store_network *n, json_t *list, struct err *e)
{
	CLEANUP_FREE struct store_security_rule *rules = zalloc(RULES_MAX, sizeof(*rules));
	struct store_security_group group = {0};
	char ports[16];
	int got;

	if (!rules)
		return err_errno(e, -ENOMEM, "describe a network");
	got = store_security_group_by_name(d->store, n->tenant_id, n->name, &group, e);
	if (got == 0)
		got = store_security_rule_list(d->store, store_scope_tenant(n->tenant_id), group.id,
			NULL, rules, RULES_MAX, e);
	for (int i = 0; i < got; i++) {
		(void)snprintf(ports, sizeof(ports), "%u-%u", (unsigned int)rules[i].first_port,
			(unsigned int)rules[i].last_port);
		(void)json_array_append_new(list,
			json_pack("{s:s,s:s,s:s,s:s}", "direction",
				store_name(&store_directions, rules[i].direction), "protocol",
				store_name(&store_protocols, rules[i].protocol), "ports", ports,
				"cidr", rules[i].remote[0] ? rules[i].remote : "0.0.0.0/0"));
	}
	return got < 0 ? got : 0;
}

/* Ports of this network that this host publishes. */
static int publish_part(struct sosied *d, const struct store_network *n, const char *host_id,
	json_t *list, struct err *e)
{
	CLEANUP_FREE struct store_published_port *rows = zalloc(STORE_PAGE_MAX, sizeof(*rows));
	struct store_port port = {0};
	int got;

	if (!rows)
		return err_errno(e, -ENOMEM, "describe a network");
	got = store_published_port_list(d->store, store_scope_tenant(n->tenant_id), "", host_id,
		NULL, rows, STORE_PAGE_MAX, e);
	for (int i = 0; i < got; i++) {
		int r = store_port_get(d->store, store_scope_all(), rows[i].port_id, &port, e);

		if (r < 0)
			return r;
		if (!strcmp(port.network_id, n->id))
			(void)json_array_append_new(list,
				json_pack("{s:i,s:s,s:i,s:s}", "host_port", (int)rows[i].host_port,
					"ip", port.ip, "port", (int)rows[i].guest_port, "protocol",
					store_name(&store_protocols, rows[i].protocol)));
	}
	return got < 0 ? got : 0;
}

static int network_part(struct sosied *d, const struct store_network *n, const char *host_id,
	json_t **ret, struct err *e)
{
	CLEANUP_JSON json_t *ports = json_array(), *rules = json_array(), *published = json_array();
	int r = ports_part(d, n, ports, e);

	if (r == 0)
		r = rules_part(d, n, rules, e);
	if (r == 0)
		r = publish_part(d, n, host_id, published, e);
	if (r == 0)
		*ret = json_pack("{s:s,s:s,s:s,s:s,s:s,s:o,s:s,s:O,s:O,s:O}", "id", n->id, "name",
			n->name, "tenant", n->tenant_id, "cidr", n->cidr, "gateway", n->gateway,
			"vni", json_u64(n->vni), "key", n->overlay_key, "ports", ports, "rules",
			rules, "publish", published);
	return r;
}

static int networks_part(struct sosied *d, const char *host_id, json_t *list, struct err *e)
{
	CLEANUP_FREE struct store_network *rows = zalloc(NETWORKS_MAX, sizeof(*rows));
	uint64_t since = 0;
	int got, r = 0;

	if (!rows)
		return err_errno(e, -ENOMEM, "describe networks");
	do {
		got = store_network_of_host_since(d->store, host_id, since, rows, NETWORKS_MAX, e);
		for (int i = 0; r == 0 && i < got; i++) {
			json_t *j = NULL;

			r = network_part(d, &rows[i], host_id, &j, e);
			if (r == 0)
				(void)json_array_append_new(list, j);
			since = rows[i].revision;
		}
	} while (r == 0 && got == NETWORKS_MAX);
	return got < 0 ? got : r;
}

static int one_group(struct sosied *d, const char *group_id, json_t **ret, struct err *e)
{
	CLEANUP_JSON json_t *hosts = json_array();
	CLEANUP_ROSTER struct roster roster = {0};
	struct store_host source = {0};
	struct store_group g = {0};
	int r = store_group_get(d->store, store_scope_all(), group_id, &g, e);

	if (r == 0)
		r = roster_read(d, group_id, &roster, e);
	if (r == 0 && g.source_host_id[0])
		r = store_host_get(d->store, g.source_host_id, &source, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < roster.n; i++) {
		const struct store_host *h = &roster.members[i].host;
		bool known = h->id[0] == '\0';

		for (size_t k = 0; k < i; k++)
			known = known || !strcmp(roster.members[k].host.id, h->id);
		if (!known)
			(void)json_array_append_new(
				hosts, json_pack("{s:s,s:s,s:s}", "host", h->name, "host_id", h->id,
					       "address", h->endpoint));
	}
	*ret = json_pack("{s:s,s:s,s:s,s:o,s:s,s:O,s:{s:s,s:s,s:o}}", "name", g.name, "id", g.id,
		"tenant", g.tenant_id, "epoch", json_u64(g.epoch), "source_host", source.name,
		"hosts", hosts, "options", "commit", store_name(&store_commit_modes, g.commit_mode),
		"divergence", store_name(&store_divergences, g.divergence), "min_copies",
		json_u64(g.min_copies));
	return 0;
}

/* Each group of the instances once. */
static int groups_part(
	struct sosied *d, const struct store_instance *rows, int n, json_t *list, struct err *e)
{
	for (int i = 0; i < n; i++) {
		bool known = rows[i].group_id[0] == '\0';
		json_t *j = NULL;
		int r;

		for (int k = 0; !known && k < i; k++)
			known = !strcmp(rows[k].group_id, rows[i].group_id);
		if (known)
			continue;
		r = one_group(d, rows[i].group_id, &j, e);
		if (r < 0)
			return r;
		(void)json_array_append_new(list, j);
	}
	return 0;
}

int desired_state(struct sosied *d, const struct store_host *host, json_t **ret, struct err *e)
{
	CLEANUP_JSON json_t *instances = json_array(), *networks = json_array();
	CLEANUP_JSON json_t *groups = json_array();
	CLEANUP_FREE struct store_instance *rows = NULL;
	int r = 0, n = host_instances(d, host->id, &rows, e);

	if (n < 0)
		return n;
	for (int i = 0; r == 0 && i < n; i++) {
		json_t *j = NULL;

		r = instance_part(d, &rows[i], &j, e);
		if (r == 0)
			(void)json_array_append_new(instances, j);
	}
	if (r == 0)
		r = networks_part(d, host->id, networks, e);
	if (r == 0)
		r = groups_part(d, rows, n, groups, e);
	if (r == 0)
		*ret = json_pack("{s:o,s:O,s:O,s:O,s:o}", "revision",
			json_u64(host->desired_revision), "instances", instances, "networks",
			networks, "groups", groups, "sessions", sessions_of_host(d, host->id));
	return r;
}
