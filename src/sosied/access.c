/* SPDX-License-Identifier: Apache-2.0 */
#include "sosied/access.h"

static const struct {
	const char *name;
	unsigned int callers;
	const char *meaning;
} table[] = {
#define X(constant, name, callers, meaning) [constant] = {name, callers, meaning},
	ACCESS_TABLE(X)
#undef X
};
static_assert(ARRAY_SIZE(table) == ACCESSES, "one row per access");

const char *access_name(enum access access)
{
	return (unsigned int)access < ACCESSES ? table[access].name : "nobody";
}

const char *access_meaning(enum access access)
{
	return (unsigned int)access < ACCESSES ? table[access].meaning : "nobody";
}

enum caller caller_of(const struct store_token *token)
{
	bool provider = token->tenant_id[0] == '\0';

	/* A token of a host is that host's agent's and nothing else. */
	if (token->role == STORE_ROLE_AGENT)
		return provider && token->host_id[0] ? CALLER_HOST_AGENT : CALLER_NONE;
	if (token->host_id[0])
		return CALLER_NONE;
	switch (token->role) {
	case STORE_ROLE_VIEWER:
		return provider ? CALLER_PROVIDER_VIEWER : CALLER_TENANT_VIEWER;
	case STORE_ROLE_OPERATOR:
		return provider ? CALLER_PROVIDER_OPERATOR : CALLER_TENANT_OPERATOR;
	case STORE_ROLE_ADMIN:
		return provider ? CALLER_PROVIDER_ADMIN : CALLER_TENANT_ADMIN;
	case STORE_ROLE_JOIN:
		return provider ? CALLER_HOST_JOINING : CALLER_NONE;
	default:
		return CALLER_NONE;
	}
}

bool access_granted(enum access access, enum caller caller)
{
	return (unsigned int)access < ACCESSES && (table[access].callers & caller) != 0;
}
