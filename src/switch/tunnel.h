/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The overlay between this network's switches: frames sealed into UDP datagrams
 * (src/core/net/overlay.h has their layout).
 */
#ifndef SOSIE_SWITCH_TUNNEL_H
#define SOSIE_SWITCH_TUNNEL_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "switch/config.h"

#define PEERS_MAX 1024 /* other hosts of a network */

#define TUNNEL_COUNTER_TABLE(X)                                                         \
	X(sent, "frames sent")                                                          \
	X(send_failed, "frames dropped because the host's network did not take them")   \
	X(received, "frames received and passed on")                                    \
	X(unknown_peer, "packets dropped: not from a host of this network")             \
	X(malformed, "packets dropped: not of this format")                             \
	X(unknown_key, "packets dropped: under a key that is not in use")               \
	X(forged, "packets dropped: they do not open under the key")                    \
	X(replayed, "packets dropped: seen already, or too old to know")                \
	X(unproven, "packets dropped: their sender has not proven yet that it is live") \
	X(wrong_vni, "packets dropped: of another network")                             \
	X(challenges, "senders asked to prove that they are live")                      \
	X(proofs, "senders that did")

struct tunnel_counters {
#define X(name, meaning) uint64_t name;
	TUNNEL_COUNTER_TABLE(X)
#undef X
};

struct tunnel;
struct tunnel_peer;

/* A frame from another host; the bytes may be written to during the call. */
typedef void (*tunnel_frame_fn)(struct tunnel_peer *from, uint8_t *frame, size_t n, void *userdata);

/* Listens at the address (port 0: one that is free). -errno of what failed. */
int tunnel_new(sd_event *event, const struct address *listen, tunnel_frame_fn on_frame,
	void *userdata, struct tunnel **ret);
/* NULL is accepted. */
void tunnel_free(struct tunnel *t);
DEFINE_CLEANUP(struct tunnel *, tunnel_free);

/* The first of the keys (at least one) seals, all open. */
void tunnel_set_keys(struct tunnel *t, uint32_t vni, const struct overlay_key *keys, size_t count);

/*
 * The peers change: between begin and end each that stays or is new is named, and the others are
 * forgotten at the end. NULL when there are too many.
 */
void tunnel_peers_begin(struct tunnel *t);
struct tunnel_peer *tunnel_peer(struct tunnel *t, const struct address *address);
void tunnel_peers_end(struct tunnel *t);

void tunnel_send(struct tunnel *t, struct tunnel_peer *peer, const uint8_t *frame, size_t n);

/* Where it listens. */
const struct address *tunnel_address(const struct tunnel *t);
const struct tunnel_counters *tunnel_counters(const struct tunnel *t);
/* Goes through the peers: begin with NULL; NULL after the last. */
const struct tunnel_peer *tunnel_next_peer(const struct tunnel *t, const struct tunnel_peer *p);
const struct address *tunnel_peer_address(const struct tunnel_peer *p);
/* Its sender has proven that it is live. */
bool tunnel_peer_is_proven(const struct tunnel_peer *p);

#endif
