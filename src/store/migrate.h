/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbered steps from an empty database to this version's schema.
 */
#ifndef SOSIE_STORE_MIGRATE_H
#define SOSIE_STORE_MIGRATE_H

#include "store/store.h"

struct store_migration {
	unsigned int number; /* from 1, without gaps */
	const char *name;
	const char *checksum; /* SHA-256 of the text, hexadecimal */
	const char *sql;
};

/* Made from schema/ when building. */
extern const struct store_migration store_migrations[];
extern const unsigned int store_migration_count;

/* Checks what the database has and adds what it lacks, all in one transaction. */
int store_migrate(struct store *s, struct err *e);

#endif
