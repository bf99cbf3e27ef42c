/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The overlay's packet, which carries frames between the switches of one network on different
 * hosts. One UDP datagram, integers big-endian:
 *
 *   offset size
 *        0    1  version, OVERLAY_VERSION
 *        1    1  enum overlay_kind
 *        2    1  key id: which of the network's keys
 *        3    1  zero
 *        4   16  sender: drawn at random by each switch process when it starts
 *       20    8  counter: from 1, never used twice by a sender
 *       28    n  sealed: XChaCha20-Poly1305 under the key, with the nonce (sender, counter) and
 *                bytes 0 to 27 as associated data
 *     28+n   16  its tag
 *
 * Inside: DATA: a VXLAN header (RFC 7348) and the frame. HELLO: nothing. CHALLENGE: the sender
 * that is asked, and a cookie. PROOF: that cookie. See src/switch/tunnel.c for what they are for.
 */
#ifndef SOSIE_CORE_NET_OVERLAY_H
#define SOSIE_CORE_NET_OVERLAY_H

#include "core/net/frame.h"

#define OVERLAY_VERSION 1
#define OVERLAY_SENDER  16
#define OVERLAY_HEADER  28
#define OVERLAY_TAG     16
#define OVERLAY_COOKIE  16
#define OVERLAY_NONCE   24
#define VXLAN_HEADER    8
#define VNI_MAX         0xffffff
/* Everything around a guest's IP packet, IPv6 and UDP outside included. */
#define OVERLAY_OVERHEAD \
	(40 + UDP_HEADER + OVERLAY_HEADER + VXLAN_HEADER + ETHERNET_HEADER + OVERLAY_TAG)
#define OVERLAY_PACKET_MAX (OVERLAY_HEADER + VXLAN_HEADER + FRAME_MAX + OVERLAY_TAG)

enum overlay_kind {
	OVERLAY_DATA = 1,
	OVERLAY_HELLO,
	OVERLAY_CHALLENGE,
	OVERLAY_PROOF,
};

struct overlay_header {
	uint8_t kind; /* enum overlay_kind */
	uint8_t key_id;
	uint8_t sender[OVERLAY_SENDER];
	uint64_t counter;
};

void overlay_header_put(uint8_t out[OVERLAY_HEADER], const struct overlay_header *h);
/* -EBADMSG when it is too short, of another version, or of no known kind. */
int overlay_header_parse(const void *bytes, size_t n, struct overlay_header *ret);
void overlay_nonce(uint8_t out[OVERLAY_NONCE], const struct overlay_header *h);

void vxlan_put(uint8_t out[VXLAN_HEADER], uint32_t vni);
/* -EBADMSG when it is too short, or has no VNI. */
int vxlan_parse(const void *bytes, size_t n, uint32_t *ret_vni);

/*
 * Which counters of a sender were seen: the highest, and a window of REPLAY_WINDOW below it, after
 * RFC 6479. Whatever is older than the window counts as seen.
 */
#define REPLAY_WINDOW 2048

struct replay_window {
	uint64_t highest;
	uint64_t seen[REPLAY_WINDOW / 64]; /* bit (counter modulo REPLAY_WINDOW) */
};

/* Begins with everything up to and including `counter` seen. */
void replay_window_init(struct replay_window *w, uint64_t counter);
/* Marks the counter; false when it was seen already. To be called for authentic packets only. */
bool replay_window_take(struct replay_window *w, uint64_t counter);

#endif
