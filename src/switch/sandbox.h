/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving up rights, in stages: each is called once, in this order, and none can be undone. What
 * parses guests' bytes runs after all of them.
 */
#ifndef SOSIE_SWITCH_SANDBOX_H
#define SOSIE_SWITCH_SANDBOX_H

#include "base/err.h"

/* No new privileges by executing anything, no core dumps with keys, files for the owner only. */
int sandbox_begin(struct err *e);
/* As root: becomes this user for good, with its group alone. NULL: stays who it is. */
int sandbox_user(const char *user, struct err *e);
/* No capabilities, not even of root; only the system calls that are needed from here on. */
int sandbox_end(struct err *e);

#endif
