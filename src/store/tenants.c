/* SPDX-License-Identifier: Apache-2.0 */
#include "store/tenants.h"

#include "store/entity.h"

STORE_DEFINE_NAMES(store_roles, STORE_ROLE_TABLE);

static const struct field tenant_fields[] = {
	TEXT(store_tenant, id),
	TEXT(store_tenant, name),
	INTEGER(store_tenant, created),
	INTEGER(store_tenant, revision),
};
DEFINE_ENTITY(tenant_entity, "tenant", "t", store_tenant, tenant_fields);

static const struct field token_fields[] = {
	TEXT(store_token, id),
	REFERENCE(store_token, tenant_id),
	REFERENCE(store_token, host_id),
	ENUM(store_token, role, &store_roles),
	TEXT(store_token, hash),
	TEXT(store_token, comment),
	INTEGER(store_token, expires),
	INTEGER(store_token, last_used),
	INTEGER(store_token, created),
	INTEGER(store_token, revision),
};
DEFINE_ENTITY(token_entity, "token", "k", store_token, token_fields);

int store_tenant_create(struct store *s, struct store_tenant *tenant, struct err *e)
{
	return entity_insert(s, &tenant_entity, TENANT_INSERT, tenant, e);
}

int store_tenant_get(struct store *s, const char *id, struct store_tenant *ret, struct err *e)
{
	return entity_get(s, &tenant_entity, TENANT_GET, STORE_VALUES(store_text(id)), id, ret, e);
}

int store_tenant_by_name(struct store *s, const char *name, struct store_tenant *ret, struct err *e)
{
	return entity_get(
		s, &tenant_entity, TENANT_BY_NAME, STORE_VALUES(store_text(name)), name, ret, e);
}

int store_tenant_list(struct store *s, const struct store_page *after, struct store_tenant *ret,
	size_t max, struct err *e)
{
	return entity_list(s, &tenant_entity, TENANT_LIST,
		STORE_VALUES(store_text(page_id(after)), store_integer(page_limit(max))), ret, max,
		e);
}

int store_tenant_delete(struct store *s, const char *id, struct err *e)
{
	return entity_delete(s, &tenant_entity, TENANT_DELETE, STORE_VALUES(store_text(id)), e);
}

int store_token_create(struct store *s, struct store_token *token, struct err *e)
{
	return entity_insert(s, &token_entity, TOKEN_INSERT, token, e);
}

int store_token_by_hash(struct store *s, const char *hash, struct store_token *ret, struct err *e)
{
	return entity_get(s, &token_entity, TOKEN_BY_HASH, STORE_VALUES(store_text(hash)),
		"with that hash", ret, e);
}

int store_token_list(struct store *s, struct store_scope scope, const struct store_page *after,
	struct store_token *ret, size_t max, struct err *e)
{
	return entity_list(s, &token_entity, TOKEN_LIST,
		STORE_VALUES(store_text(page_id(after)), store_text(scope_first(scope)),
			store_text(scope_last(scope)), store_integer(page_limit(max))),
		ret, max, e);
}

int store_token_used(struct store *s, const char *id, struct err *e)
{
	return store_exec(
		s, TOKEN_USED, STORE_VALUES(store_text(id), store_integer(store_now(s))), NULL, e);
}

int store_token_delete(struct store *s, struct store_scope scope, const char *id, struct err *e)
{
	return entity_delete(s, &token_entity, TOKEN_DELETE, STORE_VALUES(SCOPED_ID(scope, id)), e);
}
