/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request passes these gates, in this order, each with its own refusal:
 *
 *   token known and not expired (401) ── rate (429) ── route exists (404) ── access table (403)
 *   ── tenant (404) ── body is JSON (400), in bounds (413), as the schema says (422) ── handler
 *
 * Nothing is told to whom has no token, not even which routes there are. The handler of a change
 * runs in a writing transaction together with its audit entry: both are there or neither.
 */
#include "sosied/dispatch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "io/digest.h"
#include "sosied/feed.h"
#include "sosied/images.h"
#include "sosied/limit.h"
#include "sosied/routes.h"

#define SECRET_PREFIX "sosie_"
#define SECRET_BYTES  32
/* How old the note of a token's last use may be before it is written anew. */
#define LAST_USED_STEP_NS (60 * (uint64_t)NSEC_PER_SEC)

static_assert(sizeof(SECRET_PREFIX) + 2 * (size_t)SECRET_BYTES <= SECRET_SIZE, "fits");
static_assert(DIGEST_HEX_SIZE == STORE_HASH_SIZE, "tokens are kept as SHA-256");

int secret_new(
	const struct sosied *d, char secret[SECRET_SIZE], char hash[STORE_HASH_SIZE], struct err *e)
{
	uint8_t bytes[SECRET_BYTES];
	char digits[2 * SECRET_BYTES + 1];
	int r = d->source->random(d->source->context, bytes, sizeof(bytes));

	if (r < 0)
		return err_errno(e, r, "draw a token");
	hex_encode(bytes, sizeof(bytes), digits);
	(void)snprintf(secret, SECRET_SIZE, SECRET_PREFIX "%s", digits);
	explicit_bzero(bytes, sizeof(bytes));
	explicit_bzero(digits, sizeof(digits));
	r = digest_text(secret, strlen(secret), hash);
	return r < 0 ? err_errno(e, r, "hash a token") : 0;
}

static void note_use(struct sosied *d, const struct store_token *token)
{
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	uint64_t now = realtime_ns(d);

	if (token->last_used + LAST_USED_STEP_NS > now)
		return;
	/* Whether this succeeds is of no consequence to the request. */
	if (store_begin(d->store, STORE_WRITE, &t, NULL) == 0 &&
		store_token_used(d->store, token->id, NULL) == 0)
		(void)store_commit(&t, NULL);
}

static int authenticate(struct call *c, struct err *e)
{
	const char *secret = http_bearer(c->request);
	struct store_token token = {0};
	struct err why = {0};
	char hash[STORE_HASH_SIZE];
	int r;

	if (!secret || strlen(secret) >= SECRET_SIZE) {
		(void)err_set(e, ERR_UNAUTHENTICATED, "the request has no token");
		return err_hint(e, "send one as 'Authorization: Bearer TOKEN'");
	}
	r = digest_text(secret, strlen(secret), hash);
	if (r < 0)
		return err_errno(e, r, "hash a token");
	r = store_token_by_hash(c->d->store, hash, &token, &why);
	if (r < 0 && why.code != ERR_NOT_FOUND) {
		*e = why;
		return r;
	}
	if (r < 0 || (token.expires && token.expires <= realtime_ns(c->d)))
		return err_set(e, ERR_UNAUTHENTICATED, "the token is not known, or has expired");
	note_use(c->d, &token);
	c->token = token;
	return 0;
}

/* The tenant that the request is about, from its token or as the provider says. */
static int find_tenant(struct call *c, struct err *e)
{
	struct store *s = c->d->store;
	const char *named = http_query(c->request, "tenant");
	enum caller caller = caller_of(&c->token);
	int r;

	if (caller == CALLER_HOST_AGENT || caller == CALLER_HOST_JOINING)
		return 0;
	if (!call_is_provider(c)) {
		r = store_tenant_get(s, c->token.tenant_id, &c->tenant, e);
		c->scope = store_scope_tenant(c->tenant.id);
		if (r == 0 && named && strcmp(named, c->tenant.name) != 0 &&
			strcmp(named, c->tenant.id) != 0)
			return err_set(e, ERR_NOT_FOUND, "no tenant '%.64s'", named);
		return r;
	}
	c->scope = store_scope_all();
	if (named && is_id(named))
		r = store_tenant_get(s, named, &c->tenant, e);
	else
		r = store_tenant_by_name(s, named ? named : DEFAULT_TENANT, &c->tenant, e);
	if (named)
		c->scope = store_scope_tenant(c->tenant.id);
	return r;
}

static int find_route(struct call *c, struct err *e)
{
	bool elsewhere;

	c->route =
		route_find(http_method(c->request), http_path(c->request), c->params, &elsewhere);
	if (c->route)
		return 0;
	if (elsewhere)
		(void)err_set(e, ERR_NOT_FOUND, "%.128s knows no %s", http_path(c->request),
			http_method_name(http_method(c->request)));
	else
		(void)err_set(e, ERR_NOT_FOUND, "no route %.128s", http_path(c->request));
	(void)err_hint(e, "GET /v1/openapi.json lists all routes");
	return -ENOENT;
}

static int admit(struct call *c, struct err *e)
{
	int r = authenticate(c, e);

	if (r < 0)
		return r;
	assert(c->token.id[0]);
	if (!limiter_take(c->d->limiter, c->token.id, monotonic_ns(c->d))) {
		(void)http_answer_header(c->request, "Retry-After", "1");
		return err_set(e, ERR_LIMIT, "more requests a second than a token may make");
	}
	r = find_route(c, e);
	if (r < 0)
		return r;
	if (!access_granted(c->route->access, caller_of(&c->token))) {
		(void)err_set(e, ERR_FORBIDDEN, "a token of role %s may not do this",
			store_name(&store_roles, c->token.role));
		return err_hint(e, "it takes: %s", access_meaning(c->route->access));
	}
	return find_tenant(c, e);
}

static int take_json(struct call *c, struct err *e)
{
	const struct route *route = c->route;
	size_t size;
	int r;

	assert(route);
	(void)http_body(c->request, &size);
	if (route->flags & ROUTE_UPLOAD)
		return 0;
	if (!route->schema && size > 0)
		return err_set(e, ERR_USAGE, "this request takes no body");
	if (!route->schema)
		return 0;
	if (size == 0 && route->flags & ROUTE_NO_BODY) {
		c->body = json_object();
		return c->body ? 0 : err_errno(e, -ENOMEM, "read the request");
	}
	r = http_body_json(c->request, &c->body, e);
	return r < 0 ? r : json_check(c->body, route->schema, e);
}

/* Whose audit log the request belongs in; "": the provider's alone. */
static const char *tenant_concerned(const struct call *c)
{
	if (c->about[0])
		return c->about;
	if (!call_is_provider(c))
		return c->tenant.id;
	/* What the provider makes, it makes in this tenant. */
	return c->route->flags & ROUTE_TENANT && c->route->status == 201 ? c->tenant.id : "";
}

/* Who asked for what, and what came of it. In a writing transaction. */
static int audit(const struct call *c, unsigned int status, struct err *e)
{
	struct store_audit entry = {.status = status};
	const char *role = store_name(&store_roles, c->token.role);

	COPY(entry.tenant_id, tenant_concerned(c));
	COPY(entry.token_id, c->token.id);
	copy_utf8(entry.role, sizeof(entry.role), role ? role : "");
	copy_utf8(entry.method, sizeof(entry.method), http_method_name(http_method(c->request)));
	copy_utf8(entry.path, sizeof(entry.path), http_path(c->request));
	/* What the client sent need not be UTF-8, and people read this on terminals. */
	for (char *p = entry.path; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			*p = '?';
	copy_utf8(entry.remote, sizeof(entry.remote), http_peer(c->request));
	return store_audit_append(c->d->store, &entry, e);
}

static void audit_refusal(const struct call *c, const struct err *why)
{
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct err e = {0};
	int r;

	if (!c->route || !(c->route->flags & ROUTE_WRITES) || c->route->flags & ROUTE_QUIET)
		return;
	r = store_begin(c->d->store, STORE_WRITE, &t, &e);
	if (r == 0)
		r = audit(c, (unsigned int)err_http_status(why->code), &e);
	if (r == 0)
		r = store_commit(&t, &e);
	if (r < 0)
		log_control(LOG_ERROR, "audit entry lost", " error=%s", log_quote(e.message));
}

static int run(struct call *c, json_t **ret, struct err *e)
{
	bool writes = c->route->flags & ROUTE_WRITES;
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	CLEANUP_JSON json_t *answer = NULL;
	int r = store_begin(c->d->store, writes ? STORE_WRITE : STORE_READ, &t, e);

	if (r < 0)
		return r;
	r = c->route->handler(c, &answer, e);
	if (r != 0 || !writes) {
		*ret = TAKE_PTR(answer);
		return r;
	}
	if (!(c->route->flags & ROUTE_QUIET))
		r = audit(c, c->route->status, e);
	if (r == 0)
		r = store_commit(&t, e);
	if (r == 0)
		*ret = TAKE_PTR(answer);
	return r;
}

static void after_commit(const struct call *c)
{
	if (c->route->flags & ROUTE_WRITES)
		feed_kick(c->d);
	if (c->route->flags & ROUTE_UPLOAD)
		image_upload_committed(c->request);
	if (c->unlink[0] && unlink(c->unlink) < 0 && errno != ENOENT)
		log_control(LOG_WARNING, "file not removed", " path=%s error=%s",
			log_quote(c->unlink), strerror(errno));
	if (c->revoked[0])
		feed_revoke(c->d, c->revoked);
}

static void answer(struct call *c, json_t *value)
{
	char etag[24];

	if (c->revision) {
		(void)snprintf(etag, sizeof(etag), "\"%llu\"", (unsigned long long)c->revision);
		(void)http_answer_header(c->request, "ETag", etag);
	}
	(void)http_answer_header(c->request, "Cache-Control", "no-store");
	if (c->route->status == 204)
		http_answer(c->request, 204, "application/json", "", 0);
	else
		http_answer_json(c->request, c->route->status, value);
}

static void refuse(struct call *c, const struct err *e)
{
	if (c->token.id[0])
		audit_refusal(c, e);
	if (err_http_status(e->code) >= 500)
		log_control(LOG_ERROR, "request failed", " method=%s path=%s error=%s",
			http_method_name(http_method(c->request)), log_quote(http_path(c->request)),
			log_quote(e->message));
	else
		log_data(LOG_DEBUG, "request refused", " method=%s path=%s error=%s",
			http_method_name(http_method(c->request)), log_quote(http_path(c->request)),
			log_quote(e->message));
	http_answer_error(c->request, e);
}

void dispatch_request(struct http_request *request, void *userdata)
{
	struct call c = {.d = userdata, .request = request};
	struct err e = {.code = ERR_INTERNAL, .message = "failed without saying why"};
	json_t *value = NULL;
	int r = admit(&c, &e);

	if (r == 0)
		r = take_json(&c, &e);
	if (r == 0)
		r = run(&c, &value, &e);
	if (r == 0) {
		after_commit(&c);
		answer(&c, value);
	} else if (r < 0) {
		refuse(&c, &e);
	}
	json_decref(c.body);
}

int dispatch_head(struct http_request *request, void *userdata, struct err *e)
{
	struct call c = {.d = userdata, .request = request};
	bool elsewhere;
	int r;

	c.route = route_find(http_method(request), http_path(request), c.params, &elsewhere);
	if (!c.route || !(c.route->flags & ROUTE_UPLOAD))
		return 0;
	r = admit(&c, e);
	return r < 0 ? r : image_upload_begin(&c, e);
}
