/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded backend: one file, write-ahead log, every commit synced (synchronous=FULL).
 *
 * How a file becomes ours: the very first transaction, still with a rollback journal, writes
 * nothing but the application id into the header; only then is the write-ahead log switched on.
 * So a file that is not empty, has no journal to be rolled back and lacks the id was never ours,
 * and that can be seen in its first 100 bytes, before SQLite has been asked to do anything with
 * it. Those bytes are read through SQLite's own file handle: closing another descriptor of the
 * file would drop the locks of this process's other connections (POSIX locks work that way).
 *
 * A write transaction is BEGIN IMMEDIATE: it waits for the other writer at the start, where
 * waiting cannot deadlock.
 *
 * $1, $2 … are parameters with names to SQLite, numbered by their first appearance: binding goes
 * by name.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/reader.h"
#include "store/backend.h"

#define APPLICATION_ID     0x536f7369 /* "Sosi" */
#define HEADER_SIZE        100
#define HEADER_APPLICATION 68
/* Of the write-ahead log after a checkpoint; while it grows it may be larger. */
#define LOG_SIZE_MAX "67108864"

struct sqlite {
	sqlite3 *db;
	sqlite3_stmt *statements[STORE_QUERIES]; /* prepared when first used */
};

/* The code that stands for a failed operation, by SQLite's extended result. */
static enum err_code code_of(int result, int system_errno, bool deleting)
{
	switch (result) {
	case SQLITE_CONSTRAINT_UNIQUE:
	case SQLITE_CONSTRAINT_PRIMARYKEY:
	case SQLITE_CONSTRAINT_ROWID:
		return ERR_CONFLICT;
	case SQLITE_CONSTRAINT_FOREIGNKEY:
		return deleting ? ERR_CONFLICT : ERR_NOT_FOUND;
	default:
		break;
	}
	switch (result & 0xff) {
	case SQLITE_CONSTRAINT:
	case SQLITE_MISMATCH:
		return ERR_INVALID;
	case SQLITE_FULL:
		return ERR_NO_CAPACITY;
	case SQLITE_IOERR:
		return system_errno == ENOSPC || system_errno == EDQUOT ? ERR_NO_CAPACITY
									: ERR_INTERNAL;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return ERR_UNAVAILABLE;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return ERR_CORRUPT;
	case SQLITE_PERM:
	case SQLITE_AUTH:
	case SQLITE_READONLY:
		return ERR_FORBIDDEN;
	case SQLITE_CANTOPEN:
		return system_errno == ENOENT || system_errno == ENOTDIR ? ERR_NOT_FOUND
									 : ERR_FORBIDDEN;
	case SQLITE_TOOBIG:
		return ERR_TOO_LARGE;
	default:
		return ERR_INTERNAL;
	}
}

static int fail(struct err *e, sqlite3 *db, bool deleting, const char *what)
{
	int result = sqlite3_extended_errcode(db);
	enum err_code code = code_of(result, sqlite3_system_errno(db), deleting);
	int r = err_set(e, code, "%s: %s", what, sqlite3_errmsg(db));

	if (code == ERR_NO_CAPACITY)
		return err_hint(e, "free some disk space where the store is; nothing was changed");
	if (code == ERR_UNAVAILABLE)
		return err_hint(e, "another process holds the store; try again");
	if (code == ERR_CORRUPT)
		return err_hint(e, "restore the store from a backup");
	return r;
}

static int run(struct sqlite *c, const char *sql, struct err *e)
{
	if (sqlite3_exec(c->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return fail(e, c->db, false, "store");
	return 0;
}

/*
 * Copies the first column of the first row; "" when there is none. The statements are this
 * file's own, not the table's.
 */
static int ask(struct sqlite *c, const char *sql, char *out, size_t size, struct err *e)
{
	sqlite3_stmt *statement = NULL;
	const char *text;
	int result = sqlite3_prepare_v2(c->db, sql, -1, &statement, NULL);

	out[0] = '\0';
	if (result == SQLITE_OK)
		result = sqlite3_step(statement);
	if (result == SQLITE_ROW) {
		text = (const char *)sqlite3_column_text(statement, 0);
		(void)snprintf(out, size, "%s", text ? text : "");
	} else if (result != SQLITE_DONE) {
		int r = fail(e, c->db, false, "store");

		sqlite3_finalize(statement);
		return r;
	}
	sqlite3_finalize(statement);
	return 0;
}

static int not_ours(struct err *e, const char *path, const char *why)
{
	(void)err_set(e, ERR_CORRUPT, "%s %s", path, why);
	return err_hint(e, "the file was left as it is; give another path or restore a backup");
}

/* Whether the file that SQLite keeps beside the database holds anything. */
static bool companion(const char *path, const char *suffix)
{
	char name[PATH_MAX];
	struct stat st;

	return snprintf(name, sizeof(name), "%s%s", path, suffix) < (int)sizeof(name) &&
	       stat(name, &st) == 0 && st.st_size > 0;
}

/* What the first bytes of a file of that size tell. */
static int judge_header(
	const char *path, const uint8_t header[HEADER_SIZE], uint64_t size, struct err *e)
{
	struct reader in = reader_init(header, HEADER_SIZE);
	bool ours = memcmp(reader_bytes(&in, 16), "SQLite format 3", 16) == 0;
	uint32_t page_size = reader_u16_be(&in);

	if (!ours || page_size == 0)
		return not_ours(e, path, "is no store, or damaged: it does not begin like one");
	(void)reader_bytes(&in, HEADER_APPLICATION - 18);
	if (reader_u32_be(&in) != APPLICATION_ID)
		return not_ours(e, path, "is a database of another application");
	/* A kill may leave half a page behind the last one: then its whole is in the log. */
	if (page_size > 1 && size % page_size != 0 && !companion(path, "-wal"))
		return not_ours(e, path, "is damaged: it ends in the middle of a page");
	return 0;
}

/* Refuses, by its first bytes, a file that was never a store. Gives an empty one to its owner. */
static int look_at_header(sqlite3 *db, const char *path, struct err *e)
{
	uint8_t header[HEADER_SIZE];
	sqlite3_file *file = NULL;
	struct stat st;

	/* Not SQLite's own idea of the size: it takes one byte for none. */
	if (stat(path, &st) < 0)
		return err_errno(e, -errno, "%s", path);
	if (st.st_size == 0)
		return chmod(path, 0600) < 0 ? err_errno(e, -errno, "protect %s", path) : 0;
	if (companion(path, "-journal"))
		return 0; /* being made, or to be rolled back: judged by adopt() afterwards */
	if (st.st_size < HEADER_SIZE)
		return not_ours(e, path, "is no store: it is too short");
	if (sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK ||
		!file || !file->pMethods ||
		file->pMethods->xRead(file, header, HEADER_SIZE, 0) != SQLITE_OK)
		return err_set(e, ERR_INTERNAL, "%s cannot be read", path);
	return judge_header(path, header, (uint64_t)st.st_size, e);
}

/* Marks a database that is new; refuses one of somebody else. */
static int adopt(struct sqlite *c, const char *path, struct err *e)
{
	char answer[16], expected[16];
	int r = run(c, "BEGIN IMMEDIATE", e);

	if (r < 0)
		return r;
	(void)snprintf(expected, sizeof(expected), "%d", APPLICATION_ID);
	r = ask(c, "PRAGMA application_id", answer, sizeof(answer), e);
	if (r == 0 && strcmp(answer, expected) != 0) {
		r = ask(c, "SELECT count(*) FROM sqlite_schema", answer, sizeof(answer), e);
		if (r == 0 && strcmp(answer, "0") != 0)
			r = not_ours(e, path, "is a database of another application");
		if (r == 0)
			r = run(c, "PRAGMA application_id = 1399812969", e);
	}
	static_assert(APPLICATION_ID == 1399812969, "the pragma takes no parameter");
	if (r == 0)
		r = run(c, "COMMIT", e);
	if (r < 0)
		(void)sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
	return r;
}

static int configure(struct sqlite *c, bool memory, struct err *e)
{
	char mode[16];
	int r = ask(c, "PRAGMA journal_mode = WAL", mode, sizeof(mode), e);

	if (r < 0)
		return r;
	if (strcmp(mode, memory ? "memory" : "wal") != 0)
		return err_set(e, ERR_UNAVAILABLE,
			"the store's file system lacks the locks or shared memory that it needs");
	return run(c,
		"PRAGMA synchronous = FULL;"
		"PRAGMA foreign_keys = ON;"
		"PRAGMA trusted_schema = OFF;"
		"PRAGMA cell_size_check = ON;"
		"PRAGMA temp_store = MEMORY;"
		"PRAGMA journal_size_limit = " LOG_SIZE_MAX,
		e);
}

static int look_for_damage(struct sqlite *c, const char *pragma, struct err *e)
{
	char answer[256];
	int r = ask(c, pragma, answer, sizeof(answer), e);

	if (r < 0 || strcmp(answer, "ok") == 0)
		return r;
	(void)err_set(e, ERR_CORRUPT, "the store is damaged: %s", answer);
	return err_hint(e, "restore the store from a backup");
}

static int keep_log_on_close(struct sqlite *c, int keep)
{
	return sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep, NULL);
}

static int open_parent(const char *path, int *ret_fd, struct err *e)
{
	char directory[PATH_MAX];
	char *slash;
	int fd;

	(void)snprintf(directory, sizeof(directory), "%s", path);
	slash = strrchr(directory, '/');
	if (slash)
		slash[slash == directory] = '\0';
	fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, -errno, "open the folder of %s", path);
	*ret_fd = fd;
	return 0;
}

/*
 * One process at a time, by a lock on the folder: while one switches a new file to the write-ahead
 * log, SQLite tells others that it is busy instead of letting them wait.
 */
static int take_over(struct sqlite *c, const char *path, struct err *e)
{
	CLEANUP_CLOSE int folder = -1;
	int r = open_parent(path, &folder, e);

	if (r < 0)
		return r;
	while (flock(folder, LOCK_EX) < 0)
		if (errno != EINTR)
			return err_errno(e, -errno, "lock the folder of %s", path);
	r = look_at_header(c->db, path, e);
	if (r == 0)
		r = adopt(c, path, e);
	return r < 0 ? r : configure(c, false, e);
}

/* Until all is well nothing may be moved into the file, not even by closing it again. */
static int examine(struct sqlite *c, const char *path, unsigned int flags, struct err *e)
{
	bool memory = strcmp(path, ":memory:") == 0;
	int r;

	(void)sqlite3_extended_result_codes(c->db, 1);
	(void)sqlite3_busy_timeout(c->db, STORE_BUSY_MS);
	(void)keep_log_on_close(c, 1);
	r = memory ? configure(c, true, e) : take_over(c, path, e);
	if (r == 0 && !(flags & STORE_TRUSTED))
		r = look_for_damage(c, "PRAGMA quick_check(1)", e);
	if (r == 0)
		(void)keep_log_on_close(c, 0);
	return r;
}

static void sqlite_close(void *connection)
{
	struct sqlite *c = connection;
	int result;

	if (!c)
		return;
	for (size_t i = 0; i < STORE_QUERIES; i++)
		(void)sqlite3_finalize(c->statements[i]);
	result = sqlite3_close(c->db);
	assert(result == SQLITE_OK); /* else a statement has leaked */
	(void)result;
	free(c);
}
DEFINE_CLEANUP(struct sqlite *, sqlite_close);

static int sqlite_open(const char *rest, unsigned int flags, void **ret, struct err *e)
{
	CLEANUP(sqlite_close_p) struct sqlite *c = NULL;
	char path[PATH_MAX];
	bool special = rest[0] == '/' || strcmp(rest, ":memory:") == 0;
	int result, r;

	if (!rest[0])
		return err_set(e, ERR_USAGE, "the store's path is missing behind 'sqlite:'");
	/* A relative path with "./" before it, or SQLite might take it for a URI. */
	if (snprintf(path, sizeof(path), "%s%s", special ? "" : "./", rest) >= (int)sizeof(path))
		return err_errno(e, -ENAMETOOLONG, "%s", rest);
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_errno(e, -ENOMEM, "open the store");
	result = sqlite3_open_v2(path, &c->db,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
	if (result != SQLITE_OK)
		return fail(e, c->db, false, path);
	if (sqlite3_db_readonly(c->db, "main") == 1)
		return err_set(e, ERR_FORBIDDEN, "%s may not be written", path);
	r = examine(c, path, flags, e);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(c);
	return 0;
}

static int sqlite_begin(void *connection, enum store_access access, struct err *e)
{
	return run(connection, access == STORE_WRITE ? "BEGIN IMMEDIATE" : "BEGIN", e);
}

static int sqlite_commit(void *connection, struct err *e)
{
	return run(connection, "COMMIT", e);
}

static void sqlite_rollback(void *connection)
{
	struct sqlite *c = connection;

	/* Some errors (disk full, I/O) have rolled back already. */
	if (!sqlite3_get_autocommit(c->db))
		(void)sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
	assert(sqlite3_get_autocommit(c->db));
}

static int sqlite_script(void *connection, const char *sql, struct err *e)
{
	return run(connection, sql, e);
}

static int bind(sqlite3_stmt *statement, int index, const struct store_value *v)
{
	if (v->null)
		return sqlite3_bind_null(statement, index);
	switch (v->type) {
	case STORE_INTEGER:
		return sqlite3_bind_int64(statement, index, v->integer);
	case STORE_TEXT:
		return sqlite3_bind_text64(
			statement, index, v->bytes, v->size, SQLITE_TRANSIENT, SQLITE_UTF8);
	case STORE_BLOB:
		return sqlite3_bind_blob64(statement, index, v->bytes, v->size, SQLITE_TRANSIENT);
	}
	return SQLITE_MISUSE;
}

/* Binds each $k of the statement to the k-th value. */
static int bind_all(struct sqlite *c, sqlite3_stmt *statement, const struct store_value *values,
	size_t n, struct err *e)
{
	int count = sqlite3_bind_parameter_count(statement);

	for (int index = 1; index <= count; index++) {
		const char *name = sqlite3_bind_parameter_name(statement, index);
		uint64_t k = 0;

		if (!name || name[0] != '$' || parse_u64(name + 1, n, &k) < 0 || k == 0)
			return err_set(e, ERR_INTERNAL, "store: no value for parameter %s",
				name ? name : "?");
		if (bind(statement, index, &values[k - 1]) != SQLITE_OK)
			return fail(e, c->db, false, "store: bind");
	}
	return 0;
}

static int sqlite_start(void *connection, enum store_query q, const struct store_value *values,
	size_t n, void **ret, struct err *e)
{
	struct sqlite *c = connection;
	sqlite3_stmt *statement = c->statements[q];
	int r;

	if (!statement) {
		if (sqlite3_prepare_v3(c->db, store_query_text(q), -1, SQLITE_PREPARE_PERSISTENT,
			    &statement, NULL) != SQLITE_OK)
			return fail(e, c->db, false, store_query_name(q));
		c->statements[q] = statement;
	}
	r = bind_all(c, statement, values, n, e);
	if (r < 0) {
		(void)sqlite3_clear_bindings(statement);
		return r;
	}
	*ret = statement;
	return 0;
}

static int sqlite_step(void *connection, void *cursor, struct err *e)
{
	struct sqlite *c = connection;
	int result = sqlite3_step(cursor);

	if (result == SQLITE_ROW)
		return 1;
	if (result == SQLITE_DONE)
		return 0;
	return fail(e, c->db, str_starts_with(sqlite3_sql(cursor), "DELETE "), "store");
}

static unsigned int sqlite_column_count(void *cursor)
{
	return (unsigned int)sqlite3_column_count(cursor);
}

static const char *sqlite_column_name(void *cursor, unsigned int column)
{
	return sqlite3_column_name(cursor, (int)column);
}

static int sqlite_column(
	void *cursor, unsigned int column, enum store_type type, struct store_value *ret)
{
	static const int expected[] = {
		[STORE_INTEGER] = SQLITE_INTEGER,
		[STORE_TEXT] = SQLITE_TEXT,
		[STORE_BLOB] = SQLITE_BLOB,
	};
	int found = sqlite3_column_type(cursor, (int)column);

	ret->null = found == SQLITE_NULL;
	if (ret->null)
		return 0;
	if (found != expected[type])
		return -EPROTO;
	if (type == STORE_INTEGER) {
		ret->integer = sqlite3_column_int64(cursor, (int)column);
		return 0;
	}
	ret->bytes = type == STORE_TEXT ? (const void *)sqlite3_column_text(cursor, (int)column)
					: sqlite3_column_blob(cursor, (int)column);
	ret->size = (size_t)sqlite3_column_bytes(cursor, (int)column);
	if (!ret->bytes)
		ret->bytes = "";
	return 0;
}

static uint64_t sqlite_changed(void *connection, void *cursor)
{
	struct sqlite *c = connection;

	return sqlite3_stmt_readonly(cursor) ? 0 : (uint64_t)sqlite3_changes64(c->db);
}

static void sqlite_finish(void *connection, void *cursor)
{
	(void)connection;
	(void)sqlite3_reset(cursor); /* repeats the error that step() has told */
	(void)sqlite3_clear_bindings(cursor);
}

static int sqlite_check(void *connection, struct err *e)
{
	struct sqlite *c = connection;
	char table[64];
	int r = look_for_damage(c, "PRAGMA integrity_check(1)", e);

	if (r == 0)
		r = ask(c, "PRAGMA foreign_key_check", table, sizeof(table), e);
	if (r == 0 && table[0])
		r = err_set(
			e, ERR_CORRUPT, "the store is damaged: %s refers to a missing row", table);
	return r;
}

/* Copies every page at one moment. Readers and writers of the log go on. */
static int copy_pages(sqlite3 *from, const char *path, struct err *e)
{
	sqlite3 *to = NULL;
	sqlite3_backup *backup;
	int stepped = SQLITE_ERROR, r = 0;

	if (sqlite3_open_v2(path, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) !=
		SQLITE_OK) {
		r = fail(e, to, false, path);
		(void)sqlite3_close(to);
		return r;
	}
	(void)sqlite3_extended_result_codes(to, 1);
	(void)sqlite3_busy_timeout(to, STORE_BUSY_MS);
	backup = sqlite3_backup_init(to, "main", from, "main");
	if (backup)
		stepped = sqlite3_backup_step(backup, -1);
	if (!backup || sqlite3_backup_finish(backup) != SQLITE_OK)
		r = fail(e, to, false, path);
	else if (stepped != SQLITE_DONE) /* busy: no error to finish() */
		r = err_set(e, ERR_UNAVAILABLE, "%s: the store is busy", path);
	(void)sqlite3_close(to);
	return r;
}

static int sync_parent(const char *path, struct err *e)
{
	CLEANUP_CLOSE int fd = -1;
	int r = open_parent(path, &fd, e);

	if (r == 0 && fsync(fd) < 0)
		r = err_errno(e, -errno, "sync the folder of %s", path);
	return r;
}

static int publish(const char *part, const char *path, struct err *e)
{
	int r;

	if (renameat2(AT_FDCWD, part, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
		return sync_parent(path, e);
	r = -errno;
	if (r == -EEXIST)
		return err_set(e, ERR_CONFLICT, "%s exists already", path);
	return err_errno(e, r, "name the backup %s", path);
}

static int sqlite_backup(void *connection, const char *path, struct err *e)
{
	struct sqlite *c = connection;
	char part[PATH_MAX];
	int fd, r;

	if (snprintf(part, sizeof(part), "%s%s.XXXXXX", path[0] == '/' ? "" : "./", path) >=
		(int)sizeof(part))
		return err_errno(e, -ENAMETOOLONG, "%s", path);
	if (access(path, F_OK) == 0)
		return err_set(e, ERR_CONFLICT, "%s exists already", path);
	fd = mkostemp(part, O_CLOEXEC); /* mode 0600 */
	if (fd < 0)
		return err_errno(e, -errno, "make the backup %s", path);
	(void)close(fd);
	r = copy_pages(c->db, part, e);
	if (r == 0)
		r = publish(part, path, e);
	if (r < 0)
		(void)unlink(part);
	return r;
}

const struct store_backend store_sqlite = {
	.scheme = "sqlite",
	.open = sqlite_open,
	.close = sqlite_close,
	.begin = sqlite_begin,
	.commit = sqlite_commit,
	.rollback = sqlite_rollback,
	.script = sqlite_script,
	.start = sqlite_start,
	.step = sqlite_step,
	.column_count = sqlite_column_count,
	.column_name = sqlite_column_name,
	.column = sqlite_column,
	.changed = sqlite_changed,
	.finish = sqlite_finish,
	.check = sqlite_check,
	.backup = sqlite_backup,
};
