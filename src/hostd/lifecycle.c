/* SPDX-License-Identifier: Apache-2.0 */
#include "hostd/lifecycle.h"

static const struct {
	const char *name, *told;
} states[] = {
#define X(constant, name, told) [constant] = {name, told},
	LIFE_STATE_TABLE(X)
#undef X
};
static_assert(ARRAY_SIZE(states) == LIFE_STATES, "one row per state");

static const char *const event_names[] = {
#define X(constant, name) [constant] = (name),
	LIFE_EVENT_TABLE(X)
#undef X
};
static_assert(ARRAY_SIZE(event_names) == LIFE_EVENTS, "one name per event");

static const struct {
	enum life_state from;
	enum life_event event;
	enum life_state to;
} moves[] = {
	{LIFE_ABSENT, LIFE_FOUND_RUNNING, LIFE_RUNNING},
	{LIFE_ABSENT, LIFE_FOUND_STOPPED, LIFE_STOPPED},
	{LIFE_ABSENT, LIFE_FOUND_FAILED, LIFE_FAILED},
	{LIFE_ABSENT, LIFE_PREPARE, LIFE_PREPARING},
	{LIFE_PREPARING, LIFE_PREPARED, LIFE_STOPPED},
	{LIFE_PREPARING, LIFE_BROKE, LIFE_FAILED},
	{LIFE_STOPPED, LIFE_START, LIFE_STARTING},
	{LIFE_STOPPED, LIFE_REMOVE, LIFE_REMOVING},
	{LIFE_STARTING, LIFE_STARTED, LIFE_RUNNING},
	{LIFE_STARTING, LIFE_ENDED, LIFE_STOPPED},
	{LIFE_STARTING, LIFE_BROKE, LIFE_FAILED},
	{LIFE_RUNNING, LIFE_STOP, LIFE_STOPPING},
	{LIFE_RUNNING, LIFE_ENDED, LIFE_STOPPED},
	{LIFE_RUNNING, LIFE_BROKE, LIFE_FAILED},
	{LIFE_STOPPING, LIFE_ENDED, LIFE_STOPPED},
	{LIFE_STOPPING, LIFE_BROKE, LIFE_FAILED},
	{LIFE_FAILED, LIFE_PREPARE, LIFE_PREPARING},
	{LIFE_FAILED, LIFE_START, LIFE_STARTING},
	{LIFE_FAILED, LIFE_REMOVE, LIFE_REMOVING},
	{LIFE_REMOVING, LIFE_REMOVED, LIFE_ABSENT},
	{LIFE_REMOVING, LIFE_BROKE, LIFE_FAILED},
};

const char *life_state_name(enum life_state state)
{
	return states[state].name;
}

const char *life_state_told(enum life_state state)
{
	return states[state].told;
}

const char *life_event_name(enum life_event event)
{
	return event_names[event];
}

enum life_state life_next(enum life_state state, enum life_event event)
{
	for (size_t i = 0; i < ARRAY_SIZE(moves); i++)
		if (moves[i].from == state && moves[i].event == event)
			return moves[i].to;
	return LIFE_STATES;
}

/* Nothing runs and nothing is under way, but there may be a disk. */
static enum life_action decide_at_rest(const struct life_view *v)
{
	if (v->cooling)
		return ACT_NONE;
	if (v->want == WANT_ABSENT)
		return ACT_REMOVE;
	if (v->latched && !v->start_due && !(v->reboot_due && v->want == WANT_RUNNING))
		return ACT_NONE;
	if (!v->prepared)
		return ACT_PREPARE;
	return v->want == WANT_RUNNING ? ACT_START : ACT_NONE;
}

static enum life_action decide_running(const struct life_view *v)
{
	if (v->want == WANT_ABSENT)
		return ACT_KILL;
	if (v->want == WANT_STOPPED)
		return ACT_STOP;
	return v->reboot_due ? ACT_REBOOT : ACT_NONE;
}

enum life_action life_decide(const struct life_view *v)
{
	switch (v->state) {
	case LIFE_ABSENT:
		return v->want == WANT_ABSENT ? ACT_NONE : ACT_PREPARE;
	case LIFE_STOPPED:
	case LIFE_FAILED:
		return decide_at_rest(v);
	case LIFE_RUNNING:
		return decide_running(v);
	case LIFE_STOPPING:
		return v->want == WANT_ABSENT && !v->forced ? ACT_KILL : ACT_NONE;
	case LIFE_PREPARING:
	case LIFE_STARTING:
	case LIFE_REMOVING:
	case LIFE_STATES:
		break;
	}
	return ACT_NONE;
}

bool life_holds(enum life_state state, bool prepared, bool has_link)
{
	if (has_link != (state == LIFE_RUNNING || state == LIFE_STOPPING))
		return false;
	if (state == LIFE_ABSENT || state == LIFE_PREPARING)
		return !prepared;
	return prepared || state == LIFE_FAILED || state == LIFE_REMOVING;
}
