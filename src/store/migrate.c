/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table `migrations` says which steps a database has taken, with the checksum of each one's
 * text at that time. It must be a beginning of our own list, text for text:
 *
 *   ours longer        the missing steps are taken, all in one transaction;
 *   theirs longer      a newer version made it: refused, because what a newer schema means
 *                      cannot be known here;
 *   another checksum   the histories have parted: refused.
 *
 * Several processes may open a new database at once: the check and the steps are one write
 * transaction, so the second one finds the work done.
 */
#include "store/migrate.h"

#include <errno.h>
#include <string.h>

#include "store/statement.h"

static const char migrations_table[] =
	"CREATE TABLE IF NOT EXISTS migrations ("
	"number BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, "
	"applied BIGINT NOT NULL)";

static bool text_equals(const struct store_value *v, const char *s)
{
	return v->bytes && v->size == strlen(s) && memcmp(v->bytes, s, v->size) == 0;
}

/* Looks at the step in the current row, which is the position-th taken (from 1). */
static int check_taken(struct store_rows *rows, unsigned int position, struct err *e)
{
	struct store_value number = {0}, checksum = {0};
	const struct store_migration *m;
	int r = store_column(rows, 0, STORE_INTEGER, &number, e);

	if (r == 0)
		r = store_column(rows, 1, STORE_TEXT, &checksum, e);
	if (r < 0)
		return r;
	if (number.integer != position)
		return err_set(e, ERR_CORRUPT, "the database's list of migrations lacks number %u",
			position);
	if (position > store_migration_count) {
		(void)err_set(e, ERR_VERSION,
			"the database was written by a newer version (its schema has migration %u, "
			"this version knows %u)",
			position, store_migration_count);
		return err_hint(e,
			"use the newer version, or restore a backup made by version " SOSIE_VERSION
			" or before");
	}
	m = &store_migrations[position - 1];
	if (text_equals(&checksum, m->checksum))
		return 0;
	(void)err_set(e, ERR_VERSION,
		"migration %u (%s) of the database is not the one that this version has", m->number,
		m->name);
	return err_hint(e, "use the build that made the database");
}

/* How many steps the database has taken, all checked. */
static int count_taken(struct store *s, unsigned int *ret, struct err *e)
{
	CLEANUP_ROWS struct store_rows rows = {0};
	unsigned int taken = 0;
	int r = store_query(s, MIGRATION_LIST, NULL, 0, &rows, e);

	if (r < 0)
		return r;
	while ((r = store_next(&rows, e)) > 0) {
		r = check_taken(&rows, ++taken, e);
		if (r < 0)
			return r;
	}
	if (r == 0)
		*ret = taken;
	return r;
}

static int take(struct store *s, const struct store_migration *m, struct err *e)
{
	int r = store_script(s, m->sql, e);

	if (r < 0)
		return r;
	return store_exec(s, MIGRATION_INSERT,
		STORE_VALUES(store_integer(m->number), store_text(m->name), store_text(m->checksum),
			store_integer(store_now(s))),
		NULL, e);
}

int store_migrate(struct store *s, struct err *e)
{
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	unsigned int taken = 0;
	int r = store_begin(s, STORE_WRITE, &t, e);

	if (r == 0)
		r = store_script(s, migrations_table, e);
	if (r == 0)
		r = count_taken(s, &taken, e);
	if (r < 0)
		return r;
	for (unsigned int i = taken; i < store_migration_count; i++) {
		r = take(s, &store_migrations[i], e);
		if (r < 0)
			return r;
	}
	return store_commit(&t, e);
}
