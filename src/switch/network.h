/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One network on one host: the mapping, the NICs that are here, and the ways to everybody else.
 * Shared by the files of this folder.
 */
#ifndef SOSIE_SWITCH_NETWORK_H
#define SOSIE_SWITCH_NETWORK_H

#include <systemd/sd-event.h>

#include "switch/config.h"
#include "switch/nic.h"
#include "switch/stack.h"
#include "switch/tunnel.h"

/*
 * Link-local addresses of the switch's own services, the same in every network: the metadata
 * service where every cloud has it, and the resolver where Amazon's is.
 */
#define METADATA_IP   IP4(169, 254, 169, 254)
#define METADATA_PORT 80
#define RESOLVER_IP   IP4(169, 254, 169, 253)
#define LINK_LOCAL    ((struct cidr){IP4(169, 254, 0, 0), IP4(255, 255, 0, 0)})
#define LEASE_SECONDS 3600

#define NETWORK_COUNTER_TABLE(X)                                                           \
	X(outside_stray, "frames from outside dropped: to nobody here")                    \
	X(overlay_malformed, "frames from other hosts dropped: no frames that we forward") \
	X(overlay_spoofed, "frames from other hosts dropped: their sender is not there")   \
	X(overlay_stray, "frames from other hosts dropped: to nobody here")

struct network_counters {
#define X(name, meaning) uint64_t name;
	NETWORK_COUNTER_TABLE(X)
#undef X
};

/* A port published on this host. */
struct published {
	struct publish publish;
	int error; /* 0, or the negative errno for which it does not listen */
};

struct network {
	sd_event *event;
	struct config *config;         /* NULL until the first */
	struct mac router;             /* the same on every host, so that guests can move */
	uint8_t key[16];               /* of hashes */
	struct nic *nic[2 * NICS_MAX]; /* new ones are made before old ones go */
	size_t nic_count;
	unsigned int nics_made; /* ever */
	struct stack *outside;  /* NULL: no way out */
	struct tunnel *tunnel;  /* NULL: no overlay, or it cannot listen */
	int tunnel_error;       /* why */
	struct published published[PUBLISH_MAX];
	size_t published_count;
	sd_event_source *retry; /* what could not listen tries again */
	struct network_counters counters;
};

/* Not thread-safe; one per process. */
int network_new(sd_event *event, struct network **ret);
/* NULL is accepted. */
void network_free(struct network *n);
DEFINE_CLEANUP(struct network *, network_free);

/*
 * Makes the network what the configuration says, and takes it over on success. What stays the same
 * goes on undisturbed. Failing (only for want of memory or descriptors) leaves things as they were,
 * or, when the network's shape was to change, no configuration.
 */
int network_configure(struct network *n, struct config *config, struct err *e);
/* Everything there is to see, as a new JSON object; NULL when out of memory. */
json_t *network_status(const struct network *n);

/* forward.c: where frames come in. */
void forward_from_nic(struct nic *nic, uint8_t *bytes, size_t size, void *network);
void forward_from_outside(uint8_t *bytes, size_t size, void *network);
void forward_from_tunnel(struct tunnel_peer *from, uint8_t *bytes, size_t size, void *network);

/* service.c: what the switch answers itself. False when the frame is not for a service. */
void service_arp(const struct network *n, struct nic *nic, const struct frame *f);
bool service_dhcp(const struct network *n, struct nic *nic, const struct frame *f);
bool service_dns(const struct network *n, struct nic *nic, const struct frame *f);
void service_too_big(const struct network *n, struct nic *nic, const struct frame *f);

#endif
