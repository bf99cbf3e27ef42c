/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request on its way through its handler, and what handlers share.
 */
#ifndef SOSIE_SOSIED_CALL_H
#define SOSIE_SOSIED_CALL_H

#include "io/json.h"
#include "sosied/daemon.h"
#include "store/events.h"

#define PARAMS_MAX     2
#define PARAM_SIZE     128
#define PAGE_DEFAULT   100
#define PAGE_MAX       500
#define DEFAULT_TENANT "default"

struct route;

struct call {
	struct sosied *d;
	struct http_request *request;
	const struct route *route;
	struct store_token token;
	/* Whose things it may see: the token's tenant, or with ?tenant=, or all for the provider.
	 */
	struct store_scope scope;
	/* Where it makes things and looks for names. */
	struct store_tenant tenant;
	char about[STORE_ID_SIZE]; /* whose thing it turned out to be; "": nobody's in particular */
	char params[PARAMS_MAX][PARAM_SIZE];
	json_t *body;      /* checked against the route's schema; NULL when there is none */
	uint64_t revision; /* of what is answered, for its ETag; 0: none */
	/* To be done once the change is committed: */
	char unlink[512];            /* a file that nothing refers to any more */
	char revoked[STORE_ID_SIZE]; /* a token whose streams are to end */
};

/* The handler has taken the request over and answers later. */
#define CALL_LATER 1

/*
 * Runs within a transaction, a writing one when the route says so. 0: *ret (new, or NULL for no
 * body) is the answer; CALL_LATER; or the errno of *e, and nothing is changed.
 */
typedef int (*handler_fn)(struct call *c, json_t **ret, struct err *e);

/* The provider's own token, which sees every tenant. */
static inline bool call_is_provider(const struct call *c)
{
	return c->token.tenant_id[0] == '\0';
}

/* Notes whose thing the request is about, for the audit log. Returns 0. */
int call_about(struct call *c, const char *tenant_id);

/* ERR_CONFLICT when the request has an If-Match that is not this revision. */
int call_match(const struct call *c, uint64_t revision, struct err *e);

/* "limit" and "after" of a list. */
struct paging {
	size_t limit;
	struct store_page after;
	char tenant_id[STORE_ID_SIZE], id[STORE_ID_SIZE];
};

/* How one kind of thing is listed. */
struct listing {
	size_t size; /* of a row */
	size_t id;   /* offset of its id */
	/* Offset of its tenant_id; NO_TENANT when it has none. */
	size_t tenant_id;
	int (*read)(struct call *c, const struct store_page *after, void *rows, size_t max,
		struct err *e);
	json_t *(*view)(struct call *c, const void *row);
};
#define NO_TENANT SIZE_MAX
static_assert(PAGE_MAX < STORE_PAGE_MAX, "one row more than a page is read");

/* {"items":[…],"next":CURSOR or null} */
int call_list(struct call *c, const struct listing *listing, json_t **ret, struct err *e);

/* Whether the text has the form of an identifier: a letter, '-', 24 hexadecimal digits. */
bool is_id(const char *text);

/* "" as null. */
json_t *json_or_null(const char *text);
json_t *json_time(uint64_t ns);
/* A 64-bit number; JSON's integers are signed. */
json_t *json_u64(uint64_t v);
/* Copies text that is known to fit. */
void copy_text(char *out, size_t size, const char *text);
/* Copies as much as fits without cutting a character in two. */
void copy_utf8(char *out, size_t size, const char *text);
#define COPY(out, text) copy_text((out), sizeof(out), (text))

/* The named word's number in the table; the schema has made sure that it is there. */
unsigned int word(const struct store_names *names, const char *text);

/* Appends an event; data may be NULL and is taken. */
int event_add(struct store *s, const char *tenant_id, const char *kind, const char *subject,
	json_t *data, struct err *e);

#endif
