/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The value daemon: one process per group and host. It records what the members here consume, and
 * copies the group's values between hosts: as the source it listens and sends its log to the
 * followers; as a follower it connects, applies what comes and passes members' requests on.
 *
 * Its role is its command line. A host agent changes the role by starting it again: members never
 * notice, since they work in the segment alone; those that wait for a source find that their own
 * host has become it.
 *
 * Messages over a link (link.h), first byte the type:
 *
 *   MESSAGE_LOG      u64 sequence, then entries 1 to 3 of replica.h    source to follower
 *   MESSAGE_ACK      u64 sequence that is applied                      follower to source
 *   MESSAGE_ENTRIES  entries 4 to 6 of replica.h                       follower to source
 *   MESSAGE_BEGIN    everything that is here has been said: send       follower to source
 */
#ifndef SOSIE_VALUED_VALUED_H
#define SOSIE_VALUED_VALUED_H

#include "lib/values/recorder.h"
#include "valued/link.h"

enum message {
	MESSAGE_LOG = 1,
	MESSAGE_ACK,
	MESSAGE_ENTRIES,
	MESSAGE_BEGIN,
};

#define FOLLOWERS_MAX 16
/* How often the source looks for new values: while there are some, and after a while without. */
#define LOOK_BUSY_NS (NSEC_PER_MSEC / 2)
#define LOOK_IDLE_NS (5 * NSEC_PER_MSEC)
#define BUSY_FOR_NS  (200 * NSEC_PER_MSEC)
/* A follower tries again after a time that doubles between these. */
#define RECONNECT_MIN_NS (50 * NSEC_PER_MSEC)
#define RECONNECT_MAX_NS (2 * NSEC_PER_SEC)
/* A follower that has so much to read is given no more until it has read. */
#define SEND_AHEAD (1U << 20)

struct valued {
	sd_event *event;
	struct group *group;
	uint8_t key[LINK_KEY];
	char source_address[64]; /* of the source; empty: this is it */
	uint16_t source_port;
};

/* Each sets the role up and returns; errors are logged and returned. */
int source_start(struct valued *v, int listen_fd);
int follower_start(struct valued *v);

#endif
