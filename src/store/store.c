/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the store that knows no database: the life of a connection and its transactions,
 * and one checking wrapper around each operation of the backend.
 *
 *             begin(READ)                  begin(WRITE)
 *   READING <------------- IDLE -----------------> WRITING
 *      |                   ^  ^                      |  \ any failure
 *      |    commit,        |  |  commit, rollback    |   v
 *      +-------------------+  +----------------------+- DOOMED
 *         rollback
 *
 * 1. A statement that changes rows runs in WRITING only; one that reads runs in any state but
 *    DOOMED.
 * 2. DOOMED commits nothing. SQLite would often let a transaction go on after a failed statement,
 *    PostgreSQL never: so no caller may count on it.
 * 3. No cursor is open when a transaction begins or ends.
 * 4. A backend that fails has set the error. One that did not is a defect, reported as such.
 */
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "store/backend.h"
#include "store/migrate.h"

enum store_state { IDLE, READING, WRITING, DOOMED };

struct store {
	const struct store_backend *backend;
	void *connection; /* the backend's; NULL before it is open */
	const struct source *source;
	enum store_state state;
	unsigned int open_cursors;
	bool running[STORE_QUERIES]; /* a cursor of this query is open */
};

static const struct store_backend *const backends[] = {&store_sqlite};

static const struct {
	const char *name, *text;
} queries[] = {
#define X(name, sql) [name] = {#name, sql},
	STORE_QUERY_TABLE(X)
#undef X
};
static_assert(ARRAY_SIZE(queries) == STORE_QUERIES, "one text per query");

const char *store_query_text(enum store_query q)
{
	assert((unsigned int)q < STORE_QUERIES);
	return queries[q].text;
}

const char *store_query_name(enum store_query q)
{
	assert((unsigned int)q < STORE_QUERIES);
	return queries[q].name;
}

bool store_query_reads(enum store_query q)
{
	return str_starts_with(store_query_text(q), "SELECT ");
}

/* Rules 2 and 4 after a backend's call. op names it for the message. */
static int checked(struct store *s, const char *op, int r, struct err *e)
{
	if (r >= 0)
		return r;
	if (s->state == WRITING)
		s->state = DOOMED;
	if (e->code == ERR_NONE)
		r = err_set(e, ERR_INTERNAL, "%s: %s failed (%s) and did not say why",
			s->backend->scheme, op, strerror(-r));
	return r;
}

/* The caller's error or, when he wants none, ours; cleared so that rule 4 can be checked. */
static struct err *prepare_error(struct err *e, struct err *ours)
{
	if (!e)
		e = ours;
	*e = (struct err){0};
	return e;
}

int store_doom(struct store *s, int r)
{
	if (r < 0 && s->state == WRITING)
		s->state = DOOMED;
	return r;
}

static const struct store_backend *find_backend(const char *url, const char **ret_rest)
{
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		size_t n = strlen(backends[i]->scheme);

		if (strncmp(url, backends[i]->scheme, n) != 0 || url[n] != ':')
			continue;
		*ret_rest = url + n + 1;
		return backends[i];
	}
	return NULL;
}

int store_open(const char *url, unsigned int flags, const struct source *source, struct store **ret,
	struct err *e)
{
	const struct store_backend *backend;
	CLEANUP_STORE struct store *s = NULL;
	struct err ours;
	const char *rest;
	int r;

	assert(source && ret);
	e = prepare_error(e, &ours);
	backend = find_backend(url, &rest);
	if (!backend) {
		(void)err_set(e, ERR_USAGE, "no store can be opened at '%s'", url);
		return err_hint(e, "give sqlite:PATH");
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_errno(e, -ENOMEM, "open the store");
	s->source = source;
	s->backend = backend;
	r = checked(s, "open", backend->open(rest, flags, &s->connection, e), e);
	if (r == 0)
		r = store_migrate(s, e);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	assert(s->state == IDLE && s->open_cursors == 0);
	if (s->connection)
		s->backend->close(s->connection);
	free(s);
}

int store_begin(
	struct store *s, enum store_access access, struct store_transaction *ret, struct err *e)
{
	struct err ours;
	int r;

	assert(s->state == IDLE && s->open_cursors == 0);
	e = prepare_error(e, &ours);
	r = checked(s, "begin", s->backend->begin(s->connection, access, e), e);
	if (r < 0)
		return r;
	s->state = access == STORE_WRITE ? WRITING : READING;
	ret->store = s;
	return 0;
}

int store_commit(struct store_transaction *t, struct err *e)
{
	struct store *s = t->store;
	struct err ours;
	int r;

	assert(s && s->state != IDLE && s->open_cursors == 0);
	e = prepare_error(e, &ours);
	if (s->state == DOOMED)
		r = err_set(
			e, ERR_CONFLICT, "nothing was changed: a part of the change had failed");
	else
		r = checked(s, "commit", s->backend->commit(s->connection, e), e);
	if (r < 0) {
		store_rollback(t);
		return r;
	}
	s->state = IDLE;
	t->store = NULL;
	return 0;
}

void store_rollback(struct store_transaction *t)
{
	struct store *s = t->store;

	if (!s)
		return;
	assert(s->state != IDLE && s->open_cursors == 0);
	s->backend->rollback(s->connection);
	s->state = IDLE;
	t->store = NULL;
}

int store_script(struct store *s, const char *sql, struct err *e)
{
	struct err ours;

	assert(s->state == WRITING);
	e = prepare_error(e, &ours);
	return checked(s, "script", s->backend->script(s->connection, sql, e), e);
}

int store_query(struct store *s, enum store_query q, const struct store_value *values, size_t n,
	struct store_rows *ret, struct err *e)
{
	struct err ours;
	void *cursor = NULL;
	int r;

	assert(s->state == WRITING || (store_query_reads(q) && s->state != DOOMED));
	assert(!s->running[q]);
	e = prepare_error(e, &ours);
	for (size_t i = 0; i < n; i++)
		if (values[i].overflow)
			return store_doom(s, err_set(e, ERR_INVALID, "a number is above 2^63 - 1"));
	r = checked(s, "start", s->backend->start(s->connection, q, values, n, &cursor, e), e);
	if (r < 0)
		return r;
	s->running[q] = true;
	s->open_cursors++;
	*ret = (struct store_rows){.store = s, .query = q, .cursor = cursor, .first = true};
	return 0;
}

int store_next(struct store_rows *rows, struct err *e)
{
	struct store *s = rows->store;
	struct err ours;

	assert(s && s->state != DOOMED);
	e = prepare_error(e, &ours);
	return checked(s, "step", s->backend->step(s->connection, rows->cursor, e), e);
}

unsigned int store_column_count(const struct store_rows *rows)
{
	return rows->store->backend->column_count(rows->cursor);
}

const char *store_column_name(const struct store_rows *rows, unsigned int column)
{
	assert(column < store_column_count(rows));
	return rows->store->backend->column_name(rows->cursor, column);
}

int store_column(struct store_rows *rows, unsigned int column, enum store_type type,
	struct store_value *ret, struct err *e)
{
	struct store *s = rows->store;
	struct store_value v = {.type = type};
	int r;

	assert(s && column < store_column_count(rows));
	r = s->backend->column(rows->cursor, column, type, &v);
	if (r == 0 && v.null && type != STORE_TEXT)
		r = -EPROTO;
	if (r < 0)
		return store_doom(
			s, err_set(e, ERR_CORRUPT, "%s: column %s holds no %s",
				   store_query_name(rows->query), store_column_name(rows, column),
				   type == STORE_INTEGER ? "number" : "text"));
	if (v.null)
		v.bytes = "";
	*ret = v;
	return 0;
}

void store_rows_end(struct store_rows *rows)
{
	struct store *s = rows->store;

	if (!s)
		return;
	s->backend->finish(s->connection, rows->cursor);
	assert(s->running[rows->query] && s->open_cursors > 0);
	s->running[rows->query] = false;
	s->open_cursors--;
	rows->store = NULL;
}

int store_exec(struct store *s, enum store_query q, const struct store_value *values, size_t n,
	uint64_t *ret_changed, struct err *e)
{
	CLEANUP_ROWS struct store_rows rows = {0};
	int r = store_query(s, q, values, n, &rows, e);

	while (r == 0 || r == 1) {
		r = store_next(&rows, e);
		if (r == 0)
			break;
	}
	if (r < 0)
		return r;
	if (ret_changed)
		*ret_changed = s->backend->changed(s->connection, rows.cursor);
	return 0;
}

int store_query_integer(struct store *s, enum store_query q, const struct store_value *values,
	size_t n, uint64_t *ret, struct err *e)
{
	CLEANUP_ROWS struct store_rows rows = {0};
	struct store_value v = {0};
	int r = store_query(s, q, values, n, &rows, e);

	if (r == 0)
		r = store_next(&rows, e);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	r = store_column(&rows, 0, STORE_INTEGER, &v, e);
	if (r < 0)
		return r;
	*ret = (uint64_t)v.integer;
	return 0;
}

int store_next_revision(struct store *s, uint64_t *ret, struct err *e)
{
	int r = store_query_integer(s, REVISION_NEXT, NULL, 0, ret, e);

	if (r == -ENOENT)
		r = store_doom(s, err_set(e, ERR_CORRUPT, "the revision counter is missing"));
	return r;
}

int store_revision(struct store *s, uint64_t *ret, struct err *e)
{
	int r = store_query_integer(s, REVISION_LAST, NULL, 0, ret, e);

	if (r == -ENOENT)
		r = err_set(e, ERR_CORRUPT, "the revision counter is missing");
	return r;
}

/* The sums in the database that its own constraints cannot express. */
static int check_reservations(struct store *s, struct err *e)
{
	CLEANUP_ROWS struct store_rows rows = {0};
	struct store_value name = {0};
	int r = store_query(s, HOST_UNBALANCED, NULL, 0, &rows, e);

	if (r == 0)
		r = store_next(&rows, e);
	if (r <= 0)
		return r;
	r = store_column(&rows, 0, STORE_TEXT, &name, e);
	if (r < 0)
		return r;
	return err_set(e, ERR_CORRUPT,
		"host %.*s: what is free and what is reserved do not add up to what there is",
		(int)name.size, (const char *)name.bytes);
}

int store_check(struct store *s, struct err *e)
{
	struct err ours;
	int r;

	assert(s->state == IDLE && s->open_cursors == 0);
	e = prepare_error(e, &ours);
	r = checked(s, "check", s->backend->check(s->connection, e), e);
	return r < 0 ? r : check_reservations(s, e);
}

int store_backup(struct store *s, const char *path, struct err *e)
{
	struct err ours;

	assert(s->state == IDLE && s->open_cursors == 0);
	e = prepare_error(e, &ours);
	return checked(s, "backup", s->backend->backup(s->connection, path, e), e);
}

uint64_t store_now(const struct store *s)
{
	return s->source->clock_ns(s->source->context, CLOCK_REALTIME);
}

int store_new_id(const struct store *s, const char *kind, char ret[STORE_ID_SIZE], struct err *e)
{
	uint64_t ms = store_now(s) / NSEC_PER_MSEC;
	uint8_t chance[6];
	char digits[2 * sizeof(chance) + 1];
	int r = s->source->random(s->source->context, chance, sizeof(chance));

	if (r < 0)
		return err_errno(e, r, "make an identifier");
	hex_encode(chance, sizeof(chance), digits);
	(void)snprintf(ret, STORE_ID_SIZE, "%s-%012llx%s", kind,
		(unsigned long long)(ms & 0xffffffffffff), digits);
	return 0;
}

struct store_scope store_scope_tenant(const char *tenant_id)
{
	assert(tenant_id && tenant_id[0]);
	return (struct store_scope){tenant_id, tenant_id};
}

struct store_scope store_scope_all(void)
{
	return (struct store_scope){"", "~"};
}

const char *store_name(const struct store_names *names, unsigned int value)
{
	return value < names->count ? names->names[value] : NULL;
}

int store_name_parse(const struct store_names *names, const char *name, unsigned int *ret)
{
	for (unsigned int i = 0; i < names->count; i++) {
		if (strcmp(names->names[i], name) != 0)
			continue;
		*ret = i;
		return 0;
	}
	return -EINVAL;
}

struct store_value store_integer(uint64_t v)
{
	return (struct store_value){
		.type = STORE_INTEGER, .overflow = v > INT64_MAX, .integer = (int64_t)v};
}

struct store_value store_text(const char *s)
{
	return (struct store_value){.type = STORE_TEXT, .bytes = s, .size = strlen(s)};
}

struct store_value store_reference(const char *s)
{
	struct store_value v = store_text(s);

	v.null = v.size == 0;
	return v;
}

struct store_value store_blob(const void *bytes, size_t n)
{
	return (struct store_value){.type = STORE_BLOB, .bytes = bytes ? bytes : "", .size = n};
}
