/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a database has to offer. store.c is the only caller and checks every call: the state it
 * may be made in, and that a failure explains itself. A backend keeps its dialect to itself.
 *
 * Promises that the rest relies on:
 *  - a committed transaction is durable and atomic;
 *  - begin(STORE_WRITE) waits for other writers at once or, at the latest, when a row that both
 *    change is touched; a reader sees one moment's state;
 *  - a statement's parameters are written $1, $2 … and may come in any order;
 *  - errors carry these codes: ERR_CONFLICT a key that exists already, or a row that is referred
 *    to; ERR_NOT_FOUND a reference to nothing; ERR_INVALID a failed CHECK; ERR_NO_CAPACITY no
 *    room on disk; ERR_UNAVAILABLE busy or unreachable; ERR_CORRUPT damage.
 */
#ifndef SOSIE_STORE_BACKEND_H
#define SOSIE_STORE_BACKEND_H

#include "store/statement.h"

struct store_backend {
	const char *scheme; /* what the URL begins with, before the colon */

	/* rest: the URL behind the colon. */
	int (*open)(const char *rest, unsigned int flags, void **ret, struct err *e);
	void (*close)(void *connection);

	int (*begin)(void *connection, enum store_access access, struct err *e);
	/* After a failure the caller rolls back. */
	int (*commit)(void *connection, struct err *e);
	void (*rollback)(void *connection);

	/* Several statements without parameters, of the schema. */
	int (*script)(void *connection, const char *sql, struct err *e);

	/* Prepared once per query and kept. The cursor is valid until finish(). */
	int (*start)(void *connection, enum store_query q, const struct store_value *values,
		size_t n, void **ret, struct err *e);
	int (*step)(void *connection, void *cursor, struct err *e); /* 1 row, 0 end */
	unsigned int (*column_count)(void *cursor);
	const char *(*column_name)(void *cursor, unsigned int column);
	/* type: what is expected; ret->null is set for a null, -EPROTO is returned for others. */
	int (*column)(
		void *cursor, unsigned int column, enum store_type type, struct store_value *ret);
	/* Rows that the statement changed; asked for at its end. */
	uint64_t (*changed)(void *connection, void *cursor);
	void (*finish)(void *connection, void *cursor);

	int (*check)(void *connection, struct err *e);
	int (*backup)(void *connection, const char *path, struct err *e);
};

extern const struct store_backend store_sqlite;

/* The text of a query and whether it only reads. */
const char *store_query_text(enum store_query q);
const char *store_query_name(enum store_query q);
bool store_query_reads(enum store_query q);

#endif
