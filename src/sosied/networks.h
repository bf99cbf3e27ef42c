/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOSIE_SOSIED_NETWORKS_H
#define SOSIE_SOSIED_NETWORKS_H

#include "sosied/call.h"
#include "store/networks.h"

#define DEFAULT_NETWORK "default"

/* In a writing transaction, like everything here. */
int network_create_default(
	struct store *s, const struct source *source, const char *tenant_id, struct err *e);
int network_delete(struct store *s, const struct store_network *network, struct err *e);
/* tenants.c: a tenant with its default network. */
int tenant_create(struct store *s, const struct source *source, const char *name,
	struct store_tenant *ret, struct err *e);

/* By id or by name, as the call may see it. */
int network_find(struct call *c, const char *name, struct store_network *ret, struct err *e);
/*
 * Gives the n instances (ids) an address each in the network. ERR_NO_CAPACITY when there are
 * not enough.
 */
int network_join(struct call *c, const struct store_network *network,
	const char (*ids)[STORE_ID_SIZE], size_t n, struct err *e);
/*
 * Publishes the instance's port on its host; host_port 0: one that is free. The instance must be
 * on a host.
 */
int network_publish(struct call *c, const char *instance_id, const char *host_id,
	unsigned int protocol, uint16_t host_port, uint16_t guest_port,
	struct store_published_port *ret, struct err *e);
/* [{"network","ip","mac",…}] of an instance, [{"host_port",…}] of what it publishes. */
json_t *network_nics(struct store *s, const char *instance_id);
json_t *network_published(struct store *s, const char *instance_id);

#endif
