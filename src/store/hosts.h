/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts and what is reserved on them. Hosts belong to the provider: these calls know no scope and
 * are not for tenants.
 *
 * An agent waits for its host's desired_revision to rise, then reads what the host should be anew.
 */
#ifndef SOSIE_STORE_HOSTS_H
#define SOSIE_STORE_HOSTS_H

#include "store/tenants.h"

#define STORE_HOST_STATE_TABLE(X)          \
	X(STORE_HOST_ENROLLED, "enrolled") \
	X(STORE_HOST_ONLINE, "online")     \
	X(STORE_HOST_OFFLINE, "offline")   \
	X(STORE_HOST_DRAINING, "draining")

enum store_host_state { STORE_HOST_STATE_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_host_states;

struct store_host {
	char id[STORE_ID_SIZE];
	char name[STORE_NAME_SIZE];
	char zone[STORE_NAME_SIZE];
	/* What there is. */
	uint64_t cores;
	uint64_t memory; /* bytes */
	uint64_t disk;   /* bytes */
	/* What is not reserved: kept by the store, ignored by _create and _update. */
	uint64_t cores_free;
	uint64_t memory_free;
	uint64_t disk_free;
	char cpu_model[128];
	char accel[16]; /* "kvm" or "tcg" */
	char agent_version[32];
	char endpoint[128]; /* of the overlay: address:port */
	unsigned int state; /* enum store_host_state */
	uint64_t last_seen; /* nanoseconds since 1970; 0: never */
	char join_token_hash[STORE_HASH_SIZE];
	/* Kept by the store, ignored by _create and _update: */
	uint64_t desired_revision; /* of the last change that its agent must see */
	uint64_t event_sequence;   /* of its agent's last event taken down */
	uint64_t created;
	uint64_t revision;
};

int store_host_create(struct store *s, struct store_host *host, struct err *e);
int store_host_get(struct store *s, const char *id, struct store_host *ret, struct err *e);
int store_host_by_name(struct store *s, const char *name, struct store_host *ret, struct err *e);
int store_host_list(struct store *s, const struct store_page *after, struct store_host *ret,
	size_t max, struct err *e);
/*
 * Writes what may change (not id, name, last_seen, what is free) if the revision is still
 * host->revision, and sets the new one. ERR_INVALID when more is reserved than there would be.
 */
int store_host_update(struct store *s, struct store_host *host, struct err *e);
/* A sign of life. Changes no revision: it would wake everybody. */
int store_host_seen(struct store *s, const char *id, struct err *e);
/*
 * Notes that the agent's events up to `sequence` have been taken down, in the transaction that
 * does so. ERR_CONFLICT when they had been before.
 */
int store_host_take_events(struct store *s, const char *id, uint64_t sequence, struct err *e);
/* Raises its desired_revision, for a change that the store does not see by itself. */
int store_host_wake(struct store *s, const char *id, struct err *e);
/* ERR_CONFLICT while anything is on it. */
int store_host_delete(struct store *s, const char *id, struct err *e);

struct store_resources {
	uint64_t cores;
	uint64_t memory; /* bytes */
	uint64_t disk;   /* bytes */
};

/*
 * Reserves room for the holder (an instance's or a volume's id) on an online host. Two callers
 * never get the same room. ERR_NO_CAPACITY says what is short, ERR_CONFLICT that the host takes
 * nothing or the holder has a reservation there already.
 */
int store_reserve(struct store *s, const char *holder_id, const char *host_id,
	const struct store_resources *need, struct err *e);
/* Gives it back. ERR_NOT_FOUND when there is none. */
int store_release(struct store *s, const char *holder_id, const char *host_id, struct err *e);
/* Gives back what the holder has, wherever. Fine when it has nothing. */
int store_release_all(struct store *s, const char *holder_id, struct err *e);

#endif
