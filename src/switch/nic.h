/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One guest's NIC: a unix stream socket on which QEMU listens (-netdev stream,server=on), with
 * frames behind 4-byte big-endian lengths in both directions.
 */
#ifndef SOSIE_SWITCH_NIC_H
#define SOSIE_SWITCH_NIC_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "core/net/firewall.h"
#include "switch/config.h"

#define NIC_QUEUE_BYTES (1U << 20) /* frames waiting for a guest that does not read */

#define NIC_COUNTER_TABLE(X)                                                              \
	X(from_frames, "frames from the guest")                                           \
	X(from_bytes, "bytes of them")                                                    \
	X(to_frames, "frames queued for the guest")                                       \
	X(to_bytes, "bytes of them")                                                      \
	X(queue_full, "frames dropped because the guest does not read")                   \
	X(not_connected, "frames dropped because QEMU was not there")                     \
	X(connects, "connections made to QEMU's socket")                                  \
	X(broken_stream, "connections given up for an impossible frame length")           \
	X(malformed, "frames dropped: a length in them does not fit")                     \
	X(unsupported, "frames dropped: neither ARP nor plain IPv4")                      \
	X(too_big, "frames dropped: longer than the network's MTU")                       \
	X(spoofed_mac, "frames dropped: not sent by the NIC's own Ethernet address")      \
	X(spoofed_ip, "frames dropped: not sent by the NIC's own IP address")             \
	X(group_address, "frames dropped: broadcast or multicast that no service takes")  \
	X(unknown_destination, "frames dropped: to nobody in the mapping")                \
	X(forbidden, "frames dropped: to what the way out does not lead to")              \
	X(fragmented, "fragments dropped: to the way out or a service, which take none")  \
	X(outside_full, "new connections dropped: the way out has too many")              \
	X(denied_out, "frames dropped by the security group on their way from the guest") \
	X(denied_in, "frames dropped by the security group on their way to the guest")    \
	X(services, "frames answered by the switch: ARP, DHCP, DNS of own names")         \
	X(metadata, "frames to the metadata service")

struct nic_counters {
#define X(name, meaning) uint64_t name;
	NIC_COUNTER_TABLE(X)
#undef X
};

struct nic;
struct metadata;

/* A frame from the guest; the bytes may be written to during the call. It must not free a NIC. */
typedef void (*nic_frame_fn)(struct nic *nic, uint8_t *frame, size_t n, void *userdata);

/* The members above the line are the network's; the rest is nic.c's own. */
struct nic {
	struct mac mac;
	uint32_t ip;
	bool wanted; /* used while a configuration is applied */
	struct connections *connections;
	struct metadata *metadata;
	struct nic_counters counters;
	/* ---- */
	char path[SOCKET_PATH_MAX];
	nic_frame_fn on_frame;
	void *userdata;
	int fd; /* -1: not connected */
	sd_event *event;
	sd_event_source *io, *retry, *flush;
	uint64_t retry_ns;
	uint8_t *input;
	size_t input_size;
	uint8_t *queue; /* bytes from queue_start up to queue_end wait */
	size_t queue_start, queue_end;
	bool blocked; /* the socket takes no more at the moment */
};

/* Connects at once, and again whenever the connection ends. */
int nic_new(sd_event *event, const char *path, const uint8_t key[16], nic_frame_fn on_frame,
	void *userdata, struct nic **ret);
/* NULL is accepted. Does not free its metadata. */
void nic_free(struct nic *nic);
DEFINE_CLEANUP(struct nic *, nic_free);

/* Queues a frame for the guest, or drops and counts it. */
void nic_send(struct nic *nic, const uint8_t *frame, size_t n);

static inline bool nic_is_connected(const struct nic *nic)
{
	return nic->fd >= 0;
}

#endif
