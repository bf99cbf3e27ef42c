/* SPDX-License-Identifier: Apache-2.0 */
#include "core/platform/life.h"

static const char *const action_names[] = {
#define X(constant, name) [constant] = (name),
	LIFE_ACTION_TABLE(X)
#undef X
};

static const char *const wish_names[] = {
	[LIFE_RUNNING] = "to be running", [LIFE_STOPPED] = "stopped", [LIFE_ENDED] = "terminated"};
static_assert(ARRAY_SIZE(wish_names) == LIFE_WISHES, "one name per wish");

static const char *const sight_names[] = {
	[SIGHT_PENDING] = "pending",
	[SIGHT_CREATING] = "creating",
	[SIGHT_RUNNING] = "running",
	[SIGHT_STOPPING] = "stopping",
	[SIGHT_STOPPED] = "stopped",
	[SIGHT_FAILED] = "failed",
	[SIGHT_ABSENT] = "absent",
};
static_assert(ARRAY_SIZE(sight_names) == SIGHTS, "one name per sight");

#define REFUSED LIFE_WISHES

/* Row: what is wished for now; column: the action; what is wished for then. */
static const enum life_wish moves[LIFE_WISHES][LIFE_ACTIONS] = {
	[LIFE_RUNNING] = {[LIFE_START] = LIFE_RUNNING,
		[LIFE_STOP] = LIFE_STOPPED,
		[LIFE_REBOOT] = LIFE_RUNNING,
		[LIFE_TERMINATE] = LIFE_ENDED},
	[LIFE_STOPPED] = {[LIFE_START] = LIFE_RUNNING,
		[LIFE_STOP] = LIFE_STOPPED,
		[LIFE_REBOOT] = REFUSED,
		[LIFE_TERMINATE] = LIFE_ENDED},
	[LIFE_ENDED] = {[LIFE_START] = REFUSED,
		[LIFE_STOP] = REFUSED,
		[LIFE_REBOOT] = REFUSED,
		[LIFE_TERMINATE] = LIFE_ENDED},
};

const char *life_action_name(enum life_action action)
{
	return (unsigned int)action < LIFE_ACTIONS ? action_names[action] : "?";
}

int life_apply(enum life_wish wish, enum life_action action, enum life_wish *ret, struct err *e)
{
	assert(wish < LIFE_WISHES && action < LIFE_ACTIONS);
	if (moves[wish][action] == REFUSED)
		return err_set(e, ERR_CONFLICT, "an instance that is %s cannot %s",
			wish_names[wish], action_names[action]);
	*ret = moves[wish][action];
	return 0;
}

const char *life_state(enum life_wish wish, enum life_sight sight, bool placed, bool host_heard)
{
	assert(wish < LIFE_WISHES && sight < SIGHTS);
	if (placed && !host_heard && sight != SIGHT_ABSENT)
		return "unknown";
	if (wish == LIFE_ENDED)
		return "terminating";
	return sight_names[sight];
}

bool life_lost(enum life_wish wish, enum life_sight sight, bool placed, bool host_heard)
{
	return wish != LIFE_RUNNING || !placed || !host_heard || sight == SIGHT_STOPPED ||
	       sight == SIGHT_FAILED || sight == SIGHT_ABSENT;
}
