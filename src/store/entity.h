/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between structs and rows: a table of fields per entity, and the operations that all share.
 *
 * The fields stand in the order of the entity's X_COLUMNS in queries.h (checked by name when rows
 * are read). Entities that are changed by revision begin with `id` and end with `created` and
 * `revision`; those that belong to somebody have `tenant_id` second. Inside the store only.
 */
#ifndef SOSIE_STORE_ENTITY_H
#define SOSIE_STORE_ENTITY_H

#include "store/statement.h"

/* The most columns of a table, and two more for parameters that are none. */
#define FIELDS_MAX 24

enum field_type {
	FIELD_TEXT,      /* char[] */
	FIELD_REFERENCE, /* char[]; empty stands for NULL */
	FIELD_INTEGER,   /* unsigned, of any size; bool */
	FIELD_ENUM,      /* unsigned int; its word in the database */
};

struct field {
	const char *column;
	enum field_type type;
	size_t offset, size;
	const struct store_names *names; /* of FIELD_ENUM */
};

#define FIELD_(type_, of, member, names_)                                                      \
	{                                                                                      \
#member, type_, offsetof(struct of, member), sizeof(((struct of *)0)->member), \
			names_                                                                 \
	}
#define TEXT(of, member)        FIELD_(FIELD_TEXT, of, member, NULL)
#define REFERENCE(of, member)   FIELD_(FIELD_REFERENCE, of, member, NULL)
#define INTEGER(of, member)     FIELD_(FIELD_INTEGER, of, member, NULL)
#define ENUM(of, member, names) FIELD_(FIELD_ENUM, of, member, names)

struct entity {
	const char *what; /* "host": for messages */
	const char *kind; /* what its identifiers begin with */
	size_t size;      /* of the struct */
	const struct field *fields;
	size_t count;
};

#define DEFINE_ENTITY(object, what_, kind_, of, fields_) \
	static const struct entity object = {            \
		what_, kind_, sizeof(struct of), fields_, ARRAY_SIZE(fields_)}

/* The row's fields as values, in their order. ERR_INVALID: a word that is none. */
int entity_values(
	const struct entity *entity, const void *row, struct store_value *values, struct err *e);

/*
 * Inserts *row with the extra values behind its own, and fills in id (unless it has one),
 * created and revision. ERR_CONFLICT and ERR_NOT_FOUND speak of the entity.
 */
int entity_insert_extra(struct store *s, const struct entity *entity, enum store_query q, void *row,
	const struct store_value *extra, size_t n_extra, struct err *e);
int entity_insert(
	struct store *s, const struct entity *entity, enum store_query q, void *row, struct err *e);

/* Reads the row that the query gives. name: what was asked for, for the message. */
int entity_get(struct store *s, const struct entity *entity, enum store_query q,
	const struct store_value *values, size_t n, const char *name, void *ret, struct err *e);
/* Reads up to max rows into the array and returns their number. */
int entity_list(struct store *s, const struct entity *entity, enum store_query q,
	const struct store_value *values, size_t n, void *ret, size_t max, struct err *e);

/*
 * Runs an UPDATE that compares the revision (or another counter) and touches one row. When it
 * touches none, get (a _GET query; its parameters are the first of `get_values`) decides between
 * ERR_NOT_FOUND and ERR_CONFLICT.
 */
int entity_update(struct store *s, const struct entity *entity, enum store_query q,
	const struct store_value *values, size_t n, enum store_query get,
	const struct store_value *get_values, size_t n_get, struct err *e);

/* Deletes one row. ERR_NOT_FOUND; ERR_CONFLICT when something refers to it. */
int entity_delete(struct store *s, const struct entity *entity, enum store_query q,
	const struct store_value *values, size_t n, struct err *e);

/* The four values of a scoped list: where to go on, the last tenant, how many. */
#define PAGE_VALUES(scope, page, max)                                        \
	store_text(page_tenant((scope), (page))), store_text(page_id(page)), \
		store_text(scope_last(scope)), store_integer(page_limit(max))
const char *scope_first(struct store_scope scope);
const char *scope_last(struct store_scope scope);
const char *page_tenant(struct store_scope scope, const struct store_page *page);
const char *page_id(const struct store_page *page);
/* min(max, STORE_PAGE_MAX) */
size_t page_limit(size_t max);

/* "id = $1 AND tenant_id BETWEEN $2 AND $3" */
#define SCOPED_ID(scope, id) \
	store_text(id), store_text(scope_first(scope)), store_text(scope_last(scope))

#endif
