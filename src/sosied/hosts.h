/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOSIE_SOSIED_HOSTS_H
#define SOSIE_SOSIED_HOSTS_H

#include "sosied/call.h"
#include "store/instances.h"

/* The most instances that one host is looked at with. */
#define HOST_INSTANCES_MAX STORE_PAGE_MAX

/* All instances on the host; the caller frees them. Their number. */
int host_instances(
	struct sosied *d, const char *host_id, struct store_instance **ret, struct err *e);
/*
 * After the host was lost or came back: tells the tenants, and lets groups choose their leaders
 * anew. kind: the events' "instance.unknown" or "instance.found".
 */
int host_turned(struct sosied *d, const struct store_host *host, const char *kind, struct err *e);
/* Ends the host's tokens, but for `keep` (""). */
int host_revoke(struct sosied *d, const char *host_id, const char *keep, struct err *e);

#endif
