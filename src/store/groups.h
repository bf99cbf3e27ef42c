/* SPDX-License-Identifier: Apache-2.0 */
/*
 * High-availability groups and their members.
 *
 * A group's configuration (epoch, source host, primary member) changes by compare-and-set on the
 * epoch and by nothing else: of two hosts that race to become the source, one gets the next epoch.
 */
#ifndef SOSIE_STORE_GROUPS_H
#define SOSIE_STORE_GROUPS_H

#include "store/tenants.h"

#define STORE_PLACEMENT_TABLE(X)          \
	X(STORE_PLACEMENT_HOSTS, "hosts") \
	X(STORE_PLACEMENT_ZONES, "zones") \
	X(STORE_PLACEMENT_SAME_HOST, "same-host")

enum store_placement { STORE_PLACEMENT_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_placements;

#define STORE_COMMIT_TABLE(X)          \
	X(STORE_COMMIT_ASYNC, "async") \
	X(STORE_COMMIT_SYNC, "sync")   \
	X(STORE_COMMIT_OUTPUT, "output")

enum store_commit_mode { STORE_COMMIT_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_commit_modes;

#define STORE_DIVERGENCE_TABLE(X)          \
	X(STORE_DIVERGENCE_ALARM, "alarm") \
	X(STORE_DIVERGENCE_EVICT, "evict") \
	X(STORE_DIVERGENCE_REALIGN, "realign")

enum store_divergence { STORE_DIVERGENCE_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_divergences;

struct store_group {
	char id[STORE_ID_SIZE];
	char tenant_id[STORE_ID_SIZE];
	char name[STORE_NAME_SIZE];
	uint32_t size;            /* members wanted */
	uint32_t min_copies;      /* hosts that must hold a value before it counts */
	unsigned int placement;   /* enum store_placement */
	unsigned int commit_mode; /* enum store_commit_mode */
	unsigned int divergence;  /* enum store_divergence: what to do about it */
	uint64_t epoch;
	char source_host_id[STORE_ID_SIZE];    /* empty: none yet */
	char primary_member_id[STORE_ID_SIZE]; /* empty: none yet */
	uint64_t created;
	uint64_t revision;
};

int store_group_create(struct store *s, struct store_group *group, struct err *e);
int store_group_get(struct store *s, struct store_scope scope, const char *id,
	struct store_group *ret, struct err *e);
int store_group_by_name(struct store *s, const char *tenant_id, const char *name,
	struct store_group *ret, struct err *e);
int store_group_list(struct store *s, struct store_scope scope, const struct store_page *after,
	struct store_group *ret, size_t max, struct err *e);
/* Writes size and policies, not the configuration, if the revision is still the same. */
int store_group_update(
	struct store *s, struct store_scope scope, struct store_group *group, struct err *e);
/*
 * Gives the group the next epoch with this source and primary if its epoch is still `epoch`;
 * ERR_CONFLICT when another was faster.
 */
int store_group_reconfigure(struct store *s, const char *id, uint64_t epoch,
	const char *source_host_id, const char *primary_member_id, struct err *e);
/* ERR_CONFLICT while it has members or instances. */
int store_group_delete(struct store *s, struct store_scope scope, const char *id, struct err *e);

#define STORE_MEMBER_STATE_TABLE(X)          \
	X(STORE_MEMBER_JOINING, "joining")   \
	X(STORE_MEMBER_ACTIVE, "active")     \
	X(STORE_MEMBER_DIVERGED, "diverged") \
	X(STORE_MEMBER_EVICTED, "evicted")   \
	X(STORE_MEMBER_DEAD, "dead")

enum store_member_state { STORE_MEMBER_STATE_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_member_states;

struct store_member {
	char id[STORE_ID_SIZE];
	char tenant_id[STORE_ID_SIZE];
	char group_id[STORE_ID_SIZE];
	char name[STORE_NAME_SIZE];      /* unique in the group */
	char instance_id[STORE_ID_SIZE]; /* empty: a process on the host */
	char host_id[STORE_ID_SIZE];
	unsigned int state; /* enum store_member_state */
	char reason[256];   /* of the state, for people */
	uint64_t created;
	uint64_t revision;
};

int store_member_create(struct store *s, struct store_member *member, struct err *e);
int store_member_get(struct store *s, struct store_scope scope, const char *id,
	struct store_member *ret, struct err *e);
/* group_id: only its members; "" for all. */
int store_member_list(struct store *s, struct store_scope scope, const char *group_id,
	const struct store_page *after, struct store_member *ret, size_t max, struct err *e);
/* Writes host, state and reason, if the revision is still the same. */
int store_member_update(struct store *s, struct store_member *member, struct err *e);
int store_member_delete(struct store *s, struct store_scope scope, const char *id, struct err *e);

#endif
