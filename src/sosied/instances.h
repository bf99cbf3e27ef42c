/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOSIE_SOSIED_INSTANCES_H
#define SOSIE_SOSIED_INSTANCES_H

#include "core/platform/life.h"
#include "core/platform/placement.h"
#include "sosied/call.h"
#include "store/images.h"
#include "store/instances.h"

#define INSTANCE_PUBLISH_MAX 8
/* The most hosts that placement looks at. */
#define FLEET_MAX 4096

/* By id or by name, as the call may see it. */
int instance_find(struct call *c, const char *name, struct store_instance *ret, struct err *e);

enum life_wish instance_wish(const struct store_instance *instance);
enum life_sight instance_sight(const struct store_instance *instance);
/* The state to show, see life.h. */
const char *instance_state(const struct sosied *d, const struct store_instance *instance);
json_t *instance_view(struct call *c, const void *row);

/*
 * What follows from an observation that has been written: events, the end of one that is gone, its
 * group's leaders. before: as it was.
 */
int instance_observed(struct sosied *d, const struct store_instance *before, struct err *e);
/*
 * Takes an instance off a host that is off for good: it ends if it was to end, and otherwise
 * starts anew on another, or fails with the reason. *ret_outcome: a word for people.
 */
int instance_rescue(
	struct sosied *d, struct store_instance *instance, const char **ret_outcome, struct err *e);

/* The hosts as placement sees them. */
struct fleet {
	struct store_host *hosts;
	struct placement_host *view; /* its strings are the hosts' */
	size_t n;
};
int fleet_read(struct sosied *d, struct fleet *ret, struct err *e);
void fleet_free(struct fleet *fleet);
#define CLEANUP_FLEET CLEANUP(fleet_free)

/* launch.c: puts an instance that is on no host onto one, in its group's spread. */
int instance_place(struct sosied *d, struct store_instance *instance, struct err *e);

#endif
