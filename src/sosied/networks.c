/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks, their rules, addresses, and ports published on hosts.
 *
 * Each network has one security group of the network's own name, which its ports share: the
 * network's rules are that group's.
 */
#include "sosied/networks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "core/platform/addresses.h"
#include "sosied/instances.h"
#include "sosied/routes.h"

#define DEFAULT_CIDR     "10.0.0.0/24"
#define PORTS_PAGE       256
#define NICS_MAX         8
#define OVERLAY_KEY_SIZE 32
/* Host ports given when none is asked for, and the lowest one that may be asked for. */
#define HOST_PORT_FIRST 20000
#define HOST_PORT_COUNT 10000
#define HOST_PORT_LEAST 1024

static const char *const directions[] = {"in", "out", NULL};
static const char *const protocols[] = {"any", "tcp", "udp", "icmp", NULL};

const struct json_field schema_network[] = {
	{.name = "name",
		.type = JSON_FIELD_NAME,
		.required = JSON_REQUIRED,
		.description = "the network's name"},
	{.name = "cidr",
		.type = JSON_FIELD_STRING,
		.required = JSON_REQUIRED,
		.max = SUBNET_TEXT_SIZE,
		.description = "private, such as 10.1.0.0/24"},
	{0},
};

const struct json_field schema_rule[] = {
	{.name = "direction",
		.type = JSON_FIELD_CHOICE,
		.required = JSON_REQUIRED,
		.choices = directions,
		.description = "in is towards the instances"},
	{.name = "protocol",
		.type = JSON_FIELD_CHOICE,
		.required = JSON_REQUIRED,
		.choices = protocols,
		.description = "what it allows"},
	{.name = "first_port",
		.type = JSON_FIELD_INTEGER,
		.max = 65535,
		.description = "of tcp and udp [0]"},
	{.name = "last_port",
		.type = JSON_FIELD_INTEGER,
		.max = 65535,
		.description = "[first_port; without it 65535]"},
	{.name = "remote",
		.type = JSON_FIELD_STRING,
		.max = SUBNET_TEXT_SIZE,
		.description = "from or to whom, such as 192.0.2.0/24 [everybody]"},
	{0},
};

const struct json_field schema_published[] = {
	{.name = "instance",
		.type = JSON_FIELD_NAME,
		.required = JSON_REQUIRED,
		.description = "id or name"},
	{.name = "port",
		.type = JSON_FIELD_INTEGER,
		.required = JSON_REQUIRED,
		.min = 1,
		.max = 65535,
		.description = "of the instance"},
	{.name = "host_port",
		.type = JSON_FIELD_INTEGER,
		.min = HOST_PORT_LEAST,
		.max = 65535,
		.description = "of the host [one that is free]"},
	{.name = "protocol",
		.type = JSON_FIELD_CHOICE,
		.choices = protocols + 1,
		.description = "tcp or udp [tcp]"},
	{0},
};

static json_t *network_view(struct call *c, const void *row)
{
	const struct store_network *n = row;
	struct store_tenant tenant = {0};

	(void)store_tenant_get(c->d->store, n->tenant_id, &tenant, NULL);
	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:o}", "id", n->id, "name", n->name,
		"tenant", tenant.name, "cidr", n->cidr, "gateway", n->gateway, "vni",
		json_u64(n->vni), "created", json_time(n->created), "revision",
		json_u64(n->revision));
}

/* A network with its security group. */
static int create(struct store *s, const struct source *source, const char *tenant_id,
	const char *name, const struct subnet *subnet, struct store_network *ret, struct err *e)
{
	struct store_security_group group = {0};
	struct store_network n = {0};
	uint8_t key[OVERLAY_KEY_SIZE];
	int r = source->random(source->context, key, sizeof(key));

	if (r < 0)
		return err_errno(e, r, "draw a network's key");
	hex_encode(key, sizeof(key), n.overlay_key);
	explicit_bzero(key, sizeof(key));
	COPY(n.tenant_id, tenant_id);
	COPY(n.name, name);
	ipv4_format(subnet_gateway(subnet), n.gateway);
	ipv4_format(subnet->network, n.cidr);
	(void)snprintf(
		n.cidr + strlen(n.cidr), sizeof(n.cidr) - strlen(n.cidr), "/%u", subnet->prefix);
	r = store_network_create(s, &n, e);
	if (r < 0)
		return r;
	COPY(group.tenant_id, tenant_id);
	COPY(group.name, name);
	r = store_security_group_create(s, &group, e);
	if (r == 0)
		*ret = n;
	return r;
}

int network_create_default(
	struct store *s, const struct source *source, const char *tenant_id, struct err *e)
{
	struct store_network n = {0};
	struct subnet subnet = {0};
	int r = subnet_check_tenant(DEFAULT_CIDR, &subnet, e);

	return r < 0 ? r : create(s, source, tenant_id, DEFAULT_NETWORK, &subnet, &n, e);
}

int network_delete(struct store *s, const struct store_network *network, struct err *e)
{
	struct store_security_group group = {0};
	int r = store_network_delete(s, store_scope_tenant(network->tenant_id), network->id, e);

	if (r == 0)
		r = store_security_group_by_name(s, network->tenant_id, network->name, &group, e);
	return r < 0 ? r
		     : store_security_group_delete(
			       s, store_scope_tenant(network->tenant_id), group.id, e);
}

int network_find(struct call *c, const char *name, struct store_network *ret, struct err *e)
{
	int r = is_id(name) ? store_network_get(c->d->store, c->scope, name, ret, e)
			    : store_network_by_name(c->d->store, c->tenant.id, name, ret, e);

	return r < 0 ? r : call_about(c, ret->tenant_id);
}

static int network_read(
	struct call *c, const struct store_page *after, void *rows, size_t max, struct err *e)
{
	return store_network_list(c->d->store, c->scope, after, rows, max, e);
}

int route_networks_list(struct call *c, json_t **ret, struct err *e)
{
	static const struct listing listing = {sizeof(struct store_network),
		offsetof(struct store_network, id), offsetof(struct store_network, tenant_id),
		network_read, network_view};

	return call_list(c, &listing, ret, e);
}

int route_networks_create(struct call *c, json_t **ret, struct err *e)
{
	struct store_network n = {0};
	struct subnet subnet = {0};
	int r = subnet_check_tenant(
		json_string_value(json_object_get(c->body, "cidr")), &subnet, e);

	if (r < 0)
		return r;
	r = create(c->d->store, c->d->source, c->tenant.id,
		json_string_value(json_object_get(c->body, "name")), &subnet, &n, e);
	if (r == 0)
		r = event_add(c->d->store, n.tenant_id, "network.created", n.id,
			json_pack("{s:s}", "name", n.name), e);
	if (r < 0)
		return r;
	c->revision = n.revision;
	*ret = network_view(c, &n);
	return 0;
}

int route_networks_show(struct call *c, json_t **ret, struct err *e)
{
	struct store_network n = {0};
	int r = network_find(c, c->params[0], &n, e);

	if (r < 0)
		return r;
	c->revision = n.revision;
	*ret = network_view(c, &n);
	return 0;
}

int route_networks_delete(struct call *c, json_t **ret, struct err *e)
{
	struct store_network n = {0};
	int r = network_find(c, c->params[0], &n, e);

	(void)ret;
	if (r == 0)
		r = call_match(c, n.revision, e);
	if (r == 0)
		r = network_delete(c->d->store, &n, e);
	if (r < 0)
		return r;
	return event_add(c->d->store, n.tenant_id, "network.deleted", n.id,
		json_pack("{s:s}", "name", n.name), e);
}

/* The security group of the network that the path names. */
static int find_rules(struct call *c, struct store_security_group *ret, struct err *e)
{
	struct store_network n = {0};
	int r = network_find(c, c->params[0], &n, e);

	return r < 0 ? r : store_security_group_by_name(c->d->store, n.tenant_id, n.name, ret, e);
}

static json_t *rule_view(struct call *c, const void *row)
{
	const struct store_security_rule *rule = row;

	(void)c;
	return json_pack("{s:s,s:s,s:s,s:i,s:i,s:o,s:o}", "id", rule->id, "direction",
		store_name(&store_directions, rule->direction), "protocol",
		store_name(&store_protocols, rule->protocol), "first_port", (int)rule->first_port,
		"last_port", (int)rule->last_port, "remote", json_or_null(rule->remote), "created",
		json_time(rule->created));
}

static int rule_read(
	struct call *c, const struct store_page *after, void *rows, size_t max, struct err *e)
{
	struct store_security_group group = {0};
	int r = find_rules(c, &group, e);

	return r < 0 ? r
		     : store_security_rule_list(
			       c->d->store, c->scope, group.id, after, rows, max, e);
}

int route_rules_list(struct call *c, json_t **ret, struct err *e)
{
	static const struct listing listing = {sizeof(struct store_security_rule),
		offsetof(struct store_security_rule, id),
		offsetof(struct store_security_rule, tenant_id), rule_read, rule_view};

	return call_list(c, &listing, ret, e);
}

static int parse_rule(struct call *c, struct store_security_rule *rule, struct err *e)
{
	int64_t first = 0, last = 0;
	const char *remote = "";
	struct subnet subnet = {0};
	bool ports;
	int r = json_get_integer_or(c->body, "first_port", 0, 65535, 0, &first, e);

	rule->direction =
		word(&store_directions, json_string_value(json_object_get(c->body, "direction")));
	rule->protocol =
		word(&store_protocols, json_string_value(json_object_get(c->body, "protocol")));
	ports = rule->protocol == STORE_PROTOCOL_TCP || rule->protocol == STORE_PROTOCOL_UDP;
	if (r == 0)
		r = json_get_integer_or(c->body, "last_port", 0, 65535,
			json_object_get(c->body, "first_port") ? first : 65535, &last, e);
	if (r == 0)
		r = json_get_string_or(c->body, "remote", SUBNET_TEXT_SIZE, "", &remote, e);
	if (r < 0)
		return r;
	if (!ports && json_object_get(c->body, "first_port"))
		return err_set(e, ERR_INVALID, "/first_port: only tcp and udp have ports");
	if (first > last)
		return err_set(e, ERR_INVALID, "/last_port: below first_port");
	if (*remote && subnet_parse(remote, &subnet) < 0)
		return err_set(e, ERR_INVALID, "/remote: '%s' is no IPv4 network", remote);
	rule->first_port = (uint16_t)first;
	rule->last_port = (uint16_t)last;
	COPY(rule->remote, remote);
	return 0;
}

int route_rules_create(struct call *c, json_t **ret, struct err *e)
{
	struct store_security_rule rule = {0};
	struct store_security_group group = {0};
	int r = find_rules(c, &group, e);

	if (r == 0)
		r = parse_rule(c, &rule, e);
	if (r < 0)
		return r;
	COPY(rule.tenant_id, group.tenant_id);
	COPY(rule.security_group_id, group.id);
	r = store_security_rule_create(c->d->store, &rule, e);
	if (r == 0)
		r = event_add(c->d->store, rule.tenant_id, "rule.created", rule.id, NULL, e);
	if (r == 0)
		*ret = rule_view(c, &rule);
	return r;
}

int route_rules_delete(struct call *c, json_t **ret, struct err *e)
{
	struct store_security_group group = {0};
	struct store_security_rule rule = {0};
	int r = find_rules(c, &group, e);

	(void)ret;
	if (r == 0)
		r = store_security_rule_get(c->d->store, c->scope, c->params[1], &rule, e);
	if (r == 0 && strcmp(rule.security_group_id, group.id) != 0)
		r = err_set(e, ERR_NOT_FOUND, "that network has no rule %s", c->params[1]);
	if (r == 0)
		r = store_security_rule_delete(c->d->store, c->scope, rule.id, e);
	if (r < 0)
		return r;
	return event_add(c->d->store, rule.tenant_id, "rule.deleted", rule.id, NULL, e);
}

/* Marks the addresses that ports of the network have. */
static int read_used(
	struct store *s, const struct store_network *n, struct address_pool *pool, struct err *e)
{
	CLEANUP_FREE struct store_port *ports = zalloc(PORTS_PAGE, sizeof(*ports));
	char tenant_id[STORE_ID_SIZE] = "", id[STORE_ID_SIZE] = "";
	const struct store_page after = {tenant_id, id};
	uint32_t address;
	int got;

	if (!ports)
		return err_errno(e, -ENOMEM, "read a network's addresses");
	do {
		got = store_port_list(s, store_scope_tenant(n->tenant_id), n->id, "", &after, ports,
			PORTS_PAGE, e);
		for (int i = 0; i < got; i++)
			if (ipv4_parse(ports[i].ip, &address) == 0)
				(void)address_pool_take(pool, address);
		if (got == PORTS_PAGE) {
			COPY(tenant_id, ports[got - 1].tenant_id);
			COPY(id, ports[got - 1].id);
		}
	} while (got == PORTS_PAGE);
	return got < 0 ? got : 0;
}

/* QEMU's prefix, and an address that the network's position gives: unique in it. */
static void format_mac(uint32_t vni, uint32_t address, char out[18])
{
	(void)snprintf(out, 18, "52:54:%02x:%02x:%02x:%02x", (unsigned int)(vni & 255),
		(unsigned int)(address >> 16 & 255), (unsigned int)(address >> 8 & 255),
		(unsigned int)(address & 255));
}

static int join_one(struct store *s, const struct store_network *n,
	const struct store_security_group *group, const char *instance_id, uint32_t address,
	struct err *e)
{
	struct store_port port = {0};

	COPY(port.tenant_id, n->tenant_id);
	COPY(port.network_id, n->id);
	COPY(port.instance_id, instance_id);
	COPY(port.security_group_id, group->id);
	ipv4_format(address, port.ip);
	format_mac(n->vni, address, port.mac);
	return store_port_create(s, &port, e);
}

int network_join(struct call *c, const struct store_network *network,
	const char (*ids)[STORE_ID_SIZE], size_t n, struct err *e)
{
	struct store *s = c->d->store;
	CLEANUP_POOL struct address_pool pool = {0};
	struct store_security_group group = {0};
	struct subnet subnet = {0};
	uint32_t address = 0;
	int r = subnet_check_tenant(network->cidr, &subnet, e);

	if (r == 0)
		r = store_security_group_by_name(s, network->tenant_id, network->name, &group, e);
	if (r < 0)
		return r;
	if (address_pool_init(&pool, &subnet) < 0)
		return err_errno(e, -ENOMEM, "choose addresses");
	r = read_used(s, network, &pool, e);
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (address_pool_next(&pool, &address) < 0)
			return err_set(e, ERR_NO_CAPACITY, "network %s (%s) has no address left",
				network->name, network->cidr);
		r = join_one(s, network, &group, ids[i], address, e);
	}
	return r;
}

static json_t *published_view(struct call *c, const void *row)
{
	const struct store_published_port *p = row;
	struct store_instance instance = {0};
	struct store_host host = {0};
	struct store_port port = {0};

	(void)store_host_get(c->d->store, p->host_id, &host, NULL);
	if (store_port_get(c->d->store, store_scope_all(), p->port_id, &port, NULL) == 0)
		(void)store_instance_get(
			c->d->store, store_scope_all(), port.instance_id, &instance, NULL);
	return json_pack("{s:s,s:s,s:s,s:s,s:i,s:s,s:i,s:o}", "id", p->id, "instance",
		instance.name, "host", host.name, "protocol",
		store_name(&store_protocols, p->protocol), "host_port", (int)p->host_port, "ip",
		port.ip, "port", (int)p->guest_port, "created", json_time(p->created));
}

static int published_read(
	struct call *c, const struct store_page *after, void *rows, size_t max, struct err *e)
{
	return store_published_port_list(c->d->store, c->scope, "", "", after, rows, max, e);
}

int route_published_list(struct call *c, json_t **ret, struct err *e)
{
	static const struct listing listing = {sizeof(struct store_published_port),
		offsetof(struct store_published_port, id),
		offsetof(struct store_published_port, tenant_id), published_read, published_view};

	return call_list(c, &listing, ret, e);
}

/* A port of the host that none of its published ones has, beginning at a random one. */
static int choose_host_port(
	struct call *c, const char *host_id, unsigned int protocol, uint16_t *ret, struct err *e)
{
	CLEANUP_FREE struct store_published_port *rows = zalloc(STORE_PAGE_MAX, sizeof(*rows));
	CLEANUP_FREE bool *taken = zalloc(HOST_PORT_COUNT, sizeof(*taken));
	uint16_t start = 0;
	int n, r;

	if (!rows || !taken)
		return err_errno(e, -ENOMEM, "choose a port");
	n = store_published_port_list(
		c->d->store, store_scope_all(), "", host_id, NULL, rows, STORE_PAGE_MAX, e);
	if (n < 0)
		return n;
	for (int i = 0; i < n; i++)
		if (rows[i].protocol == protocol && rows[i].host_port >= HOST_PORT_FIRST &&
			rows[i].host_port < HOST_PORT_FIRST + HOST_PORT_COUNT)
			taken[rows[i].host_port - HOST_PORT_FIRST] = true;
	r = c->d->source->random(c->d->source->context, &start, sizeof(start));
	if (r < 0)
		return err_errno(e, r, "choose a port");
	for (unsigned int i = 0; n < STORE_PAGE_MAX && i < HOST_PORT_COUNT; i++) {
		unsigned int k = (start + i) % HOST_PORT_COUNT;

		if (!taken[k]) {
			*ret = (uint16_t)(HOST_PORT_FIRST + k);
			return 0;
		}
	}
	return err_set(e, ERR_NO_CAPACITY, "the host has no port left to publish");
}

int network_publish(struct call *c, const char *instance_id, const char *host_id,
	unsigned int protocol, uint16_t host_port, uint16_t guest_port,
	struct store_published_port *ret, struct err *e)
{
	struct store_published_port p = {
		.protocol = protocol, .host_port = host_port, .guest_port = guest_port};
	struct store_port port = {0};
	int r = store_port_list(c->d->store, store_scope_all(), "", instance_id, NULL, &port, 1, e);

	if (r < 0)
		return r;
	if (r == 0 || !host_id[0])
		return err_set(e, ERR_CONFLICT, "the instance has no address on a host");
	if (host_port == 0) {
		r = choose_host_port(c, host_id, protocol, &p.host_port, e);
		if (r < 0)
			return r;
	}
	COPY(p.tenant_id, port.tenant_id);
	COPY(p.port_id, port.id);
	COPY(p.host_id, host_id);
	r = store_published_port_create(c->d->store, &p, e);
	if (r == 0)
		*ret = p;
	return r;
}

int route_published_create(struct call *c, json_t **ret, struct err *e)
{
	const char *protocol = json_string_value(json_object_get(c->body, "protocol"));
	struct store_published_port p = {0};
	struct store_instance instance = {0};
	int64_t guest_port = 0, host_port = 0;
	int r = instance_find(
		c, json_string_value(json_object_get(c->body, "instance")), &instance, e);

	if (r == 0)
		r = json_get_integer(c->body, "port", 1, 65535, &guest_port, e);
	if (r == 0)
		r = json_get_integer_or(
			c->body, "host_port", HOST_PORT_LEAST, 65535, 0, &host_port, e);
	if (r < 0)
		return r;
	if (protocol && !strcmp(protocol, "icmp"))
		return err_set(e, ERR_INVALID, "/protocol: only tcp and udp have ports");
	r = network_publish(c, instance.id, instance.host_id,
		word(&store_protocols, protocol ? protocol : "tcp"), (uint16_t)host_port,
		(uint16_t)guest_port, &p, e);
	if (r == 0)
		r = event_add(c->d->store, p.tenant_id, "port.published", p.id, NULL, e);
	if (r == 0)
		*ret = published_view(c, &p);
	return r;
}

int route_published_delete(struct call *c, json_t **ret, struct err *e)
{
	struct store_published_port p = {0};
	int r = store_published_port_get(c->d->store, c->scope, c->params[0], &p, e);

	(void)ret;
	if (r == 0)
		r = call_about(c, p.tenant_id);
	if (r == 0)
		r = store_published_port_delete(c->d->store, c->scope, p.id, e);
	if (r < 0)
		return r;
	return event_add(c->d->store, p.tenant_id, "port.withdrawn", p.id, NULL, e);
}

json_t *network_nics(struct store *s, const char *instance_id)
{
	struct store_port ports[NICS_MAX];
	json_t *list = json_array();
	int n = store_port_list(s, store_scope_all(), "", instance_id, NULL, ports, NICS_MAX, NULL);

	for (int i = 0; i < n; i++)
		(void)json_array_append_new(
			list, json_pack("{s:s,s:s,s:s}", "network", ports[i].network_id, "mac",
				      ports[i].mac, "ip", ports[i].ip));
	return list;
}

json_t *network_published(struct store *s, const char *instance_id)
{
	struct store_published_port rows[INSTANCE_PUBLISH_MAX];
	json_t *list = json_array();
	struct store_port port = {0};
	int n = store_port_list(s, store_scope_all(), "", instance_id, NULL, &port, 1, NULL);

	if (n > 0)
		n = store_published_port_list(
			s, store_scope_all(), port.id, "", NULL, rows, INSTANCE_PUBLISH_MAX, NULL);
	for (int i = 0; i < n; i++)
		(void)json_array_append_new(
			list, json_pack("{s:s,s:s,s:i,s:i}", "id", rows[i].id, "protocol",
				      store_name(&store_protocols, rows[i].protocol), "host_port",
				      (int)rows[i].host_port, "port", (int)rows[i].guest_port));
	return list;
}
