/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOSIE_SOSIED_GROUPS_H
#define SOSIE_SOSIED_GROUPS_H

#include "core/platform/succession.h"
#include "sosied/call.h"
#include "store/groups.h"
#include "store/instances.h"

/* A group's members with what they are, in the order of succession. */
struct roster {
	struct roster_member {
		struct store_member member;
		struct store_instance instance;
		struct store_host host; /* id "" when it is on none */
		bool heard;
		bool lost;
	} * members;
	size_t n;
};

int roster_read(struct sosied *d, const char *group_id, struct roster *ret, struct err *e);
void roster_free(struct roster *roster);
#define CLEANUP_ROSTER CLEANUP(roster_free)

int group_find(struct call *c, const char *name, struct store_group *ret, struct err *e);
/*
 * Chooses primary and source anew if they are lost; "" and groups that are fine are left alone. In
 * a writing transaction.
 */
int group_review(struct sosied *d, const char *group_id, struct err *e);

#endif
