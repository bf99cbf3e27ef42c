/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tenant networks, their ports (an instance's NIC each), security groups and ports published on
 * hosts.
 *
 * Whatever changes below a network raises the network's revision and the desired_revision of the
 * hosts that it is on, deletions too: their agents then read it whole.
 */
#ifndef SOSIE_STORE_NETWORKS_H
#define SOSIE_STORE_NETWORKS_H

#include "store/tenants.h"

#define STORE_ADDRESS_SIZE 46 /* INET6_ADDRSTRLEN */

struct store_network {
	char id[STORE_ID_SIZE];
	char tenant_id[STORE_ID_SIZE];
	char name[STORE_NAME_SIZE];
	char cidr[STORE_ADDRESS_SIZE + 4];
	char gateway[STORE_ADDRESS_SIZE];
	uint32_t vni;         /* 0 when created: the store takes one that is free */
	char overlay_key[65]; /* between hosts, hexadecimal */
	uint64_t created;
	uint64_t revision;
};

int store_network_create(struct store *s, struct store_network *network, struct err *e);
int store_network_get(struct store *s, struct store_scope scope, const char *id,
	struct store_network *ret, struct err *e);
int store_network_by_name(struct store *s, const char *tenant_id, const char *name,
	struct store_network *ret, struct err *e);
int store_network_list(struct store *s, struct store_scope scope, const struct store_page *after,
	struct store_network *ret, size_t max, struct err *e);
/* In order of revision: networks with an instance on the host that changed since. */
int store_network_of_host_since(struct store *s, const char *host_id, uint64_t since,
	struct store_network *ret, size_t max, struct err *e);
/* Raises the revision of each network that the instance has a port in. */
int store_network_touch_instance(struct store *s, const char *instance_id, struct err *e);
/* ERR_CONFLICT while it has ports. */
int store_network_delete(struct store *s, struct store_scope scope, const char *id, struct err *e);

struct store_port {
	char id[STORE_ID_SIZE];
	char tenant_id[STORE_ID_SIZE];
	char network_id[STORE_ID_SIZE];
	char instance_id[STORE_ID_SIZE];       /* empty: kept, but not in use */
	char security_group_id[STORE_ID_SIZE]; /* empty: in closed, out open */
	char mac[18];                          /* unique in the network, lower case */
	char ip[STORE_ADDRESS_SIZE];           /* unique in the network */
	uint64_t created;
	uint64_t revision;
};

int store_port_create(struct store *s, struct store_port *port, struct err *e);
int store_port_get(struct store *s, struct store_scope scope, const char *id,
	struct store_port *ret, struct err *e);
/* Only those of the network and the instance; "" for all. */
int store_port_list(struct store *s, struct store_scope scope, const char *network_id,
	const char *instance_id, const struct store_page *after, struct store_port *ret, size_t max,
	struct err *e);
/* Writes instance and security group, if the revision is still the same. */
int store_port_update(
	struct store *s, struct store_scope scope, struct store_port *port, struct err *e);
/* ERR_CONFLICT while it is published. */
int store_port_delete(struct store *s, struct store_scope scope, const char *id, struct err *e);

struct store_security_group {
	char id[STORE_ID_SIZE];
	char tenant_id[STORE_ID_SIZE];
	char name[STORE_NAME_SIZE];
	uint64_t created;
	uint64_t revision;
};

int store_security_group_create(struct store *s, struct store_security_group *group, struct err *e);
int store_security_group_get(struct store *s, struct store_scope scope, const char *id,
	struct store_security_group *ret, struct err *e);
int store_security_group_by_name(struct store *s, const char *tenant_id, const char *name,
	struct store_security_group *ret, struct err *e);
int store_security_group_list(struct store *s, struct store_scope scope,
	const struct store_page *after, struct store_security_group *ret, size_t max,
	struct err *e);
/* With its rules. ERR_CONFLICT while a port uses it. */
int store_security_group_delete(
	struct store *s, struct store_scope scope, const char *id, struct err *e);

#define STORE_DIRECTION_TABLE(X)    \
	X(STORE_DIRECTION_IN, "in") \
	X(STORE_DIRECTION_OUT, "out")

enum store_direction { STORE_DIRECTION_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_directions;

#define STORE_PROTOCOL_TABLE(X)      \
	X(STORE_PROTOCOL_ANY, "any") \
	X(STORE_PROTOCOL_TCP, "tcp") \
	X(STORE_PROTOCOL_UDP, "udp") \
	X(STORE_PROTOCOL_ICMP, "icmp")

enum store_protocol { STORE_PROTOCOL_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_protocols;

struct store_security_rule {
	char id[STORE_ID_SIZE];
	char tenant_id[STORE_ID_SIZE];
	char security_group_id[STORE_ID_SIZE];
	unsigned int direction; /* enum store_direction */
	unsigned int protocol;  /* enum store_protocol */
	uint16_t first_port;    /* of tcp and udp; 0 to 65535: all */
	uint16_t last_port;
	char remote[STORE_ADDRESS_SIZE + 4]; /* CIDR; empty: everybody */
	uint64_t created;
	uint64_t revision;
};

int store_security_rule_create(struct store *s, struct store_security_rule *rule, struct err *e);
int store_security_rule_get(struct store *s, struct store_scope scope, const char *id,
	struct store_security_rule *ret, struct err *e);
int store_security_rule_list(struct store *s, struct store_scope scope, const char *group_id,
	const struct store_page *after, struct store_security_rule *ret, size_t max, struct err *e);
int store_security_rule_delete(
	struct store *s, struct store_scope scope, const char *id, struct err *e);

struct store_published_port {
	char id[STORE_ID_SIZE];
	char tenant_id[STORE_ID_SIZE];
	char port_id[STORE_ID_SIZE];
	char host_id[STORE_ID_SIZE];
	unsigned int protocol; /* STORE_PROTOCOL_TCP or _UDP */
	uint16_t host_port;    /* unique on the host, per protocol */
	uint16_t guest_port;
	uint64_t created;
	uint64_t revision;
};

int store_published_port_create(struct store *s, struct store_published_port *port, struct err *e);
int store_published_port_get(struct store *s, struct store_scope scope, const char *id,
	struct store_published_port *ret, struct err *e);
/* Only those of the port and the host; "" for all. */
int store_published_port_list(struct store *s, struct store_scope scope, const char *port_id,
	const char *host_id, const struct store_page *after, struct store_published_port *ret,
	size_t max, struct err *e);
int store_published_port_delete(
	struct store *s, struct store_scope scope, const char *id, struct err *e);

#endif
