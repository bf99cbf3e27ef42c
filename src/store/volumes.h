/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes. The epoch is the grant to open one: whoever is to write it next gets a higher one, and
 * no update ever lowers it.
 */
#ifndef SOSIE_STORE_VOLUMES_H
#define SOSIE_STORE_VOLUMES_H

#include "store/images.h"

#define STORE_VOLUME_KIND_TABLE(X)     \
	X(STORE_VOLUME_LOCAL, "local") \
	X(STORE_VOLUME_NETWORK, "network")

enum store_volume_kind { STORE_VOLUME_KIND_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_volume_kinds;

#define STORE_VOLUME_STATE_TABLE(X)            \
	X(STORE_VOLUME_CREATING, "creating")   \
	X(STORE_VOLUME_AVAILABLE, "available") \
	X(STORE_VOLUME_ATTACHED, "attached")   \
	X(STORE_VOLUME_DELETING, "deleting")   \
	X(STORE_VOLUME_FAILED, "failed")

enum store_volume_state { STORE_VOLUME_STATE_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_volume_states;

struct store_volume {
	char id[STORE_ID_SIZE];
	char tenant_id[STORE_ID_SIZE];
	char name[STORE_NAME_SIZE];
	unsigned int kind;               /* enum store_volume_kind */
	unsigned int format;             /* enum store_format */
	uint64_t size;                   /* bytes */
	char host_id[STORE_ID_SIZE];     /* of a local one */
	char instance_id[STORE_ID_SIZE]; /* it is attached to */
	char location[512];              /* path, or URL of a network volume */
	uint64_t epoch;
	unsigned int state; /* enum store_volume_state */
	uint64_t created;
	uint64_t revision;
};

int store_volume_create(struct store *s, struct store_volume *volume, struct err *e);
int store_volume_get(struct store *s, struct store_scope scope, const char *id,
	struct store_volume *ret, struct err *e);
int store_volume_by_name(struct store *s, const char *tenant_id, const char *name,
	struct store_volume *ret, struct err *e);
/* instance_id: only those attached to it; "" for all. */
int store_volume_list(struct store *s, struct store_scope scope, const char *instance_id,
	const struct store_page *after, struct store_volume *ret, size_t max, struct err *e);
/*
 * Writes size, host, instance, location, epoch and state, if the revision is still the same and
 * the epoch no lower than it was.
 */
int store_volume_update(
	struct store *s, struct store_scope scope, struct store_volume *volume, struct err *e);
/* Gives back what it had reserved. ERR_CONFLICT while it is attached. */
int store_volume_delete(struct store *s, struct store_scope scope, const char *id, struct err *e);

#endif
