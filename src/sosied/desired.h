/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOSIE_SOSIED_DESIRED_H
#define SOSIE_SOSIED_DESIRED_H

#include "sosied/call.h"

/*
 * All that the host should be, as docs/agent-protocol.md says. In a transaction, with the host
 * read in it.
 */
int desired_state(struct sosied *d, const struct store_host *host, json_t **ret, struct err *e);

#endif
