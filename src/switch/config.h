/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole configuration of one network on one host, as the agent sends it and as it is kept in
 * config.json; docs/switch.md describes the document. It is checked completely before anything is
 * done with it, and afterwards only read.
 */
#ifndef SOSIE_SWITCH_CONFIG_H
#define SOSIE_SWITCH_CONFIG_H

#include <jansson.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/str.h"
#include "core/net/firewall.h"
#include "core/net/overlay.h"

#define PORTS_MAX       4096 /* addresses of a network, over all hosts */
#define NICS_MAX        256  /* of them on this host */
#define PUBLISH_MAX     128
#define KEYS_MAX        4
#define FORBIDDEN_MAX   32
#define PUBLIC_KEYS_MAX 16
#define CONFIG_BYTES    (16U << 20) /* of the document */
#define SOCKET_PATH_MAX 108         /* with its NUL: struct sockaddr_un's */
#define KEY_SIZE        32
#define UNDERLAY_MTU    1500 /* default */
#define ADDRESS_TEXT    64

/* A UDP end point between hosts. */
struct address {
	union {
		struct sockaddr any;
		struct sockaddr_storage storage;
	};
	socklen_t size; /* 0: none */
};

/* "1.2.3.4:5" or "[::1]:5", numeric. -EINVAL otherwise. */
int address_parse(const char *text, struct address *ret);
void address_format(const struct address *a, char out[ADDRESS_TEXT]);
bool address_equal(const struct address *a, const struct address *b);

struct overlay_key {
	uint8_t id;
	uint8_t key[KEY_SIZE];
};

/* One line of the mapping. */
struct port {
	struct mac mac;
	uint32_t ip;
	const char *hostname;     /* "" when it has none; of the document */
	struct address host;      /* where its host's overlay listens */
	const json_t *nic;        /* of the document when it is here, else NULL */
	struct nic *attached;     /* set by network.c */
	struct tunnel_peer *peer; /* likewise */
};

struct publish {
	uint8_t protocol; /* PROTOCOL_TCP or PROTOCOL_UDP */
	uint32_t address; /* of the host */
	uint16_t host_port;
	uint32_t ip; /* of the guest */
	uint16_t port;
};

struct config {
	json_t *document; /* owned; strings and metadata live in it */
	int64_t revision;
	const char *id;
	struct cidr cidr;
	uint32_t gateway;
	uint32_t vni;
	uint16_t mtu;
	const char *domain;
	uint32_t dns[3];
	size_t dns_count;                 /* 0: the switch's own */
	struct overlay_key key[KEYS_MAX]; /* the first seals, all open */
	size_t key_count;
	struct address overlay; /* where to listen */
	bool outside;           /* there is a way out */
	bool host_loopback;     /* the gateway's address leads to this host's loopback */
	struct cidr forbidden[FORBIDDEN_MAX]; /* not to be reached by the way out */
	size_t forbidden_count;
	struct rules rules; /* the switch's own first */
	struct publish publish[PUBLISH_MAX];
	size_t publish_count;
	struct port *port; /* by ascending address */
	size_t port_count;
};

/* Takes a reference to the document on success. */
int config_parse(json_t *document, struct config **ret, struct err *e);
/* NULL is accepted. */
void config_free(struct config *c);
DEFINE_CLEANUP(struct config *, config_free);

/* The line of this address, or NULL. */
struct port *config_find(const struct config *c, uint32_t ip);

#endif
