/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machine images. One that is public is seen by every tenant, and changed by its own only.
 */
#ifndef SOSIE_STORE_IMAGES_H
#define SOSIE_STORE_IMAGES_H

#include "store/tenants.h"

#define STORE_FORMAT_TABLE(X)      \
	X(STORE_FORMAT_RAW, "raw") \
	X(STORE_FORMAT_QCOW2, "qcow2")

enum store_format { STORE_FORMAT_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_formats;

#define STORE_IMAGE_STATE_TABLE(X)            \
	X(STORE_IMAGE_IMPORTING, "importing") \
	X(STORE_IMAGE_READY, "ready")         \
	X(STORE_IMAGE_FAILED, "failed")

enum store_image_state { STORE_IMAGE_STATE_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_image_states;

struct store_image {
	char id[STORE_ID_SIZE];
	char tenant_id[STORE_ID_SIZE];
	char name[STORE_NAME_SIZE];
	char version[STORE_NAME_SIZE];
	unsigned int format; /* enum store_format */
	uint64_t size;       /* of the virtual disk, bytes */
	char sha256[STORE_HASH_SIZE];
	char path[512];
	char metadata[2048]; /* JSON */
	bool public;
	unsigned int state; /* enum store_image_state */
	uint64_t created;
	uint64_t revision;
};

int store_image_create(struct store *s, struct store_image *image, struct err *e);
int store_image_get(struct store *s, struct store_scope scope, const char *id,
	struct store_image *ret, struct err *e);
/* The tenant's own before a public one; version "" is the newest. */
int store_image_by_name(struct store *s, const char *tenant_id, const char *name,
	const char *version, struct store_image *ret, struct err *e);
int store_image_list(struct store *s, struct store_scope scope, const struct store_page *after,
	struct store_image *ret, size_t max, struct err *e);
/* Writes size, sha256, path, metadata, public and state, if the revision is still the same. */
int store_image_update(
	struct store *s, struct store_scope scope, struct store_image *image, struct err *e);
/* ERR_CONFLICT while an instance is made of it. */
int store_image_delete(struct store *s, struct store_scope scope, const char *id, struct err *e);

#endif
