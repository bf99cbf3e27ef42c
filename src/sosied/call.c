/* SPDX-License-Identifier: Apache-2.0 */
#include "sosied/call.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

#define ID_DIGITS 24

bool is_id(const char *text)
{
	return text[0] >= 'a' && text[0] <= 'z' && text[1] == '-' &&
	       strlen(text) == ID_DIGITS + 2 && strspn(text + 2, "0123456789abcdef") == ID_DIGITS;
}

json_t *json_or_null(const char *text)
{
	return text[0] ? json_string(text) : json_null();
}

json_t *json_time(uint64_t ns)
{
	char text[TIMESTAMP_SIZE];

	if (ns == 0)
		return json_null();
	format_timestamp(ns, text);
	return json_string(text);
}

json_t *json_u64(uint64_t v)
{
	return json_integer((json_int_t)MIN(v, (uint64_t)INT64_MAX));
}

void copy_text(char *out, size_t size, const char *text)
{
	size_t n = strlen(text);

	assert(n < size);
	memcpy(out, text, n + 1);
}

void copy_utf8(char *out, size_t size, const char *text)
{
	size_t n = strlen(text);

	if (n >= size) {
		n = size - 1;
		while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
			n--;
	}
	memcpy(out, text, n);
	out[n] = '\0';
}

unsigned int word(const struct store_names *names, const char *text)
{
	unsigned int value = 0;
	int r = store_name_parse(names, text, &value);

	assert(r == 0);
	(void)r;
	return value;
}

int call_about(struct call *c, const char *tenant_id)
{
	COPY(c->about, tenant_id);
	return 0;
}

int call_match(const struct call *c, uint64_t revision, struct err *e)
{
	const char *wanted = http_header(c->request, "If-Match");
	char have[24];

	(void)snprintf(have, sizeof(have), "\"%llu\"", (unsigned long long)revision);
	if (!wanted || !strcmp(wanted, "*") || !strcmp(wanted, have))
		return 0;
	(void)err_set(
		e, ERR_CONFLICT, "it has changed: its revision is %s, not %.40s", have, wanted);
	return err_hint(e, "read it again and decide anew");
}

/* "ID", or "TENANT.ID" where rows belong to tenants. */
static int parse_cursor(const char *text, bool tenants, struct paging *p, struct err *e)
{
	size_t n = strcspn(text, ".");
	const char *id = text;

	if (tenants && text[n] == '.' && n < sizeof(p->tenant_id)) {
		memcpy(p->tenant_id, text, n);
		id = text + n + 1;
	}
	if (!is_id(id) || (tenants && !is_id(p->tenant_id)))
		return err_set(e, ERR_INVALID, "'after' is not what a page named as 'next'");
	COPY(p->id, id);
	p->after = (struct store_page){p->tenant_id, p->id};
	return 0;
}

static int parse_paging(const struct call *c, bool tenants, struct paging *ret, struct err *e)
{
	const char *limit = http_query(c->request, "limit");
	const char *after = http_query(c->request, "after");
	uint64_t n = PAGE_DEFAULT;

	if (limit && (parse_u64(limit, PAGE_MAX, &n) < 0 || n == 0))
		return err_set(e, ERR_INVALID, "'limit' is from 1 to %d", PAGE_MAX);
	ret->limit = (size_t)n;
	return after && *after ? parse_cursor(after, tenants, ret, e) : 0;
}

static json_t *next_cursor(const struct listing *l, const char *row)
{
	if (l->tenant_id == NO_TENANT)
		return json_string(row + l->id);
	return json_sprintf("%s.%s", row + l->tenant_id, row + l->id);
}

int call_list(struct call *c, const struct listing *l, json_t **ret, struct err *e)
{
	struct paging p = {0};
	CLEANUP_FREE char *rows = NULL;
	CLEANUP_JSON json_t *items = json_array();
	json_t *next = NULL;
	int n = parse_paging(c, l->tenant_id != NO_TENANT, &p, e);

	if (n < 0)
		return n;
	/* One more than asked for tells whether there is a next page. */
	rows = zalloc(p.limit + 1, l->size);
	if (!rows || !items)
		return err_errno(e, -ENOMEM, "list");
	n = l->read(c, &p.after, rows, p.limit + 1, e);
	if (n < 0)
		return n;
	for (size_t i = 0; i < MIN((size_t)n, p.limit); i++) {
		json_t *item = l->view(c, rows + i * l->size);

		if (!item || json_array_append_new(items, item) < 0)
			return err_errno(e, -ENOMEM, "list");
	}
	if ((size_t)n > p.limit)
		next = next_cursor(l, rows + (p.limit - 1) * l->size);
	*ret = json_pack("{s:O,s:o}", "items", items, "next", next ? next : json_null());
	return 0;
}

int event_add(struct store *s, const char *tenant_id, const char *kind, const char *subject,
	json_t *data, struct err *e)
{
	CLEANUP_JSON json_t *given = data ? data : json_object();
	CLEANUP_FREE char *text = given ? json_dumps(given, JSON_COMPACT) : NULL;
	struct store_event event = {0};

	if (!text)
		return err_errno(e, -ENOMEM, "note an event");
	if (strlen(text) >= sizeof(event.data))
		return err_set(e, ERR_TOO_LARGE, "an event's data is longer than %zu bytes",
			sizeof(event.data) - 1);
	COPY(event.tenant_id, tenant_id);
	copy_utf8(event.kind, sizeof(event.kind), kind);
	copy_utf8(event.subject, sizeof(event.subject), subject);
	COPY(event.data, text);
	return store_event_append(s, &event, e);
}
