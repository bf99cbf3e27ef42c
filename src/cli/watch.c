/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sosie events and sosie status.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "cli/wait.h"
#include "io/json.h"

#define PAGES_MAX 100000

struct watch {
	bool json;
	char last[HTTP_EVENT_ID_MAX];
};

/* One line an event: JSON, or time, kind, subject and what there is to say. */
static int print_event(const struct watch *w, const json_t *event)
{
	char time[40], kind[64], subject[40];
	CLEANUP_FREE char *text = NULL;

	if (w->json) {
		text = json_dumps(event, JSON_COMPACT);
		return text && puts(text) >= 0 && fflush(stdout) == 0 ? 0 : -EIO;
	}
	json_text(event, "time", time, sizeof(time));
	json_text(event, "kind", kind, sizeof(kind));
	json_text(event, "subject", subject, sizeof(subject));
	text = json_dumps(json_object_get(event, "data"), JSON_COMPACT);
	(void)printf("%-30s %-22s %-26s %s\n", time, kind, subject, text ? text : "");
	return fflush(stdout) == 0 ? 0 : -EIO;
}

static int on_event(const struct http_event *event, void *userdata)
{
	struct watch *w = userdata;
	CLEANUP_JSON json_t *j = NULL;
	int r = json_parse(event->data, event->size, NULL, &j, NULL);

	(void)snprintf(w->last, sizeof(w->last), "%s", event->id);
	return r < 0 ? r : print_event(w, j);
}

static int print_past(struct watch *w, const struct api *api, const char *since, struct err *e)
{
	char path[API_PATH_MAX];
	int r = api_path(path, e, "/v1/events?poll=1&since=%s", since);

	for (unsigned int i = 0; r == 0 && i < PAGES_MAX; i++) {
		CLEANUP_JSON json_t *page = NULL;
		const json_t *items, *event;
		size_t k;

		r = api_call(api, "GET", path, NULL, &page, e);
		if (r < 0)
			return r;
		items = json_object_get(page, "items");
		json_array_foreach(items, k, event)
		{
			if (print_event(w, event) < 0)
				return err_set(e, ERR_INTERNAL, "writing the output failed");
			json_text(event, "revision", w->last, sizeof(w->last));
		}
		if (!json_is_integer(json_object_get(page, "next")))
			break;
		r = api_path(path, e, "/v1/events?poll=1&since=%s", w->last);
	}
	return r;
}

/* Until it is interrupted; a connection that breaks is made again where it broke off. */
static int follow(struct watch *w, const struct api *api, struct err *e)
{
	char url[API_URL_MAX + API_PATH_MAX], header[HTTP_EVENT_ID_MAX + 32];
	struct http_call call;
	bool connected = true;

	while (connected) {
		CLEANUP_REPLY struct http_reply reply = {0};
		int r;

		api_prepare(api, "/v1/events", url, &call);
		(void)snprintf(header, sizeof(header), "Last-Event-ID: %s", w->last);
		call.headers[0] = w->last[0] ? header : NULL;
		call.timeout_ns = UINT64_MAX;
		call.stall_s = 60;
		call.on_event = on_event;
		call.on_event_userdata = w;
		r = http_call(&call, &reply, e);
		if (r < 0)
			return r;
		if (reply.err.code != ERR_NONE) {
			*e = reply.err;
			return err_set(NULL, e->code, "-");
		}
		connected = reply.status == 200;
	}
	return 0;
}

int run_events(const struct invocation *inv, struct err *e)
{
	const char *since = option(inv, "since");
	struct watch w = {.json = inv->json};
	struct api api;
	uint64_t revision;
	int r = api_open(&api, e);

	if (since && parse_u64(since, INT64_MAX, &revision) < 0)
		return err_set(e, ERR_INVALID, "--since takes a revision, not '%s'", since);
	if (r == 0)
		r = print_past(&w, &api, since ? since : "0", e);
	return r < 0 || !option(inv, "follow") ? r : follow(&w, &api, e);
}

int run_status(const struct invocation *inv, struct err *e)
{
	json_t *status = NULL;
	struct api api;
	int r = api_open(&api, e);

	if (r == 0)
		r = api_call(&api, "GET", "/v1/status", NULL, &status, e);
	if (r < 0)
		return r;
	(void)json_object_set_new(
		status, "api", json_string(api.unix_path[0] ? api.unix_path : api.url));
	if (inv->json)
		return print_json(status, e);
	print_fields(status, 0);
	json_decref(status);
	return 0;
}
