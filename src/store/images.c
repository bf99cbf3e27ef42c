/* SPDX-License-Identifier: Apache-2.0 */
#include "store/images.h"

#include "store/entity.h"

STORE_DEFINE_NAMES(store_formats, STORE_FORMAT_TABLE);
STORE_DEFINE_NAMES(store_image_states, STORE_IMAGE_STATE_TABLE);

static const struct field image_fields[] = {
	TEXT(store_image, id),
	TEXT(store_image, tenant_id),
	TEXT(store_image, name),
	TEXT(store_image, version),
	ENUM(store_image, format, &store_formats),
	INTEGER(store_image, size),
	TEXT(store_image, sha256),
	TEXT(store_image, path),
	TEXT(store_image, metadata),
	INTEGER(store_image, public),
	ENUM(store_image, state, &store_image_states),
	INTEGER(store_image, created),
	INTEGER(store_image, revision),
};
DEFINE_ENTITY(image_entity, "image", "m", store_image, image_fields);

int store_image_create(struct store *s, struct store_image *image, struct err *e)
{
	return entity_insert(s, &image_entity, IMAGE_INSERT, image, e);
}

int store_image_get(struct store *s, struct store_scope scope, const char *id,
	struct store_image *ret, struct err *e)
{
	return entity_get(
		s, &image_entity, IMAGE_GET, STORE_VALUES(SCOPED_ID(scope, id)), id, ret, e);
}

int store_image_by_name(struct store *s, const char *tenant_id, const char *name,
	const char *version, struct store_image *ret, struct err *e)
{
	return entity_get(s, &image_entity, IMAGE_BY_NAME,
		STORE_VALUES(store_text(tenant_id), store_text(name), store_text(version)), name,
		ret, e);
}

/* Public images lie outside the scope's range, so the mark is not moved into it. */
int store_image_list(struct store *s, struct store_scope scope, const struct store_page *after,
	struct store_image *ret, size_t max, struct err *e)
{
	const char *tenant = after && after->tenant_id ? after->tenant_id : "";

	return entity_list(s, &image_entity, IMAGE_LIST,
		STORE_VALUES(store_text(tenant), store_text(page_id(after)),
			store_text(scope_first(scope)), store_text(scope_last(scope)),
			store_integer(page_limit(max))),
		ret, max, e);
}

int store_image_update(
	struct store *s, struct store_scope scope, struct store_image *image, struct err *e)
{
	const char *state = store_name(&store_image_states, image->state);
	uint64_t revision = 0;
	int r;

	if (!state)
		return store_doom(s, err_set(e, ERR_INVALID, "image: no such state"));
	r = store_next_revision(s, &revision, e);
	if (r < 0)
		return r;
	r = entity_update(s, &image_entity, IMAGE_UPDATE,
		STORE_VALUES(store_text(image->id), store_integer(image->revision),
			store_integer(image->size), store_text(image->sha256),
			store_text(image->path), store_text(image->metadata),
			store_integer(image->public), store_text(state), store_integer(revision),
			store_text(scope_first(scope)), store_text(scope_last(scope))),
		IMAGE_GET, STORE_VALUES(SCOPED_ID(scope, image->id)), e);
	if (r == 0)
		image->revision = revision;
	return r;
}

int store_image_delete(struct store *s, struct store_scope scope, const char *id, struct err *e)
{
	return entity_delete(s, &image_entity, IMAGE_DELETE, STORE_VALUES(SCOPED_ID(scope, id)), e);
}
