/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: everything the control plane must not forget, in one SQL database.
 *
 * This header opens it and draws the bounds of transactions; what is in it is read and changed
 * through the headers of its entities (hosts.h, instances.h …).
 *
 * A struct store is one connection: one thread at a time uses it, any number of them may be open
 * on one database. Functions return 0 or a negative errno and say why in *e (which may be NULL).
 * Once store_commit() has returned 0 the change survives the loss of the process and of the
 * machine's power. When anything else happened, all of the transaction is there or none of it.
 */
#ifndef SOSIE_STORE_STORE_H
#define SOSIE_STORE_STORE_H

#include <stdbool.h>

#include "base/err.h"
#include "base/source.h"
#include "base/str.h"

struct store;

/* How long a writer waits for another one before it gives up with ERR_UNAVAILABLE. */
#define STORE_BUSY_MS 10000
/* The most rows one call returns. */
#define STORE_PAGE_MAX 1000

enum store_open_flags {
	/* Skip the search for damage: for further connections to a database just opened. */
	STORE_TRUSTED = 1 << 0,
};

/*
 * Opens "sqlite:PATH" (made when missing, readable by its owner only) or "sqlite::memory:", and
 * brings its schema up to date. source gives times and identifiers; it must outlive the store.
 *
 * ERR_USAGE: not such a URL. ERR_CORRUPT: a damaged file or none of ours, left as it is.
 * ERR_VERSION: made by a newer version, or by one whose history is another; left as it is.
 */
int store_open(const char *url, unsigned int flags, const struct source *source, struct store **ret,
	struct err *e);
/* No transaction may be open. Accepts NULL. */
void store_close(struct store *s);
DEFINE_CLEANUP(struct store *, store_close);
#define CLEANUP_STORE CLEANUP(store_close_p)

enum store_access {
	STORE_READ,  /* one consistent view for several reads */
	STORE_WRITE, /* alone among writers from the start, so that no deadlock can arise */
};

struct store_transaction {
	struct store *store; /* NULL when ended */
};

/*
 * Functions that change something need a STORE_WRITE transaction (asserted). They do not nest.
 * A failed call dooms the transaction: whatever else was done in it, store_commit() then rolls
 * back and says ERR_CONFLICT. What calls filled in (identifiers, revisions) is true once committed.
 */
int store_begin(
	struct store *s, enum store_access access, struct store_transaction *ret, struct err *e);
/* Ends the transaction, whatever it returns. */
int store_commit(struct store_transaction *t, struct err *e);
/* Nothing when it has ended already. */
void store_rollback(struct store_transaction *t);
#define CLEANUP_TRANSACTION CLEANUP(store_rollback)

/*
 * Revisions number the changes of the whole database. One is taken inside the transaction whose
 * change it marks, and the counter stays locked until that one ends: so a reader who sees
 * revision n sees everything below n, and "what changed since n?" never skips anything.
 */
int store_revision(struct store *s, uint64_t *ret, struct err *e);

/* Looks through the whole database for damage and broken invariants. ERR_CORRUPT says which. */
int store_check(struct store *s, struct err *e);
/*
 * Writes a consistent copy to path while others go on reading and writing. The copy appears
 * whole or not at all; ERR_CONFLICT when there is something at path. Restoring it is opening it.
 */
int store_backup(struct store *s, const char *path, struct err *e);

/* An identifier: kind, '-', 24 hexadecimal digits that grow with time (to the millisecond). */
#define STORE_ID_SIZE 32

/*
 * Whose things a call may see. A zeroed scope sees nothing, so that forgetting to set it is safe;
 * seeing everything has to be said.
 */
struct store_scope {
	const char *first, *last; /* the tenants from first to last; NULL: none */
};
/* tenant_id must outlive the scope. */
struct store_scope store_scope_tenant(const char *tenant_id);
struct store_scope store_scope_all(void);

/*
 * Lists come in pages: in a fixed order, continued behind the last row of the page before. Rows
 * that come and go meanwhile neither repeat nor hide others.
 */
struct store_page {
	const char *tenant_id; /* of the last row seen; NULL or "": from the start */
	const char *id;        /* likewise; hosts and the like have no tenant */
};

/* The words of an enumeration, in the database and to people. */
struct store_names {
	const char *const *names;
	unsigned int count;
};
/* NULL when there is none. */
const char *store_name(const struct store_names *names, unsigned int value);
/* -EINVAL when there is none. */
int store_name_parse(const struct store_names *names, const char *name, unsigned int *ret);

#define STORE_ENUM_CONSTANT(constant, name) constant,
#define STORE_ENUM_NAME(constant, name)     [constant] = name,
/* Defines `object` (declared extern in the entity's header) from an X-macro table. */
#define STORE_DEFINE_NAMES(object, TABLE)                                     \
	static const char *const object##_words[] = {TABLE(STORE_ENUM_NAME)}; \
	const struct store_names object = {object##_words, ARRAY_SIZE(object##_words)}

#endif
