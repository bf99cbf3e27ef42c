/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tenants and the tokens by which callers are known. Tokens themselves never come here: the
 * caller hashes them and finds them by their hash.
 *
 * In every entity: id (unless given), created (nanoseconds since 1970) and revision are filled in
 * by _create. Lists return the number of rows written to `ret`, up to max and STORE_PAGE_MAX.
 */
#ifndef SOSIE_STORE_TENANTS_H
#define SOSIE_STORE_TENANTS_H

#include "store/store.h"

#define STORE_NAME_SIZE (NAME_MAX_LENGTH + 1)
#define STORE_HASH_SIZE 65 /* 32 bytes in hexadecimal */

struct store_tenant {
	char id[STORE_ID_SIZE];
	char name[STORE_NAME_SIZE];
	uint64_t created;
	uint64_t revision;
};

int store_tenant_create(struct store *s, struct store_tenant *tenant, struct err *e);
int store_tenant_get(struct store *s, const char *id, struct store_tenant *ret, struct err *e);
int store_tenant_by_name(
	struct store *s, const char *name, struct store_tenant *ret, struct err *e);
int store_tenant_list(struct store *s, const struct store_page *after, struct store_tenant *ret,
	size_t max, struct err *e);
/* ERR_CONFLICT while it owns anything. */
int store_tenant_delete(struct store *s, const char *id, struct err *e);

#define STORE_ROLE_TABLE(X)                \
	X(STORE_ROLE_ADMIN, "admin")       \
	X(STORE_ROLE_OPERATOR, "operator") \
	X(STORE_ROLE_MEMBER, "member")     \
	X(STORE_ROLE_VIEWER, "viewer")     \
	X(STORE_ROLE_AGENT, "agent")       \
	X(STORE_ROLE_JOIN, "join")

enum store_role { STORE_ROLE_TABLE(STORE_ENUM_CONSTANT) };
extern const struct store_names store_roles;

struct store_token {
	char id[STORE_ID_SIZE];
	char tenant_id[STORE_ID_SIZE]; /* empty: acts on all tenants */
	char host_id[STORE_ID_SIZE];   /* of a host agent's token */
	unsigned int role;             /* enum store_role */
	char hash[STORE_HASH_SIZE];
	char comment[128];
	uint64_t expires;   /* 0: never; whether it has is the caller's to see */
	uint64_t last_used; /* 0: never */
	uint64_t created;
	uint64_t revision;
};

int store_token_create(struct store *s, struct store_token *token, struct err *e);
int store_token_by_hash(struct store *s, const char *hash, struct store_token *ret, struct err *e);
/* A tenant's scope leaves out the tokens without a tenant. */
int store_token_list(struct store *s, struct store_scope scope, const struct store_page *after,
	struct store_token *ret, size_t max, struct err *e);
int store_token_used(struct store *s, const char *id, struct err *e);
int store_token_delete(struct store *s, struct store_scope scope, const char *id, struct err *e);

#endif
