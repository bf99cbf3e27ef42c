/* SPDX-License-Identifier: Apache-2.0 */
#include "store/entity.h"

#include <errno.h>
#include <string.h>

static int number_value(const struct field *f, const void *at, struct store_value *ret)
{
	uint64_t v = 0;

	/* Little-endian, as is every machine that a host can be. */
	static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers of several sizes");
	assert(f->size <= sizeof(v));
	memcpy(&v, at, f->size);
	*ret = store_integer(v);
	return 0;
}

static int word_value(const struct field *f, const void *at, struct store_value *ret)
{
	unsigned int v;
	const char *word;

	assert(f->size == sizeof(v));
	memcpy(&v, at, sizeof(v));
	word = store_name(f->names, v);
	if (!word)
		return -EINVAL;
	*ret = store_text(word);
	return 0;
}

static int field_value(const struct field *f, const void *at, struct store_value *ret)
{
	switch (f->type) {
	case FIELD_TEXT:
		*ret = store_text(at);
		return 0;
	case FIELD_REFERENCE:
		*ret = store_reference(at);
		return 0;
	case FIELD_INTEGER:
		return number_value(f, at, ret);
	case FIELD_ENUM:
		return word_value(f, at, ret);
	}
	return -EINVAL;
}

int entity_values(
	const struct entity *entity, const void *row, struct store_value *values, struct err *e)
{
	assert(entity->count <= FIELDS_MAX);
	for (size_t i = 0; i < entity->count; i++) {
		const struct field *f = &entity->fields[i];

		if (field_value(f, (const char *)row + f->offset, &values[i]) < 0)
			return err_set(e, ERR_INVALID, "%s: %s has no such value", entity->what,
				f->column);
	}
	return 0;
}

static int read_text(const struct store_value *v, const struct field *f, void *at)
{
	if (v->size >= f->size || memchr(v->bytes, 0, v->size))
		return -EPROTO;
	memcpy(at, v->bytes, v->size);
	memset((char *)at + v->size, 0, f->size - v->size);
	return 0;
}

static int read_word(const struct store_value *v, const struct field *f, void *at)
{
	char word[32];
	unsigned int found;

	if (v->size >= sizeof(word))
		return -EPROTO;
	memcpy(word, v->bytes, v->size);
	word[v->size] = '\0';
	if (store_name_parse(f->names, word, &found) < 0)
		return -EPROTO;
	memcpy(at, &found, sizeof(found));
	return 0;
}

static int read_number(const struct store_value *v, const struct field *f, void *at)
{
	uint64_t number = (uint64_t)v->integer;

	if (v->integer < 0 || (f->size < sizeof(number) && number >> (8 * f->size) != 0))
		return -EPROTO;
	memcpy(at, &number, f->size);
	return 0;
}

static int read_field(struct store_rows *rows, unsigned int column, const struct field *f, void *at,
	struct err *e)
{
	struct store_value v;
	enum store_type type = f->type == FIELD_INTEGER ? STORE_INTEGER : STORE_TEXT;
	int r = store_column(rows, column, type, &v, e);

	if (r < 0)
		return r;
	if (f->type == FIELD_INTEGER)
		r = read_number(&v, f, at);
	else if (f->type == FIELD_ENUM)
		r = read_word(&v, f, at);
	else
		r = read_text(&v, f, at);
	if (r < 0)
		return store_doom(rows->store,
			err_set(e, ERR_CORRUPT, "the store holds an impossible %s", f->column));
	return 0;
}

/* The statement's columns are the entity's fields, one by one. A defect if not. */
static void check_columns(const struct store_rows *rows, const struct entity *entity)
{
	assert(store_column_count(rows) == entity->count);
	for (unsigned int i = 0; i < entity->count; i++)
		assert(strcmp(store_column_name(rows, i), entity->fields[i].column) == 0);
}

static int read_row(struct store_rows *rows, const struct entity *entity, void *row, struct err *e)
{
	if (rows->first)
		check_columns(rows, entity);
	rows->first = false;
	memset(row, 0, entity->size);
	for (unsigned int i = 0; i < entity->count; i++) {
		const struct field *f = &entity->fields[i];
		int r = read_field(rows, i, f, (char *)row + f->offset, e);

		if (r < 0)
			return r;
	}
	return 0;
}

/* What a row is called in messages: its name when it has one, else its identifier. */
static const char *label(const struct entity *entity, const void *row)
{
	for (size_t i = 0; i < entity->count; i++)
		if (strcmp(entity->fields[i].column, "name") == 0)
			return (const char *)row + entity->fields[i].offset;
	return (const char *)row + entity->fields[0].offset;
}

static int explain_insert(int r, const struct entity *entity, const void *row, struct err *e)
{
	if (r == -EEXIST)
		return err_set(e, ERR_CONFLICT, "%s %s exists already, or what it claims is taken",
			entity->what, label(entity, row));
	if (r == -ENOENT)
		return err_set(e, ERR_NOT_FOUND, "%s %s refers to something that does not exist",
			entity->what, label(entity, row));
	return r;
}

int entity_insert_extra(struct store *s, const struct entity *entity, enum store_query q, void *row,
	const struct store_value *extra, size_t n_extra, struct err *e)
{
	const struct field *f = entity->fields;
	size_t n = entity->count;
	struct store_value values[FIELDS_MAX];
	char id[STORE_ID_SIZE];
	uint64_t revision = 0, created = store_now(s);
	int r = entity_values(entity, row, values, e);

	assert(n + n_extra <= FIELDS_MAX && f[0].size == STORE_ID_SIZE);
	assert(f[n - 2].size == sizeof(created) && f[n - 1].size == sizeof(revision));
	if (r < 0)
		return store_doom(s, r);
	(void)memcpy(id, (char *)row + f[0].offset, sizeof(id));
	if (!id[0])
		r = store_new_id(s, entity->kind, id, e);
	if (r == 0)
		r = store_next_revision(s, &revision, e);
	if (r < 0)
		return store_doom(s, r);
	values[0] = store_text(id);
	values[n - 2] = store_integer(created);
	values[n - 1] = store_integer(revision);
	for (size_t i = 0; i < n_extra; i++)
		values[n + i] = extra[i];
	r = store_exec(s, q, values, n + n_extra, NULL, e);
	if (r < 0)
		return explain_insert(r, entity, row, e);
	memcpy((char *)row + f[0].offset, id, sizeof(id));
	memcpy((char *)row + f[n - 2].offset, &created, sizeof(created));
	memcpy((char *)row + f[n - 1].offset, &revision, sizeof(revision));
	return 0;
}

int entity_insert(
	struct store *s, const struct entity *entity, enum store_query q, void *row, struct err *e)
{
	return entity_insert_extra(s, entity, q, row, NULL, 0, e);
}

int entity_get(struct store *s, const struct entity *entity, enum store_query q,
	const struct store_value *values, size_t n, const char *name, void *ret, struct err *e)
{
	int r = entity_list(s, entity, q, values, n, ret, 1, e);

	if (r == 0)
		return err_set(e, ERR_NOT_FOUND, "no %s %s", entity->what, name);
	return MIN(r, 0);
}

int entity_list(struct store *s, const struct entity *entity, enum store_query q,
	const struct store_value *values, size_t n, void *ret, size_t max, struct err *e)
{
	CLEANUP_ROWS struct store_rows rows = {0};
	size_t limit = page_limit(max), found = 0;
	int r = store_query(s, q, values, n, &rows, e);

	while (r >= 0 && found < limit) {
		r = store_next(&rows, e);
		if (r <= 0)
			break;
		r = read_row(&rows, entity, (char *)ret + found * entity->size, e);
		found++;
	}
	return r < 0 ? r : (int)found;
}

int entity_update(struct store *s, const struct entity *entity, enum store_query q,
	const struct store_value *values, size_t n, enum store_query get,
	const struct store_value *get_values, size_t n_get, struct err *e)
{
	CLEANUP_ROWS struct store_rows rows = {0};
	uint64_t changed = 0;
	int r = store_exec(s, q, values, n, &changed, e);

	if (r == -ENOENT)
		return err_set(e, ERR_NOT_FOUND, "%s would refer to something that does not exist",
			entity->what);
	if (r == -EEXIST)
		return err_set(e, ERR_CONFLICT, "%s: what it claims is taken", entity->what);
	if (r < 0 || changed == 1)
		return r;
	r = store_query(s, get, get_values, n_get, &rows, e);
	if (r == 0)
		r = store_next(&rows, e);
	if (r < 0)
		return r;
	if (r == 0)
		return store_doom(s, err_set(e, ERR_NOT_FOUND, "no such %s", entity->what));
	(void)err_set(e, ERR_CONFLICT, "%s was changed by somebody else meanwhile", entity->what);
	(void)err_hint(e, "read it again and repeat the change");
	return store_doom(s, -EEXIST);
}

int entity_delete(struct store *s, const struct entity *entity, enum store_query q,
	const struct store_value *values, size_t n, struct err *e)
{
	uint64_t changed = 0;
	int r = store_exec(s, q, values, n, &changed, e);

	if (r == -EEXIST)
		return err_set(e, ERR_CONFLICT, "%s is still in use", entity->what);
	if (r == 0 && changed == 0)
		return store_doom(s, err_set(e, ERR_NOT_FOUND, "no such %s", entity->what));
	return r;
}

const char *scope_first(struct store_scope scope)
{
	return scope.first ? scope.first : "~";
}

const char *scope_last(struct store_scope scope)
{
	return scope.first && scope.last ? scope.last : "";
}

/* A page mark of another tenant cannot widen the scope. */
const char *page_tenant(struct store_scope scope, const struct store_page *page)
{
	const char *first = scope_first(scope);

	if (!page || !page->tenant_id || strcmp(page->tenant_id, first) < 0)
		return first;
	return page->tenant_id;
}

const char *page_id(const struct store_page *page)
{
	return page && page->id ? page->id : "";
}

size_t page_limit(size_t max)
{
	return MIN(max, STORE_PAGE_MAX);
}
