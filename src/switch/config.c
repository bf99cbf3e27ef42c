/* SPDX-License-Identifier: Apache-2.0 */
#include "switch/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>

#include "io/json.h"

#define TEXT_MAX      4096
#define MTU_MIN       576
#define USER_DATA_MAX (64U << 10)

int address_parse(const char *text, struct address *ret)
{
	const struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM};
	const char *colon = strrchr(text, ':');
	struct addrinfo *found;
	char host[ADDRESS_TEXT];
	size_t n = colon ? (size_t)(colon - text) : 0;
	uint64_t port;

	if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	if (n == 0 || n >= sizeof(host) || parse_u64(colon + 1, UINT16_MAX, &port) < 0)
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = '\0';
	if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
		return -EINVAL;
	*ret = (struct address){.size = found->ai_addrlen};
	memcpy(&ret->storage, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return 0;
}

void address_format(const struct address *a, char out[ADDRESS_TEXT])
{
	char host[INET6_ADDRSTRLEN] = "", port[6] = "";

	out[0] = '\0';
	if (a->size == 0 || getnameinfo(&a->any, a->size, host, sizeof(host), port, sizeof(port),
				    NI_NUMERICHOST | NI_NUMERICSERV | NI_DGRAM) != 0)
		return;
	(void)snprintf(
		out, ADDRESS_TEXT, a->any.sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

bool address_equal(const struct address *a, const struct address *b)
{
	if (a->any.sa_family != b->any.sa_family)
		return false;
	if (a->any.sa_family == AF_INET) {
		const struct sockaddr_in *x = (const void *)&a->storage,
					 *y = (const void *)&b->storage;

		return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
	}
	const struct sockaddr_in6 *x = (const void *)&a->storage, *y = (const void *)&b->storage;

	return x->sin6_port == y->sin6_port &&
	       memcmp(&x->sin6_addr, &y->sin6_addr, sizeof(x->sin6_addr)) == 0;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	json_decref(c->document);
	free(c->port);
	explicit_bzero(c->key, sizeof(c->key));
	free(c);
}

static int compare_ports(const void *a, const void *b)
{
	const struct port *x = a, *y = b;

	return (x->ip > y->ip) - (x->ip < y->ip);
}

static int compare_macs(const void *a, const void *b)
{
	const struct port *x = a, *y = b;

	return memcmp(&x->mac, &y->mac, sizeof(x->mac));
}

/* Leaves the ports in the order of their addresses. */
static int sort_ports(struct config *c, struct err *e)
{
	qsort(c->port, c->port_count, sizeof(*c->port), compare_macs);
	for (size_t i = 1; i < c->port_count; i++)
		if (mac_equal(c->port[i].mac, c->port[i - 1].mac))
			return err_set(e, ERR_INVALID, "two ports have the same Ethernet address");
	qsort(c->port, c->port_count, sizeof(*c->port), compare_ports);
	for (size_t i = 1; i < c->port_count; i++)
		if (c->port[i].ip == c->port[i - 1].ip)
			return err_set(e, ERR_INVALID, "two ports have the same IP address");
	return 0;
}

struct port *config_find(const struct config *c, uint32_t ip)
{
	const struct port wanted = {.ip = ip};

	if (c->port_count == 0)
		return NULL;
	return bsearch(&wanted, c->port, c->port_count, sizeof(*c->port), compare_ports);
}

/* Fields that are text of some form. */

static int bad(struct err *e, const char *name, const char *text, const char *wanted)
{
	return err_set(e, ERR_INVALID, "%s \"%.64s\" is no %s", name, text, wanted);
}

static int get_ip(const json_t *o, const char *name, uint32_t *ret, struct err *e)
{
	const char *text;
	int r = json_get_string(o, name, TEXT_MAX, &text, e);

	if (r < 0)
		return r;
	return ip4_parse(text, ret) < 0 ? bad(e, name, text, "IPv4 address") : 0;
}

static int get_mac(const json_t *o, struct mac *ret, struct err *e)
{
	const char *text;
	int r = json_get_string(o, "mac", TEXT_MAX, &text, e);

	if (r < 0)
		return r;
	return mac_parse(text, ret) < 0 ? bad(e, "mac", text, "station's Ethernet address") : 0;
}

/* *ret is untouched when the field is missing. */
static int get_cidr_or(const json_t *o, const char *name, struct cidr *ret, struct err *e)
{
	const char *text;
	int r = json_get_string_or(o, name, TEXT_MAX, NULL, &text, e);

	if (r < 0 || !text)
		return r;
	return cidr_parse(text, ret) < 0 ? bad(e, name, text, "network such as 10.0.0.0/8") : 0;
}

/* An empty one is missing too: a host that has told none yet. */
static int get_address_or(const json_t *o, const char *name, struct address *ret, struct err *e)
{
	const char *text;
	int r = json_get_string_or(o, name, TEXT_MAX, NULL, &text, e);

	if (r < 0 || !text || text[0] == '\0')
		return r;
	return address_parse(text, ret) < 0 ? bad(e, name, text, "numeric ADDRESS:PORT") : 0;
}

static int get_protocol(
	const json_t *o, const char *fallback, bool any, uint8_t *ret, struct err *e)
{
	static const struct {
		const char *name;
		uint8_t protocol;
	} table[] = {{"tcp", PROTOCOL_TCP}, {"udp", PROTOCOL_UDP}, {"icmp", PROTOCOL_ICMP},
		{"any", PROTOCOL_ANY}};
	const char *text;
	int r = json_get_string_or(o, "protocol", TEXT_MAX, fallback, &text, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < (any ? ARRAY_SIZE(table) : 2U); i++)
		if (!strcmp(text, table[i].name)) {
			*ret = table[i].protocol;
			return 0;
		}
	return bad(e, "protocol", text, any ? "one of tcp, udp, icmp, any" : "tcp or udp");
}

static int get_port(const json_t *o, const char *name, uint16_t *ret, struct err *e)
{
	int64_t v;
	int r = json_get_integer(o, name, 1, UINT16_MAX, &v, e);

	if (r == 0)
		*ret = (uint16_t)v;
	return r;
}

/* The parts of the document. */

static int parse_keys(const json_t *network, struct config *c, struct err *e)
{
	const json_t *keys, *item;
	const char *single;
	size_t i;
	int r = json_get_string_or(network, "key", TEXT_MAX, NULL, &single, e);

	if (r < 0)
		return r;
	r = json_get_array_or_null(network, "keys", KEYS_MAX, &keys, e);
	if (r < 0)
		return r;
	if (single && !keys) {
		c->key_count = 1;
		return hex_decode(single, c->key[0].key, KEY_SIZE) < 0
			       ? err_set(e, ERR_INVALID, "key is not %d hexadecimal digits",
					 2 * KEY_SIZE)
			       : 0;
	}
	json_array_foreach(keys, i, item)
	{
		const char *text = "";
		int64_t id = 0;

		r = json_get_integer(item, "id", 0, UINT8_MAX, &id, e);
		if (r == 0)
			r = json_get_string(item, "key", TEXT_MAX, &text, e);
		if (r < 0)
			return r;
		c->key[i].id = (uint8_t)id;
		if (hex_decode(text, c->key[i].key, KEY_SIZE) < 0)
			return err_set(e, ERR_INVALID,
				"key %" PRId64 " is not %d hexadecimal digits", id, 2 * KEY_SIZE);
		for (size_t k = 0; k < i; k++)
			if (c->key[k].id == c->key[i].id)
				return err_set(e, ERR_INVALID, "two keys have id %" PRId64, id);
		c->key_count++;
	}
	return 0;
}

static bool is_usable(const struct config *c, uint32_t ip)
{
	return cidr_contains(c->cidr, ip) && ip != c->cidr.network &&
	       ip != (c->cidr.network | ~c->cidr.mask);
}

static int parse_network(const json_t *network, struct config *c, struct err *e)
{
	const json_t *dns = NULL;
	int64_t vni = 0;
	int r = json_get_string(network, "id", NAME_MAX_LENGTH, &c->id, e);

	if (r == 0)
		r = json_get_integer(network, "vni", 0, VNI_MAX, &vni, e);
	if (r == 0)
		r = get_cidr_or(network, "cidr", &c->cidr, e);
	if (r == 0)
		r = get_ip(network, "gateway", &c->gateway, e);
	if (r == 0)
		r = json_get_string_or(network, "domain", NAME_MAX_LENGTH, "", &c->domain, e);
	if (r == 0)
		r = json_get_array_or_null(network, "dns", ARRAY_SIZE(c->dns), &dns, e);
	if (r < 0)
		return r;
	c->vni = (uint32_t)vni;
	if (c->cidr.mask == 0 || c->cidr.mask > UINT32_MAX - 3)
		return err_set(
			e, ERR_INVALID, "field /network/cidr must be a network of /1 to /30");
	if (!is_usable(c, c->gateway))
		return err_set(e, ERR_INVALID, "the gateway is no host address of the network");
	for (size_t i = 0; i < json_array_size(dns); i++) {
		const char *text = json_string_value(json_array_get(dns, i));

		if (!text || ip4_parse(text, &c->dns[i]) < 0)
			return bad(e, "dns", text ? text : "", "IPv4 address");
		c->dns_count++;
	}
	return parse_keys(network, c, e);
}

static int parse_local(const json_t *local, struct config *c, struct err *e)
{
	const json_t *forbidden = NULL;
	int64_t underlay = 0, mtu = 0;
	int r = get_address_or(local, "overlay", &c->overlay, e);

	if (r == 0)
		r = json_get_integer_or(local, "underlay_mtu", MTU_MIN + OVERLAY_OVERHEAD,
			FRAME_MTU_MAX + OVERLAY_OVERHEAD, UNDERLAY_MTU, &underlay, e);
	if (r == 0)
		r = json_get_integer_or(local, "mtu", MTU_MIN, underlay - OVERLAY_OVERHEAD,
			underlay - OVERLAY_OVERHEAD, &mtu, e);
	if (r == 0)
		r = json_get_boolean_or(local, "outside", true, &c->outside, e);
	if (r == 0)
		r = json_get_boolean_or(local, "host_loopback", false, &c->host_loopback, e);
	if (r == 0)
		r = json_get_array_or_null(local, "forbidden", FORBIDDEN_MAX, &forbidden, e);
	if (r < 0)
		return r;
	c->mtu = (uint16_t)mtu;
	for (size_t i = 0; i < json_array_size(forbidden); i++) {
		const char *text = json_string_value(json_array_get(forbidden, i));

		if (!text || cidr_parse(text, &c->forbidden[i]) < 0)
			return bad(e, "forbidden", text ? text : "", "network such as 10.0.0.0/8");
		c->forbidden_count++;
	}
	return 0;
}

static int check_metadata(const json_t *nic, struct err *e)
{
	static const struct json_field public_key = {
		"", JSON_FIELD_STRING, JSON_REQUIRED, 1, TEXT_MAX, "as in authorized_keys"};
	static const struct json_field fields[] = {
		{"instance_id", JSON_FIELD_NAME, JSON_REQUIRED, 0, 0, "the instance"},
		{"hostname", JSON_FIELD_NAME, JSON_OPTIONAL, 0, 0, "default: the port's"},
		{"instance_type", JSON_FIELD_NAME, JSON_OPTIONAL, 0, 0, "as launched"},
		{"zone", JSON_FIELD_NAME, JSON_OPTIONAL, 0, 0, "availability zone"},
		{"public_keys", JSON_FIELD_ARRAY, JSON_OPTIONAL, 0, PUBLIC_KEYS_MAX, "for SSH",
			.items = &public_key},
		{"user_data", JSON_FIELD_STRING, JSON_OPTIONAL, 0, USER_DATA_MAX, "as text"},
		{"user_data_base64", JSON_FIELD_STRING, JSON_OPTIONAL, 0, 2L * USER_DATA_MAX,
			"as bytes"},
		{"token_required", JSON_FIELD_BOOLEAN, JSON_OPTIONAL, 0, 0,
			"refuse requests without a session token"},
		{0}};
	const json_t *metadata;
	int r = json_get_object_or_null(nic, "metadata", &metadata, e);

	return r < 0 || !metadata ? r : json_check(metadata, fields, e);
}

static int parse_ports(const json_t *network, struct config *c, struct err *e)
{
	const json_t *ports, *item;
	size_t i;
	int r = json_get_array(network, "ports", PORTS_MAX, &ports, e);

	if (r < 0)
		return r;
	c->port = calloc(json_array_size(ports) + 1, sizeof(*c->port));
	if (!c->port)
		return -ENOMEM;
	json_array_foreach(ports, i, item)
	{
		struct port *p = &c->port[i];

		r = get_mac(item, &p->mac, e);
		if (r == 0)
			r = get_ip(item, "ip", &p->ip, e);
		if (r == 0)
			r = json_get_string_or(
				item, "hostname", NAME_MAX_LENGTH, "", &p->hostname, e);
		if (r == 0)
			r = get_address_or(item, "host", &p->host, e);
		if (r < 0)
			return r;
		if (!is_usable(c, p->ip) || p->ip == c->gateway)
			return err_set(e, ERR_INVALID,
				"port %zu has no guest's address of the network", i);
		c->port_count++;
	}
	return sort_ports(c, e);
}

static int parse_nics(const json_t *local, struct config *c, struct err *e)
{
	const json_t *nics, *item;
	size_t i;
	int r = json_get_array_or_null(local, "nics", NICS_MAX, &nics, e);

	if (r < 0)
		return r;
	json_array_foreach(nics, i, item)
	{
		struct port *found = NULL;
		struct mac mac = {0};
		const char *socket = NULL;

		r = get_mac(item, &mac, e);
		if (r == 0)
			r = json_get_string(item, "socket", SOCKET_PATH_MAX - 1, &socket, e);
		if (r == 0)
			r = check_metadata(item, e);
		if (r < 0)
			return r;
		for (size_t k = 0; k < c->port_count && !found; k++)
			if (mac_equal(c->port[k].mac, mac))
				found = &c->port[k];
		if (!found || found->nic)
			return err_set(e, ERR_INVALID, "NIC %zu is %s", i,
				found ? "there twice" : "not in the network's mapping");
		found->nic = item;
	}
	return 0;
}

static int add_rule(struct config *c, const struct rule *rule, struct err *e)
{
	if (c->rules.count == RULES_MAX)
		return err_set(e, ERR_TOO_LARGE, "more than %d rules and published ports together",
			RULES_MAX);
	c->rules.rule[c->rules.count++] = *rule;
	return 0;
}

/*
 * The gateway's address is the host's loopback to libslirp. Answers to what the host opened (a
 * published port, used on the host itself) must pass, and nothing else may: which is what a rule
 * says, whereas libslirp's own switch for it would stop the answers of UDP too.
 */
static int add_loopback_rules(struct config *c, struct err *e)
{
	struct rule rule = {.direction = DIRECTION_OUT,
		.deny = true,
		.last_port = UINT16_MAX,
		.local = CIDR_ANY,
		.peer = {c->gateway, IP4_BROADCAST}};
	int r;

	if (c->host_loopback)
		return 0;
	rule.protocol = PROTOCOL_TCP;
	r = add_rule(c, &rule, e);
	rule.protocol = PROTOCOL_UDP;
	return r < 0 ? r : add_rule(c, &rule, e);
}

/* A published port is a rule too: to publish and then to deny would help nobody. */
static int parse_publish(
	const json_t *network, const json_t *local, struct config *c, struct err *e)
{
	const json_t *publish = NULL, *item;
	const char *address = "";
	uint32_t ip;
	size_t i;
	int r = json_get_array_or_null(network, "publish", PUBLISH_MAX, &publish, e);

	if (r == 0)
		r = json_get_string_or(local, "publish_address", TEXT_MAX, "0.0.0.0", &address, e);
	if (r < 0)
		return r;
	if (ip4_parse(address, &ip) < 0)
		return bad(e, "publish_address", address, "IPv4 address");
	json_array_foreach(publish, i, item)
	{
		struct publish p = {.address = ip};
		struct rule rule = {.direction = DIRECTION_IN, .outside = true, .peer = CIDR_ANY};

		r = get_protocol(item, "tcp", false, &p.protocol, e);
		if (r == 0)
			r = get_port(item, "host_port", &p.host_port, e);
		if (r == 0)
			r = get_ip(item, "ip", &p.ip, e);
		if (r == 0)
			r = get_port(item, "port", &p.port, e);
		if (r < 0)
			return r;
		rule.protocol = p.protocol;
		rule.first_port = rule.last_port = p.port;
		rule.local = (struct cidr){p.ip, IP4_BROADCAST};
		r = add_rule(c, &rule, e);
		if (r < 0)
			return r;
		c->publish[c->publish_count++] = p;
	}
	return 0;
}

static int parse_rule(const json_t *item, struct rule *rule, struct err *e)
{
	const char *direction = "", *action = "", *ports = "";
	int r = json_get_string(item, "direction", TEXT_MAX, &direction, e);

	if (r == 0)
		r = json_get_string_or(item, "action", TEXT_MAX, "allow", &action, e);
	if (r == 0)
		r = get_protocol(item, "any", true, &rule->protocol, e);
	if (r == 0)
		r = json_get_string_or(item, "ports", TEXT_MAX, "0-65535", &ports, e);
	if (r == 0)
		r = get_cidr_or(item, "cidr", &rule->peer, e);
	if (r == 0)
		r = get_cidr_or(item, "target", &rule->local, e);
	if (r < 0)
		return r;
	if (!strcmp(direction, "in") || !strcmp(direction, "out"))
		rule->direction = direction[0] == 'i' ? DIRECTION_IN : DIRECTION_OUT;
	else
		return bad(e, "direction", direction, "in or out");
	if (strcmp(action, "allow") != 0 && strcmp(action, "deny") != 0)
		return bad(e, "action", action, "allow or deny");
	rule->deny = action[0] == 'd';
	if (port_range_parse(ports, &rule->first_port, &rule->last_port) < 0)
		return bad(e, "ports", ports, "range such as 80-443");
	return 0;
}

static int parse_rules(const json_t *network, struct config *c, struct err *e)
{
	const json_t *rules, *item;
	size_t i;
	int r = json_get_array_or_null(network, "rules", RULES_MAX, &rules, e);

	if (r < 0)
		return r;
	json_array_foreach(rules, i, item)
	{
		struct rule rule = {.local = CIDR_ANY, .peer = CIDR_ANY};

		r = parse_rule(item, &rule, e);
		if (r == 0)
			r = add_rule(c, &rule, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int config_parse(json_t *document, struct config **ret, struct err *e)
{
	CLEANUP(config_free_p) struct config *c = calloc(1, sizeof(*c));
	const json_t *network = NULL, *local = NULL;
	int r;

	if (!c)
		return err_errno(e, -ENOMEM, "configuration");
	r = json_get_integer(document, "revision", 0, INT64_MAX, &c->revision, e);
	if (r == 0)
		r = json_get_object(document, "network", &network, e);
	if (r == 0)
		r = json_get_object(document, "local", &local, e);
	if (r == 0)
		r = parse_network(network, c, e);
	if (r == 0)
		r = parse_local(local, c, e);
	if (r == 0)
		r = parse_ports(network, c, e);
	if (r == 0)
		r = parse_nics(local, c, e);
	if (r == 0)
		r = add_loopback_rules(c, e);
	if (r == 0)
		r = parse_publish(network, local, c, e);
	if (r == 0)
		r = parse_rules(network, c, e);
	if (r < 0)
		return r;
	if (c->overlay.size != 0 && c->key_count == 0)
		return err_set(e, ERR_INVALID, "an overlay needs a key");
	c->document = json_incref(document);
	*ret = TAKE_PTR(c);
	return 0;
}
