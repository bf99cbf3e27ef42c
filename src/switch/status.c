/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "io/json.h"
#include "switch/network.h"

/* A counter that could not be stored makes the object shorter, which is noticed at the end. */
#define X(name, meaning) json_object_set_new(o, #name, json_integer((json_int_t)c->name)) |
#define DEFINE_COUNTERS(function, type, TABLE)        \
	static json_t *function(const struct type *c) \
	{                                             \
		json_t *o = json_object();            \
                                                      \
		if ((TABLE 0) == 0)                   \
			return o;                     \
		json_decref(o);                       \
		return NULL;                          \
	}

DEFINE_COUNTERS(nic_counters_json, nic_counters, NIC_COUNTER_TABLE(X))
DEFINE_COUNTERS(connection_counters_json, connection_counters, CONNECTION_COUNTER_TABLE(X))
DEFINE_COUNTERS(network_counters_json, network_counters, NETWORK_COUNTER_TABLE(X))
DEFINE_COUNTERS(tunnel_counters_json, tunnel_counters, TUNNEL_COUNTER_TABLE(X))
#undef X

static json_t *nic_json(const struct nic *nic)
{
	char mac[MAC_TEXT], ip[IP4_TEXT];

	mac_format(nic->mac, mac);
	ip4_format(nic->ip, ip);
	return json_pack("{s:s, s:s, s:s, s:b, s:I, s:o, s:o}", "mac", mac, "ip", ip, "socket",
		nic->path, "connected", nic_is_connected(nic), "connections",
		(json_int_t)connections_count(nic->connections), "firewall",
		connection_counters_json(connections_counters(nic->connections)), "counters",
		nic_counters_json(&nic->counters));
}

static json_t *published_json(const struct published *p)
{
	char address[IP4_TEXT], ip[IP4_TEXT];

	ip4_format(p->publish.address, address);
	ip4_format(p->publish.ip, ip);
	return json_pack("{s:s, s:s, s:i, s:s, s:i, s:s?}", "protocol",
		p->publish.protocol == PROTOCOL_UDP ? "udp" : "tcp", "address", address,
		"host_port", p->publish.host_port, "ip", ip, "port", p->publish.port, "error",
		p->error < 0 ? strerror(-p->error) : NULL);
}

static json_t *overlay_json(const struct network *n)
{
	char listen[ADDRESS_TEXT] = "", host[ADDRESS_TEXT];
	json_t *peers;

	if (!n->tunnel)
		return json_pack(
			"{s:s?}", "error", n->tunnel_error < 0 ? strerror(-n->tunnel_error) : NULL);
	peers = json_array();
	for (const struct tunnel_peer *p = tunnel_next_peer(n->tunnel, NULL); p;
		p = tunnel_next_peer(n->tunnel, p)) {
		address_format(tunnel_peer_address(p), host);
		(void)json_array_append_new(peers,
			json_pack("{s:s, s:b}", "host", host, "proven", tunnel_peer_is_proven(p)));
	}
	address_format(tunnel_address(n->tunnel), listen);
	return json_pack("{s:s, s:o, s:o}", "listen", listen, "peers", peers, "counters",
		tunnel_counters_json(tunnel_counters(n->tunnel)));
}

json_t *network_status(const struct network *n)
{
	json_t *nics = json_array(), *published = json_array();

	for (size_t i = 0; i < n->nic_count; i++)
		(void)json_array_append_new(nics, nic_json(n->nic[i]));
	for (size_t i = 0; i < n->published_count; i++)
		(void)json_array_append_new(published, published_json(&n->published[i]));
	return json_pack("{s:b, s:s, s:I, s:i, s:o, s:o, s:o, s:o}", "ok", 1, "network",
		n->config ? n->config->id : "", "revision",
		n->config ? (json_int_t)n->config->revision : 0, "mtu",
		n->config ? n->config->mtu : 0, "counters", network_counters_json(&n->counters),
		"nics", nics, "publish", published, "overlay", overlay_json(n));
}
