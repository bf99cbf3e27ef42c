/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instances: what should be, and what their host saw last.
 *
 * Every change that its host must act on raises the host's desired_revision, on both hosts when it
 * is moved. The end of an instance is asked for by desired = terminated; the row goes when its
 * agent has reported that nothing is left.
 */
#ifndef SOSIE_STORE_INSTANCES_H
#define SOSIE_STORE_INSTANCES_H

#include "base/buf.h"
#include "store/tenants.h"

#define STORE_DESIRED_TABLE(X)              \
	X(STORE_DESIRED_RUNNING, "running") \
	X(STORE_DESIRED_PAUSED, "paused")   \
	X(STORE_DESIRED_STOPPED, "stopped") \
	X(STORE_DESIRED_TERMINATED, "terminated")

enum store_desired { STORE_DESIRED_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_desired_states;

#define STORE_OBSERVED_TABLE(X)                \
	X(STORE_OBSERVED_PENDING, "pending")   \
	X(STORE_OBSERVED_CREATING, "creating") \
	X(STORE_OBSERVED_RUNNING, "running")   \
	X(STORE_OBSERVED_PAUSED, "paused")     \
	X(STORE_OBSERVED_STOPPING, "stopping") \
	X(STORE_OBSERVED_STOPPED, "stopped")   \
	X(STORE_OBSERVED_FAILED, "failed")     \
	X(STORE_OBSERVED_ABSENT, "absent")

enum store_observed { STORE_OBSERVED_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_observed_states;

#define STORE_USER_DATA_MAX 65536

struct store_instance {
	char id[STORE_ID_SIZE];
	char tenant_id[STORE_ID_SIZE];
	char name[STORE_NAME_SIZE];
	char image_id[STORE_ID_SIZE];
	char group_id[STORE_ID_SIZE]; /* empty: in none */
	char host_id[STORE_ID_SIZE];  /* empty: not placed yet */
	uint64_t memory;              /* bytes */
	uint64_t disk;                /* bytes */
	uint32_t cores;
	unsigned int desired;      /* enum store_desired */
	unsigned int observed;     /* enum store_observed */
	uint64_t desired_boot;     /* raised to ask for a reboot */
	uint64_t desired_starts;   /* raised to ask for a start */
	uint64_t desired_revision; /* of the last change that its host must see */
	uint64_t observed_boot;
	uint64_t observed_revision; /* the desired revision that the report is about */
	uint64_t observed_at;       /* nanoseconds since 1970 */
	char reason[256];           /* of what was observed, for people */
	uint64_t created;
	uint64_t revision; /* of any change */
};

/* With its user data. desired_revision is filled in too. */
int store_instance_create(struct store *s, struct store_instance *instance, const void *user_data,
	size_t user_data_size, struct err *e);
int store_instance_get(struct store *s, struct store_scope scope, const char *id,
	struct store_instance *ret, struct err *e);
int store_instance_by_name(struct store *s, const char *tenant_id, const char *name,
	struct store_instance *ret, struct err *e);
/* Only those of the group and on the host; "" for all. */
int store_instance_list(struct store *s, struct store_scope scope, const char *group_id,
	const char *host_id, const struct store_page *after, struct store_instance *ret, size_t max,
	struct err *e);
/* Appends the user data to out. */
int store_instance_user_data(
	struct store *s, struct store_scope scope, const char *id, struct buf *out, struct err *e);

/*
 * Writes desired, desired_boot, desired_starts, cores, memory and disk, if the revision is still
 * the same; sets desired_revision and revision. Reserving what a larger size needs is the caller's
 * part.
 */
int store_instance_desire(
	struct store *s, struct store_scope scope, struct store_instance *instance, struct err *e);
/*
 * Places it on a host ("": on none), if the revision is still the same. The reservation is the
 * caller's part, in the same transaction.
 */
int store_instance_place(
	struct store *s, struct store_instance *instance, const char *host_id, struct err *e);
/* In order of desired_revision: those on the host whose desired state changed since. */
int store_instance_of_host_since(struct store *s, const char *host_id, uint64_t since,
	struct store_instance *ret, size_t max, struct err *e);

struct store_observation {
	unsigned int observed; /* enum store_observed */
	uint64_t boot;
	uint64_t desired_revision; /* that the agent had acted on */
	const char *reason;        /* for people; longer ones are cut */
};
/* ERR_NOT_FOUND unless the instance is on that host: nobody else may tell about it. */
int store_instance_observe(struct store *s, const char *id, const char *host_id,
	const struct store_observation *o, struct err *e);

/*
 * Forgets a terminated instance: its ports, memberships and reservations go with it, its volumes
 * are detached. ERR_CONFLICT when it is not to be terminated.
 */
int store_instance_delete(struct store *s, struct store_scope scope, const char *id, struct err *e);

#endif
