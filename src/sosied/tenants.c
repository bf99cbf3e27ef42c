/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tenants and tokens.
 */
#include <errno.h>
#include <string.h>

#include "sosied/dispatch.h"
#include "sosied/networks.h"
#include "sosied/routes.h"

/* How long a token may be valid, and a join token is unless asked otherwise. */
#define TOKEN_SECONDS_MAX (10LL * 365 * 86400)
#define JOIN_SECONDS      3600
#define COMMENT_MAX       120

const struct json_field schema_tenant[] = {
	{.name = "name",
		.type = JSON_FIELD_NAME,
		.required = JSON_REQUIRED,
		.description = "the tenant's name"},
	{0},
};

static const char *const token_roles[] = {"viewer", "operator", "admin", NULL};

const struct json_field schema_token[] = {
	{.name = "role",
		.type = JSON_FIELD_CHOICE,
		.required = JSON_REQUIRED,
		.choices = token_roles,
		.description = "what it may do"},
	{.name = "provider",
		.type = JSON_FIELD_BOOLEAN,
		.description = "acts on all tenants; the provider's to give"},
	{.name = "comment",
		.type = JSON_FIELD_STRING,
		.max = COMMENT_MAX,
		.description = "what it is for"},
	{.name = "seconds",
		.type = JSON_FIELD_INTEGER,
		.min = 1,
		.max = TOKEN_SECONDS_MAX,
		.description = "how long it is valid [for ever]"},
	{0},
};

const struct json_field schema_join[] = {
	{.name = "comment",
		.type = JSON_FIELD_STRING,
		.max = COMMENT_MAX,
		.description = "what it is for"},
	{.name = "seconds",
		.type = JSON_FIELD_INTEGER,
		.min = 1,
		.max = TOKEN_SECONDS_MAX,
		.description = "how long it is valid [3600]"},
	{0},
};

int route_whoami(struct call *c, json_t **ret, struct err *e)
{
	(void)e;
	*ret = json_pack("{s:s,s:s,s:o,s:b,s:o}", "token", c->token.id, "role",
		store_name(&store_roles, c->token.role), "tenant",
		call_is_provider(c) ? json_null() : json_string(c->tenant.name), "provider",
		call_is_provider(c), "host", json_or_null(c->token.host_id));
	return 0;
}

static json_t *tenant_view(struct call *c, const void *row)
{
	const struct store_tenant *t = row;

	(void)c;
	return json_pack("{s:s,s:s,s:o,s:o}", "id", t->id, "name", t->name, "created",
		json_time(t->created), "revision", json_u64(t->revision));
}

static int tenant_read(
	struct call *c, const struct store_page *after, void *rows, size_t max, struct err *e)
{
	if (call_is_provider(c))
		return store_tenant_list(c->d->store, after, rows, max, e);
	if (after->id && after->id[0])
		return 0;
	*(struct store_tenant *)rows = c->tenant;
	return 1;
}

int route_tenants_list(struct call *c, json_t **ret, struct err *e)
{
	static const struct listing listing = {sizeof(struct store_tenant),
		offsetof(struct store_tenant, id), NO_TENANT, tenant_read, tenant_view};

	return call_list(c, &listing, ret, e);
}

static int find(struct call *c, struct store_tenant *ret, struct err *e)
{
	const char *name = c->params[0];
	struct store_tenant t = {0};
	int r;

	r = is_id(name) ? store_tenant_get(c->d->store, name, &t, e)
			: store_tenant_by_name(c->d->store, name, &t, e);
	if (r == 0 && !call_is_provider(c) && strcmp(t.id, c->tenant.id) != 0)
		return err_set(e, ERR_NOT_FOUND, "no tenant %s", name);
	if (r == 0)
		*ret = t;
	return r;
}

int tenant_create(struct store *s, const struct source *source, const char *name,
	struct store_tenant *ret, struct err *e)
{
	struct store_tenant t = {0};
	int r;

	COPY(t.name, name);
	r = store_tenant_create(s, &t, e);
	if (r == 0)
		r = network_create_default(s, source, t.id, e);
	if (r == 0)
		*ret = t;
	return r;
}

int route_tenants_create(struct call *c, json_t **ret, struct err *e)
{
	struct store_tenant t = {0};
	int r = tenant_create(c->d->store, c->d->source,
		json_string_value(json_object_get(c->body, "name")), &t, e);

	if (r == 0)
		r = event_add(c->d->store, t.id, "tenant.created", t.id, NULL, e);
	if (r == 0)
		*ret = tenant_view(c, &t);
	return r;
}

int route_tenants_show(struct call *c, json_t **ret, struct err *e)
{
	struct store_tenant t = {0};
	int r = find(c, &t, e);

	if (r < 0)
		return r;
	c->revision = t.revision;
	*ret = tenant_view(c, &t);
	return 0;
}

/* The default network came with the tenant and goes with it, when nothing is in it. */
static int delete_default_network(struct call *c, const char *tenant_id, struct err *e)
{
	struct store_network network = {0};
	struct err why = {0};
	int r = store_network_by_name(c->d->store, tenant_id, DEFAULT_NETWORK, &network, &why);

	if (r < 0 && why.code == ERR_NOT_FOUND)
		return 0;
	if (r < 0) {
		*e = why;
		return r;
	}
	return network_delete(c->d->store, &network, e);
}

int route_tenants_delete(struct call *c, json_t **ret, struct err *e)
{
	struct store_tenant t = {0};
	int r = find(c, &t, e);

	(void)ret;
	if (r < 0)
		return r;
	if (!strcmp(t.name, DEFAULT_TENANT))
		return err_set(e, ERR_CONFLICT, "the tenant '%s' stays", t.name);
	r = call_match(c, t.revision, e);
	if (r == 0)
		r = delete_default_network(c, t.id, e);
	if (r == 0)
		r = store_tenant_delete(c->d->store, t.id, e);
	if (r < 0)
		return r;
	return event_add(c->d->store, "", "tenant.deleted", t.id, NULL, e);
}

static json_t *token_view(struct call *c, const void *row)
{
	const struct store_token *t = row;
	struct store_tenant tenant = {0};

	if (t->tenant_id[0])
		(void)store_tenant_get(c->d->store, t->tenant_id, &tenant, NULL);
	return json_pack("{s:s,s:s,s:o,s:b,s:o,s:s,s:o,s:o,s:o}", "id", t->id, "role",
		store_name(&store_roles, t->role), "tenant", json_or_null(tenant.name), "provider",
		t->tenant_id[0] == '\0', "host", json_or_null(t->host_id), "comment", t->comment,
		"expires", json_time(t->expires), "last_used", json_time(t->last_used), "created",
		json_time(t->created));
}

static int token_read(
	struct call *c, const struct store_page *after, void *rows, size_t max, struct err *e)
{
	return store_token_list(c->d->store, c->scope, after, rows, max, e);
}

int route_tokens_list(struct call *c, json_t **ret, struct err *e)
{
	/* Tokens are in the order of their ids alone: the provider's have no tenant. */
	static const struct listing listing = {sizeof(struct store_token),
		offsetof(struct store_token, id), NO_TENANT, token_read, token_view};

	return call_list(c, &listing, ret, e);
}

/* Makes the token and answers with its secret. */
static int create(
	struct call *c, struct store_token *t, int64_t seconds, json_t **ret, struct err *e)
{
	const char *comment = "";
	char secret[SECRET_SIZE];
	int r = json_get_string_or(c->body, "comment", COMMENT_MAX, "", &comment, e);

	if (r < 0)
		return r;
	COPY(t->comment, comment);
	if (seconds > 0)
		t->expires = realtime_ns(c->d) + (uint64_t)seconds * NSEC_PER_SEC;
	r = secret_new(c->d, secret, t->hash, e);
	if (r == 0)
		r = store_token_create(c->d->store, t, e);
	if (r == 0)
		r = event_add(c->d->store, t->tenant_id, "token.created", t->id, NULL, e);
	if (r < 0)
		return r;
	*ret = token_view(c, t);
	(void)json_object_set_new(*ret, "token", json_string(secret));
	explicit_bzero(secret, sizeof(secret));
	return 0;
}

int route_tokens_create(struct call *c, json_t **ret, struct err *e)
{
	struct store_token t = {0};
	bool provider = false;
	int64_t seconds = 0;
	int r = json_get_boolean_or(c->body, "provider", false, &provider, e);

	if (r == 0)
		r = json_get_integer_or(c->body, "seconds", 1, TOKEN_SECONDS_MAX, 0, &seconds, e);
	if (r < 0)
		return r;
	if (provider && !call_is_provider(c))
		return err_set(e, ERR_FORBIDDEN, "only the provider gives the provider's tokens");
	t.role = word(&store_roles, json_string_value(json_object_get(c->body, "role")));
	COPY(t.tenant_id, provider ? "" : c->tenant.id);
	return create(c, &t, seconds, ret, e);
}

int route_join_tokens_create(struct call *c, json_t **ret, struct err *e)
{
	struct store_token t = {.role = STORE_ROLE_JOIN};
	int64_t seconds;
	int r = json_get_integer_or(
		c->body, "seconds", 1, TOKEN_SECONDS_MAX, JOIN_SECONDS, &seconds, e);

	return r < 0 ? r : create(c, &t, seconds, ret, e);
}

int route_tokens_delete(struct call *c, json_t **ret, struct err *e)
{
	int r = store_token_delete(c->d->store, c->scope, c->params[0], e);

	(void)ret;
	if (r < 0)
		return r;
	copy_utf8(c->revoked, sizeof(c->revoked), c->params[0]);
	return event_add(c->d->store, call_is_provider(c) ? "" : c->tenant.id, "token.deleted",
		c->params[0], NULL, e);
}
