/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of an instance on its host, as a pure state machine: which states follow which, and
 * what is to be done next for what is desired. It looks at nothing but its arguments.
 */
#ifndef SOSIE_HOSTD_LIFECYCLE_H
#define SOSIE_HOSTD_LIFECYCLE_H

#include <stdbool.h>

#include "base/macro.h"

/*
 *                 PREPARE              PREPARED            START             STARTED
 *   ABSENT ───────────────> PREPARING ────────> STOPPED ──────────> STARTING ───────> RUNNING
 *    ^  ^                    │   ^               ^ │ ^               │   │    ENDED    │ │ │
 *    │  │ REMOVED       BROKE│   │PREPARE        │ │ └───────────────┼───┴─────────────┘ │ │STOP
 *    │  │                    v   │               │ │            BROKE│            BROKE  │ v
 *    │  └──── REMOVING <──── FAILED <────────────┼─┼─────────────────┴───────────────────┤STOPPING
 *    │           │  ^  REMOVE  │ ^ └── START ──> STARTING                          BROKE │ │
 *    │           │  └──────────┼─┼── REMOVE ─────┼─┘                                   ──┴─┤
 *    │           └── BROKE ────┼─┘               └───────────────────── ENDED ─────────────┘
 *    └─ begin; FOUND_RUNNING, FOUND_STOPPED, FOUND_FAILED lead from here to RUNNING, STOPPED,
 * FAILED
 */

/*     constant           name         as the control plane is told */
#define LIFE_STATE_TABLE(X)                        \
	X(LIFE_ABSENT, "absent", "absent")         \
	X(LIFE_PREPARING, "preparing", "creating") \
	X(LIFE_STOPPED, "stopped", "stopped")      \
	X(LIFE_STARTING, "starting", "creating")   \
	X(LIFE_RUNNING, "running", "running")      \
	X(LIFE_STOPPING, "stopping", "stopping")   \
	X(LIFE_FAILED, "failed", "failed")         \
	X(LIFE_REMOVING, "removing", "stopping")

enum life_state {
#define X(constant, name, told) constant,
	LIFE_STATE_TABLE(X)
#undef X
		LIFE_STATES
};

/*     constant            name */
#define LIFE_EVENT_TABLE(X)                                                         \
	X(LIFE_FOUND_RUNNING, "found running") /* left by an earlier agent */       \
	X(LIFE_FOUND_STOPPED, "found stopped")                                      \
	X(LIFE_FOUND_FAILED, "found failed")                                        \
	X(LIFE_PREPARE, "prepare") /* its image and disk are being made ready */    \
	X(LIFE_PREPARED, "prepared")                                                \
	X(LIFE_START, "start") /* its supervisor was started */                     \
	X(LIFE_STARTED, "started")                                                  \
	X(LIFE_STOP, "stop")   /* it was asked to end */                            \
	X(LIFE_ENDED, "ended") /* it has, as somebody wanted */                     \
	X(LIFE_BROKE, "broke") /* what was under way, or the machine, has failed */ \
	X(LIFE_REMOVE, "remove")                                                    \
	X(LIFE_REMOVED, "removed")

enum life_event {
#define X(constant, name) constant,
	LIFE_EVENT_TABLE(X)
#undef X
		LIFE_EVENTS
};

const char *life_state_name(enum life_state state);
/* The name of a state in docs/agent-protocol.md. */
const char *life_state_told(enum life_state state);
const char *life_event_name(enum life_event event);
/* The state that follows, or LIFE_STATES when the event cannot happen in this state. */
enum life_state life_next(enum life_state state, enum life_event event);

enum life_want {
	WANT_ABSENT,
	WANT_STOPPED,
	WANT_RUNNING,
};

/* All that the decision depends on. */
struct life_view {
	enum life_state state;
	enum life_want want;
	bool prepared; /* there is a disk */
	/*
	 * It ended by itself or failed. Then it is not started again by itself, so that nothing
	 * turns in circles and everybody sees what has happened, but only when asked anew:
	 */
	bool latched;
	bool start_due;  /* more starts have been asked for than carried out */
	bool reboot_due; /* the same for reboots */
	bool forced;     /* force was used to end it */
	bool cooling;    /* something failed and is not tried again yet */
};

enum life_action {
	ACT_NONE,
	ACT_PREPARE,
	ACT_START,
	ACT_STOP,
	ACT_KILL,
	ACT_REBOOT,
	ACT_REMOVE,
};

enum life_action life_decide(const struct life_view *view);
/* What holds in every state; the caller asserts it after each move. has_link: sosie-vm lives. */
bool life_holds(enum life_state state, bool prepared, bool has_link);

#endif
