/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A new configuration is applied by comparing: NICs with the same Ethernet address and socket keep
 * their connection, published ports and the overlay's socket stay open when they are the same, and
 * connections that the rules still allow go on. Only another shape of the network (its addresses,
 * its MTU) begins anew.
 *
 * What can fail because of the host (a port that is in use) does not fail the configuration: it is
 * shown in the status and tried again, since the guests' own traffic needs none of it.
 */
#include "switch/network.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/reader.h"
#include "io/json.h"
#include "io/loop.h"
#include "switch/metadata.h"

#define RETRY_NS (2 * NSEC_PER_SEC)

static void remove_nic(struct network *n, size_t i)
{
	metadata_free(n->nic[i]->metadata);
	nic_free(n->nic[i]);
	n->nic[i] = n->nic[--n->nic_count];
	n->nic[n->nic_count] = NULL;
}

static void remove_published(struct network *n, size_t i)
{
	const struct publish *p = &n->published[i].publish;

	if (n->published[i].error == 0)
		stack_unpublish(n->outside, p->protocol == PROTOCOL_UDP, p->address, p->host_port);
	n->published[i] = n->published[--n->published_count];
}

/* Back to where there is no configuration. */
static void clear(struct network *n)
{
	while (n->nic_count > 0)
		remove_nic(n, n->nic_count - 1);
	n->published_count = 0;
	stack_free(n->outside);
	n->outside = NULL;
	tunnel_free(n->tunnel);
	n->tunnel = NULL;
	config_free(n->config);
	n->config = NULL;
}

void network_free(struct network *n)
{
	if (!n)
		return;
	clear(n);
	loop_drop(&n->retry);
	free(n);
}

/* NICs. */

static struct nic *find_nic(const struct network *n, struct mac mac, const char *path)
{
	for (size_t i = 0; i < n->nic_count; i++)
		if (mac_equal(n->nic[i]->mac, mac) && !strcmp(n->nic[i]->path, path))
			return n->nic[i];
	return NULL;
}

static int add_nic(
	struct network *n, const struct port *port, const char *path, uint16_t mtu, struct err *e)
{
	CLEANUP(nic_free_p) struct nic *nic = NULL;
	int r = nic_new(n->event, path, n->key, forward_from_nic, n, &nic);

	if (r < 0)
		return err_errno(e, r, "NIC at %s", path);
	nic->mac = port->mac;
	nic->ip = port->ip;
	r = metadata_new(n->event, nic, n->router, mtu, n->nics_made++, &nic->metadata, e);
	if (r < 0)
		return r;
	n->nic[n->nic_count++] = TAKE_PTR(nic);
	return 0;
}

static const char *nic_path(const struct port *port)
{
	return json_string_value(json_object_get(port->nic, "socket"));
}

/* Makes the NICs that are new; on failure, none. */
static int add_nics(struct network *n, const struct config *config, struct err *e)
{
	const size_t before = n->nic_count;

	for (size_t i = 0; i < config->port_count; i++) {
		const struct port *p = &config->port[i];
		int r;

		if (!p->nic || find_nic(n, p->mac, nic_path(p)))
			continue;
		r = add_nic(n, p, nic_path(p), config->mtu, e);
		if (r < 0) {
			while (n->nic_count > before)
				remove_nic(n, n->nic_count - 1);
			return r;
		}
	}
	return 0;
}

/* Ties the mapping to the NICs, and drops those that are in it no more. */
static void attach_nics(struct network *n, struct config *config)
{
	for (size_t i = 0; i < n->nic_count; i++)
		n->nic[i]->wanted = false;
	for (size_t i = 0; i < config->port_count; i++) {
		struct port *p = &config->port[i];

		if (!p->nic)
			continue;
		p->attached = find_nic(n, p->mac, nic_path(p));
		p->attached->wanted = true;
		p->attached->ip = p->ip;
		metadata_set(
			p->attached->metadata, json_object_get(p->nic, "metadata"), p->hostname);
		connections_recheck(p->attached->connections, &config->rules, p->ip);
	}
	for (size_t i = n->nic_count; i-- > 0;)
		if (!n->nic[i]->wanted)
			remove_nic(n, i);
}

/* The way out. */

static int apply_outside(struct network *n, const struct config *config, struct err *e)
{
	const struct stack_options options = {.network = config->cidr,
		.host = config->gateway,
		.nameserver = config->cidr.network, /* see forward.c */
		.mac = n->router,
		.mtu = config->mtu};
	int r;

	if (n->config && n->config->outside != config->outside) {
		n->published_count = 0;
		stack_free(n->outside);
		n->outside = NULL;
	}
	if (n->outside || !config->outside)
		return 0;
	r = stack_new(n->event, &options, forward_from_outside, n, &n->outside);
	return r < 0 ? err_errno(e, r, "way out") : 0;
}

static bool publish_equal(const struct publish *a, const struct publish *b)
{
	return a->protocol == b->protocol && a->address == b->address &&
	       a->host_port == b->host_port && a->ip == b->ip && a->port == b->port;
}

static bool is_published_here(const struct config *c, const struct publish *p)
{
	const struct port *port = config_find(c, p->ip);

	return c->outside && port && port->nic;
}

static void try_publish(const struct network *n, struct published *p)
{
	const struct publish *q = &p->publish;

	p->error = stack_publish(
		n->outside, q->protocol == PROTOCOL_UDP, q->address, q->host_port, q->ip, q->port);
	if (p->error < 0)
		log_control(LOG_WARNING, "cannot publish", " host_port=%u error=%s", q->host_port,
			log_quote(strerror(-p->error)));
}

/* Ports are published on the host where their guest is: answers find their way only there. */
static void apply_publish(struct network *n, const struct config *config)
{
	for (size_t i = n->published_count; i-- > 0;) {
		bool stays = false;

		for (size_t k = 0; k < config->publish_count && !stays; k++)
			stays = is_published_here(config, &config->publish[k]) &&
				publish_equal(&n->published[i].publish, &config->publish[k]);
		if (!stays)
			remove_published(n, i);
	}
	for (size_t k = 0; k < config->publish_count; k++) {
		bool known = false;

		for (size_t i = 0; i < n->published_count && !known; i++)
			known = publish_equal(&n->published[i].publish, &config->publish[k]);
		if (known || !is_published_here(config, &config->publish[k]))
			continue;
		n->published[n->published_count] =
			(struct published){.publish = config->publish[k]};
		try_publish(n, &n->published[n->published_count++]);
	}
}

/* The overlay. */

static void try_tunnel(struct network *n, struct config *config)
{
	struct port *p;

	if (!n->tunnel && config->overlay.size != 0) {
		n->tunnel_error =
			tunnel_new(n->event, &config->overlay, forward_from_tunnel, n, &n->tunnel);
		if (n->tunnel_error < 0)
			log_control(LOG_WARNING, "cannot open the overlay", " error=%s",
				log_quote(strerror(-n->tunnel_error)));
	}
	if (!n->tunnel)
		return;
	tunnel_set_keys(n->tunnel, config->vni, config->key, config->key_count);
	tunnel_peers_begin(n->tunnel);
	for (size_t i = 0; i < config->port_count; i++) {
		p = &config->port[i];
		p->peer = p->nic || p->host.size == 0 ? NULL : tunnel_peer(n->tunnel, &p->host);
	}
	tunnel_peers_end(n->tunnel);
}

static void apply_tunnel(struct network *n, struct config *config)
{
	if (n->tunnel && (config->overlay.size == 0 ||
				 !address_equal(&config->overlay, &n->config->overlay))) {
		tunnel_free(n->tunnel);
		n->tunnel = NULL;
	}
	n->tunnel_error = 0;
	try_tunnel(n, config);
}

static int on_retry(void *userdata)
{
	struct network *n = userdata;

	if (!n->config)
		return 0;
	for (size_t i = 0; i < n->published_count; i++)
		if (n->published[i].error < 0)
			try_publish(n, &n->published[i]);
	if (!n->tunnel)
		try_tunnel(n, n->config);
	return 0;
}

static bool same_shape(const struct config *a, const struct config *b)
{
	return a->cidr.network == b->cidr.network && a->cidr.mask == b->cidr.mask &&
	       a->gateway == b->gateway && a->mtu == b->mtu;
}

/* Locally administered, and made of the gateway's address: alike on every host. */
static struct mac router_mac(uint32_t gateway)
{
	struct mac mac = {{0x52, 0x55}};

	put_u32_be(&mac.byte[2], gateway);
	return mac;
}

int network_configure(struct network *n, struct config *config, struct err *e)
{
	int r;

	if (!n->config || !same_shape(n->config, config)) {
		clear(n);
		n->router = router_mac(config->gateway);
	}
	r = apply_outside(n, config, e);
	if (r == 0)
		r = add_nics(n, config, e);
	if (r < 0)
		return r;
	attach_nics(n, config);
	apply_tunnel(n, config);
	if (n->outside)
		apply_publish(n, config);
	config_free(n->config);
	n->config = config;
	return 0;
}

int network_new(sd_event *event, struct network **ret)
{
	struct network *n;
	int r;

	if (sodium_init() < 0)
		return -EIO;
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	n->event = event;
	randombytes_buf(n->key, sizeof(n->key));
	r = loop_every(event, RETRY_NS, on_retry, n, &n->retry);
	if (r < 0) {
		network_free(n);
		return r;
	}
	*ret = n;
	return 0;
}
