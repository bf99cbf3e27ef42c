/* SPDX-License-Identifier: Apache-2.0 */
#include "store/networks.h"

#include <errno.h>
#include <string.h>

#include "store/entity.h"
#include "store/touch.h"

STORE_DEFINE_NAMES(store_directions, STORE_DIRECTION_TABLE);
STORE_DEFINE_NAMES(store_protocols, STORE_PROTOCOL_TABLE);

/* Networks that one change may touch: those of an instance, or of a security group's ports. */
#define TOUCHED_MAX 4096

static const struct field network_fields[] = {
	TEXT(store_network, id),
	TEXT(store_network, tenant_id),
	TEXT(store_network, name),
	TEXT(store_network, cidr),
	TEXT(store_network, gateway),
	INTEGER(store_network, vni),
	TEXT(store_network, overlay_key),
	INTEGER(store_network, created),
	INTEGER(store_network, revision),
};
DEFINE_ENTITY(network_entity, "network", "n", store_network, network_fields);

static const struct field port_fields[] = {
	TEXT(store_port, id),
	TEXT(store_port, tenant_id),
	TEXT(store_port, network_id),
	REFERENCE(store_port, instance_id),
	REFERENCE(store_port, security_group_id),
	TEXT(store_port, mac),
	TEXT(store_port, ip),
	INTEGER(store_port, created),
	INTEGER(store_port, revision),
};
DEFINE_ENTITY(port_entity, "port", "p", store_port, port_fields);

static const struct field security_group_fields[] = {
	TEXT(store_security_group, id),
	TEXT(store_security_group, tenant_id),
	TEXT(store_security_group, name),
	INTEGER(store_security_group, created),
	INTEGER(store_security_group, revision),
};
DEFINE_ENTITY(
	security_group_entity, "security group", "s", store_security_group, security_group_fields);

static const struct field security_rule_fields[] = {
	TEXT(store_security_rule, id),
	TEXT(store_security_rule, tenant_id),
	TEXT(store_security_rule, security_group_id),
	ENUM(store_security_rule, direction, &store_directions),
	ENUM(store_security_rule, protocol, &store_protocols),
	INTEGER(store_security_rule, first_port),
	INTEGER(store_security_rule, last_port),
	TEXT(store_security_rule, remote),
	INTEGER(store_security_rule, created),
	INTEGER(store_security_rule, revision),
};
DEFINE_ENTITY(
	security_rule_entity, "security rule", "r", store_security_rule, security_rule_fields);

static const struct field published_port_fields[] = {
	TEXT(store_published_port, id),
	TEXT(store_published_port, tenant_id),
	TEXT(store_published_port, port_id),
	TEXT(store_published_port, host_id),
	ENUM(store_published_port, protocol, &store_protocols),
	INTEGER(store_published_port, host_port),
	INTEGER(store_published_port, guest_port),
	INTEGER(store_published_port, created),
	INTEGER(store_published_port, revision),
};
DEFINE_ENTITY(
	published_port_entity, "published port", "u", store_published_port, published_port_fields);

static int touch(struct store *s, const char *network_id, struct err *e)
{
	uint64_t revision = 0;
	int r = store_next_revision(s, &revision, e);

	if (r < 0)
		return r;
	r = store_exec(s, NETWORK_TOUCH,
		STORE_VALUES(store_text(network_id), store_integer(revision)), NULL, e);
	return r < 0 ? r : store_host_touch(s, HOST_TOUCH_OF_NETWORK, network_id, e);
}

/* The first network behind `after` that the query finds for the id. 1 if there is one. */
static int next_network(struct store *s, enum store_query q, const char *id, const char *after,
	char ret[STORE_ID_SIZE], struct err *e)
{
	CLEANUP_ROWS struct store_rows rows = {0};
	struct store_value v;
	int r = store_query(s, q, STORE_VALUES(store_text(id), store_text(after)), &rows, e);

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

static int touch_all(struct store *s, enum store_query q, const char *id, struct err *e)
{
	char network[STORE_ID_SIZE], after[STORE_ID_SIZE] = "";

	for (unsigned int i = 0; i < TOUCHED_MAX; i++) {
		int r = next_network(s, q, id, after, network, e);

		if (r <= 0)
			return r;
		r = touch(s, network, e);
		if (r < 0)
			return r;
		memcpy(after, network, sizeof(after));
	}
	return store_doom(s,
		err_set(e, ERR_LIMIT, "the change would touch more than %d networks", TOUCHED_MAX));
}

int store_network_create(struct store *s, struct store_network *network, struct err *e)
{
	struct store_network row = *network;
	uint64_t vni;
	int r;

	if (row.vni == 0) {
		r = store_query_integer(s, NETWORK_NEXT_VNI, NULL, 0, &vni, e);
		if (r < 0)
			return r;
		row.vni = (uint32_t)vni;
	}
	r = entity_insert(s, &network_entity, NETWORK_INSERT, &row, e);
	if (r == 0)
		*network = row;
	return r;
}

int store_network_get(struct store *s, struct store_scope scope, const char *id,
	struct store_network *ret, struct err *e)
{
	return entity_get(
		s, &network_entity, NETWORK_GET, STORE_VALUES(SCOPED_ID(scope, id)), id, ret, e);
}

int store_network_by_name(struct store *s, const char *tenant_id, const char *name,
	struct store_network *ret, struct err *e)
{
	return entity_get(s, &network_entity, NETWORK_BY_NAME,
		STORE_VALUES(store_text(tenant_id), store_text(name)), name, ret, e);
}

int store_network_list(struct store *s, struct store_scope scope, const struct store_page *after,
	struct store_network *ret, size_t max, struct err *e)
{
	return entity_list(s, &network_entity, NETWORK_LIST,
		STORE_VALUES(PAGE_VALUES(scope, after, max)), ret, max, e);
}

int store_network_of_host_since(struct store *s, const char *host_id, uint64_t since,
	struct store_network *ret, size_t max, struct err *e)
{
	return entity_list(s, &network_entity, NETWORK_OF_HOST_SINCE,
		STORE_VALUES(
			store_text(host_id), store_integer(since), store_integer(page_limit(max))),
		ret, max, e);
}

int store_network_touch_instance(struct store *s, const char *instance_id, struct err *e)
{
	return touch_all(s, NETWORK_OF_INSTANCE, instance_id, e);
}

int store_network_delete(struct store *s, struct store_scope scope, const char *id, struct err *e)
{
	return entity_delete(
		s, &network_entity, NETWORK_DELETE, STORE_VALUES(SCOPED_ID(scope, id)), e);
}

int store_port_create(struct store *s, struct store_port *port, struct err *e)
{
	int r = entity_insert(s, &port_entity, PORT_INSERT, port, e);

	if (r == -EEXIST)
		return err_set(e, ERR_CONFLICT, "address %s or %s is taken in that network",
			port->ip, port->mac);
	return r < 0 ? r : touch(s, port->network_id, e);
}

int store_port_get(struct store *s, struct store_scope scope, const char *id,
	struct store_port *ret, struct err *e)
{
	return entity_get(
		s, &port_entity, PORT_GET, STORE_VALUES(SCOPED_ID(scope, id)), id, ret, e);
}

int store_port_list(struct store *s, struct store_scope scope, const char *network_id,
	const char *instance_id, const struct store_page *after, struct store_port *ret, size_t max,
	struct err *e)
{
	return entity_list(s, &port_entity, PORT_LIST,
		STORE_VALUES(PAGE_VALUES(scope, after, max), store_text(network_id),
			store_text(instance_id)),
		ret, max, e);
}

int store_port_update(
	struct store *s, struct store_scope scope, struct store_port *port, struct err *e)
{
	uint64_t revision = 0;
	int r = touch(s, port->network_id, e);

	if (r == 0)
		r = store_next_revision(s, &revision, e);
	if (r < 0)
		return r;
	r = entity_update(s, &port_entity, PORT_UPDATE,
		STORE_VALUES(store_text(port->id), store_integer(port->revision),
			store_reference(port->instance_id),
			store_reference(port->security_group_id), store_integer(revision),
			store_text(scope_first(scope)), store_text(scope_last(scope))),
		PORT_GET, STORE_VALUES(SCOPED_ID(scope, port->id)), e);
	if (r == 0)
		r = touch(s, port->network_id, e);
	if (r == 0)
		port->revision = revision;
	return r;
}

int store_port_delete(struct store *s, struct store_scope scope, const char *id, struct err *e)
{
	struct store_port port;
	int r = store_port_get(s, scope, id, &port, e);

	if (r < 0)
		return store_doom(s, r);
	r = touch(s, port.network_id, e); /* while its host can be told by it */
	if (r < 0)
		return r;
	return entity_delete(s, &port_entity, PORT_DELETE, STORE_VALUES(SCOPED_ID(scope, id)), e);
}

int store_security_group_create(struct store *s, struct store_security_group *group, struct err *e)
{
	return entity_insert(s, &security_group_entity, SECURITY_GROUP_INSERT, group, e);
}

int store_security_group_get(struct store *s, struct store_scope scope, const char *id,
	struct store_security_group *ret, struct err *e)
{
	return entity_get(s, &security_group_entity, SECURITY_GROUP_GET,
		STORE_VALUES(SCOPED_ID(scope, id)), id, ret, e);
}

int store_security_group_by_name(struct store *s, const char *tenant_id, const char *name,
	struct store_security_group *ret, struct err *e)
{
	return entity_get(s, &security_group_entity, SECURITY_GROUP_BY_NAME,
		STORE_VALUES(store_text(tenant_id), store_text(name)), name, ret, e);
}

int store_security_group_list(struct store *s, struct store_scope scope,
	const struct store_page *after, struct store_security_group *ret, size_t max, struct err *e)
{
	return entity_list(s, &security_group_entity, SECURITY_GROUP_LIST,
		STORE_VALUES(PAGE_VALUES(scope, after, max)), ret, max, e);
}

int store_security_group_delete(
	struct store *s, struct store_scope scope, const char *id, struct err *e)
{
	struct store_security_group group;
	int r = store_security_group_get(s, scope, id, &group, e);

	if (r < 0)
		return store_doom(s, r);
	r = store_exec(s, SECURITY_RULE_DELETE_OF_GROUP, STORE_VALUES(store_text(id)), NULL, e);
	if (r < 0)
		return r;
	return entity_delete(s, &security_group_entity, SECURITY_GROUP_DELETE,
		STORE_VALUES(SCOPED_ID(scope, id)), e);
}

int store_security_rule_create(struct store *s, struct store_security_rule *rule, struct err *e)
{
	int r = entity_insert(s, &security_rule_entity, SECURITY_RULE_INSERT, rule, e);

	return r < 0 ? r : touch_all(s, NETWORK_OF_SECURITY_GROUP, rule->security_group_id, e);
}

int store_security_rule_get(struct store *s, struct store_scope scope, const char *id,
	struct store_security_rule *ret, struct err *e)
{
	return entity_get(s, &security_rule_entity, SECURITY_RULE_GET,
		STORE_VALUES(SCOPED_ID(scope, id)), id, ret, e);
}

int store_security_rule_list(struct store *s, struct store_scope scope, const char *group_id,
	const struct store_page *after, struct store_security_rule *ret, size_t max, struct err *e)
{
	return entity_list(s, &security_rule_entity, SECURITY_RULE_LIST,
		STORE_VALUES(PAGE_VALUES(scope, after, max), store_text(group_id)), ret, max, e);
}

int store_security_rule_delete(
	struct store *s, struct store_scope scope, const char *id, struct err *e)
{
	struct store_security_rule rule;
	int r = store_security_rule_get(s, scope, id, &rule, e);

	if (r < 0)
		return store_doom(s, r);
	r = entity_delete(s, &security_rule_entity, SECURITY_RULE_DELETE,
		STORE_VALUES(SCOPED_ID(scope, id)), e);
	return r < 0 ? r : touch_all(s, NETWORK_OF_SECURITY_GROUP, rule.security_group_id, e);
}

/* The network that the published port's port lies in changes with it. */
static int touch_port(struct store *s, const char *port_id, struct err *e)
{
	struct store_port port;
	int r = store_port_get(s, store_scope_all(), port_id, &port, e);

	return r < 0 ? store_doom(s, r) : touch(s, port.network_id, e);
}

int store_published_port_create(struct store *s, struct store_published_port *port, struct err *e)
{
	int r = entity_insert(s, &published_port_entity, PUBLISHED_PORT_INSERT, port, e);

	if (r == -EEXIST)
		return err_set(e, ERR_CONFLICT, "%s port %u of that host is taken",
			store_name(&store_protocols, port->protocol),
			(unsigned int)port->host_port);
	return r < 0 ? r : touch_port(s, port->port_id, e);
}

int store_published_port_get(struct store *s, struct store_scope scope, const char *id,
	struct store_published_port *ret, struct err *e)
{
	return entity_get(s, &published_port_entity, PUBLISHED_PORT_GET,
		STORE_VALUES(SCOPED_ID(scope, id)), id, ret, e);
}

int store_published_port_list(struct store *s, struct store_scope scope, const char *port_id,
	const char *host_id, const struct store_page *after, struct store_published_port *ret,
	size_t max, struct err *e)
{
	return entity_list(s, &published_port_entity, PUBLISHED_PORT_LIST,
		STORE_VALUES(
			PAGE_VALUES(scope, after, max), store_text(port_id), store_text(host_id)),
		ret, max, e);
}

int store_published_port_delete(
	struct store *s, struct store_scope scope, const char *id, struct err *e)
{
	struct store_published_port port;
	int r = store_published_port_get(s, scope, id, &port, e);

	if (r < 0)
		return store_doom(s, r);
	r = touch_port(s, port.port_id, e); /* while its host can be told by it */
	if (r < 0)
		return r;
	return entity_delete(s, &published_port_entity, PUBLISHED_PORT_DELETE,
		STORE_VALUES(SCOPED_ID(scope, id)), e);
}
