/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of an instance: what may be asked of it when, and what people are told that it is.
 *
 *               start                    terminate
 *   RUNNING <────────── STOPPED ───────────────────┐
 *    │   └──────────────>  ^                       v
 *    │         stop        └── (stays)          ENDED ──> the row goes when the host is done
 *    └──────────────────────────────────────────>
 *                       terminate
 *
 * A reboot keeps RUNNING. Nothing leaves ENDED.
 */
#ifndef SOSIE_CORE_PLATFORM_LIFE_H
#define SOSIE_CORE_PLATFORM_LIFE_H

#include <stdbool.h>

#include "base/err.h"

enum life_wish { LIFE_RUNNING, LIFE_STOPPED, LIFE_ENDED, LIFE_WISHES };

/*    constant        name */
#define LIFE_ACTION_TABLE(X)     \
	X(LIFE_START, "start")   \
	X(LIFE_STOP, "stop")     \
	X(LIFE_REBOOT, "reboot") \
	X(LIFE_TERMINATE, "terminate")

enum life_action {
#define X(constant, name) constant,
	LIFE_ACTION_TABLE(X)
#undef X
		LIFE_ACTIONS
};

const char *life_action_name(enum life_action action);

/* Whether the action is allowed, and what is wished for then. ERR_CONFLICT says why not. */
int life_apply(enum life_wish wish, enum life_action action, enum life_wish *ret, struct err *e);

/* What a host saw of an instance. */
enum life_sight {
	SIGHT_PENDING, /* nothing yet */
	SIGHT_CREATING,
	SIGHT_RUNNING,
	SIGHT_STOPPING,
	SIGHT_STOPPED,
	SIGHT_FAILED,
	SIGHT_ABSENT,
	SIGHTS
};

/*
 * The state to show: what was seen last, unless the host is not heard of ("unknown") or the
 * instance is to end ("terminating").
 */
const char *life_state(enum life_wish wish, enum life_sight sight, bool placed, bool host_heard);

/* Whether a member of a group in this condition can no longer lead it. */
bool life_lost(enum life_wish wish, enum life_sight sight, bool placed, bool host_heard);

#endif
