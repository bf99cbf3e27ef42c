/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statements with typed parameters and typed columns: what the entities are made of.
 *
 * Every statement is a row of queries.h; none is put together at run time. Inside the store only.
 */
#ifndef SOSIE_STORE_STATEMENT_H
#define SOSIE_STORE_STATEMENT_H

#include "store/queries.h"
#include "store/store.h"

enum store_query {
#define X(name, sql) name,
	STORE_QUERY_TABLE(X)
#undef X
		STORE_QUERIES
};

enum store_type { STORE_INTEGER, STORE_TEXT, STORE_BLOB };

/* A parameter or a column. A null has a type too: PostgreSQL wants to know it. */
struct store_value {
	enum store_type type;
	bool null;
	bool overflow; /* an integer above INT64_MAX, refused when used */
	int64_t integer;
	const void *bytes; /* texts and blobs; a column's is valid until the next step */
	size_t size;       /* texts: without the NUL behind them */
};

struct store_value store_integer(uint64_t v);
struct store_value store_text(const char *s);
/* NULL for an empty text: how an absent reference is kept. */
struct store_value store_reference(const char *s);
struct store_value store_blob(const void *bytes, size_t n);

/* The values v1, v2 … stand for $1, $2 … of the statement. */
#define STORE_VALUES(...)                          \
	(const struct store_value[]){__VA_ARGS__}, \
		ARRAY_SIZE(((const struct store_value[]){__VA_ARGS__}))

/* Runs a statement to its end. ret_changed (may be NULL): how many rows it touched. */
int store_exec(struct store *s, enum store_query q, const struct store_value *values, size_t n,
	uint64_t *ret_changed, struct err *e);

/* Schema text, several statements without parameters: for migrations only. */
int store_script(struct store *s, const char *sql, struct err *e);

/* A statement under way. No two of the same query at once (asserted). */
struct store_rows {
	struct store *store; /* NULL when ended */
	enum store_query query;
	void *cursor;
	bool first;
};
int store_query(struct store *s, enum store_query q, const struct store_value *values, size_t n,
	struct store_rows *ret, struct err *e);
/* 1: there is a row; 0: no more. */
int store_next(struct store_rows *rows, struct err *e);
unsigned int store_column_count(const struct store_rows *rows);
const char *store_column_name(const struct store_rows *rows, unsigned int column);
/* ERR_CORRUPT when the column is null (but for a text, which reads empty) or of another type. */
int store_column(struct store_rows *rows, unsigned int column, enum store_type type,
	struct store_value *ret, struct err *e);
void store_rows_end(struct store_rows *rows);
#define CLEANUP_ROWS CLEANUP(store_rows_end)

/* The first row's first column; -ENOENT (no message) when there is no row. */
int store_query_integer(struct store *s, enum store_query q, const struct store_value *values,
	size_t n, uint64_t *ret, struct err *e);

/* The next revision, for a change of the open write transaction. */
int store_next_revision(struct store *s, uint64_t *ret, struct err *e);
uint64_t store_now(const struct store *s);
int store_new_id(const struct store *s, const char *kind, char ret[STORE_ID_SIZE], struct err *e);

/*
 * An error that the database did not raise but ought to have: dooms the transaction like any
 * other. Returns r.
 */
int store_doom(struct store *s, int r);

#endif
