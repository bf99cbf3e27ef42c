/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may do what: one table, looked at before anything of a request is. What is not granted in
 * it is refused.
 */
#ifndef SOSIE_SOSIED_ACCESS_H
#define SOSIE_SOSIED_ACCESS_H

#include <stdbool.h>

#include "store/tenants.h"

/* What a caller is: its token's role, and whether the token is a tenant's or the provider's. */
#define CALLER_TABLE(X)      \
	X(TENANT_VIEWER)     \
	X(TENANT_OPERATOR)   \
	X(TENANT_ADMIN)      \
	X(PROVIDER_VIEWER)   \
	X(PROVIDER_OPERATOR) \
	X(PROVIDER_ADMIN)    \
	X(HOST_AGENT)        \
	X(HOST_JOINING)

enum caller_bit {
#define X(name) CALLER_BIT_##name,
	CALLER_TABLE(X)
#undef X
		CALLER_BITS
};
enum caller {
#define X(name) CALLER_##name = 1 << CALLER_BIT_##name,
	CALLER_TABLE(X)
#undef X
		CALLER_NONE = 0
};

#define CALLERS_ADMIN_    (CALLER_TENANT_ADMIN | CALLER_PROVIDER_ADMIN)
#define CALLERS_OPERATOR_ (CALLERS_ADMIN_ | CALLER_TENANT_OPERATOR | CALLER_PROVIDER_OPERATOR)
#define CALLERS_VIEWER_   (CALLERS_OPERATOR_ | CALLER_TENANT_VIEWER | CALLER_PROVIDER_VIEWER)
#define CALLERS_PROVIDERS_ \
	(CALLER_PROVIDER_VIEWER | CALLER_PROVIDER_OPERATOR | CALLER_PROVIDER_ADMIN)

/*
 *  constant                 name              who                    in words
 *  The first row is what a route has that names none.
 */
#define ACCESS_TABLE(X)                                                                            \
	X(ACCESS_NOBODY, "nobody", CALLER_NONE, "nobody")                                          \
	X(ACCESS_VIEWER, "viewer", CALLERS_VIEWER_, "viewer of the tenant, or more")               \
	X(ACCESS_OPERATOR, "operator", CALLERS_OPERATOR_, "operator of the tenant, or more")       \
	X(ACCESS_ADMIN, "admin", CALLERS_ADMIN_, "admin of the tenant or of the provider")         \
	X(ACCESS_PROVIDER_VIEWER, "provider-viewer", CALLERS_PROVIDERS_, "viewer of the provider") \
	X(ACCESS_PROVIDER_ADMIN, "provider-admin", CALLER_PROVIDER_ADMIN, "admin of the provider") \
	X(ACCESS_AGENT, "agent", CALLER_HOST_AGENT, "agent of a host, for that host")              \
	X(ACCESS_JOIN, "join", CALLER_HOST_JOINING | CALLER_HOST_AGENT, "a host that joins")       \
	X(ACCESS_ANYONE, "any", CALLERS_VIEWER_ | CALLER_HOST_AGENT | CALLER_HOST_JOINING,         \
		"whoever has a token")

enum access {
#define X(constant, name, callers, meaning) constant,
	ACCESS_TABLE(X)
#undef X
		ACCESSES
};

const char *access_name(enum access access);
const char *access_meaning(enum access access);

enum caller caller_of(const struct store_token *token);
bool access_granted(enum access access, enum caller caller);

#endif
