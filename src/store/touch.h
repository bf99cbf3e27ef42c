/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells host agents that something of theirs has changed. Inside the store only.
 *
 * Whoever changes where a thing is touches its hosts before and after the change: the one that
 * loses it must hear of it too.
 */
#ifndef SOSIE_STORE_TOUCH_H
#define SOSIE_STORE_TOUCH_H

#include "store/statement.h"

/* q: one of HOST_TOUCH_OF_INSTANCE, _NETWORK, _GROUP; raises those hosts' desired_revision. */
int store_host_touch(struct store *s, enum store_query q, const char *id, struct err *e);

#endif
