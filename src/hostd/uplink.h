/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's side of docs/agent-protocol.md: registers, asks for the desired state, tells what is
 * observed, ships events. Everything is tried again until it works; nothing here stops a guest.
 */
#ifndef SOSIE_HOSTD_UPLINK_H
#define SOSIE_HOSTD_UPLINK_H

#include "hostd/host.h"
#include "hostd/resources.h"

#define UPLINK_WAIT_S       25                 /* of the long poll */
#define UPLINK_RETRY_MIN_NS (NSEC_PER_SEC / 5) /* after a failure; doubled up to … */
#define UPLINK_RETRY_MAX_NS (5 * NSEC_PER_SEC)
#define UPLINK_TOKEN_MAX    512

struct uplink_config {
	sd_event *event;
	int state; /* the open state folder */
	const char *url, *ca_file, *host, *zone, *overlay, *accel;
	const char *join_token; /* NULL: registered before */
	struct resources offered;
	uint64_t heartbeat_ns;
};

struct uplink;

/* Strings of the config and the host are borrowed. */
int uplink_new(
	const struct uplink_config *config, struct host *host, struct uplink **ret, struct err *e);
void uplink_free(struct uplink *uplink);
DEFINE_CLEANUP(struct uplink *, uplink_free);

#endif
