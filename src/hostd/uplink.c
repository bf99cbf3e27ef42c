/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Four flows, each with at most one request under way and its own retries:
 *
 *   register ──> desired (long poll, again and again)
 *           └──> observed (when something has changed, and at each heartbeat)
 *           └──> events (while there are any)
 *
 * An answer of 401 or 403 leads back to register.
 */
#include "hostd/uplink.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "io/file.h"
#include "io/json.h"
#include "io/loop.h"

#define URL_MAX       1024
#define AGENT_MAX     4096
#define DESIRED_BYTES (16U << 20)
#define DESIRED_DEPTH 16

struct flow {
	struct uplink *uplink;
	const char *name;
	void (*begin)(struct flow *flow); /* sends the request */
	struct http_pending *call;
	sd_event_source *retry;
	uint64_t delay_ns;
	bool due;     /* to be sent as soon as possible */
	bool failing; /* the last request failed: said once */
};

struct uplink {
	struct uplink_config config;
	struct host *host;
	struct http_client *client;
	struct flow registration, desired, observed, events;
	sd_event_source *heartbeat;
	bool registered;
	char token[UPLINK_TOKEN_MAX], host_id[NAME_MAX_LENGTH + 1];
	char boot_id[BOOT_ID_SIZE];
};

/* Begins the flow's request unless one is under way, or the flow waits after a failure. */
static void kick(struct flow *f)
{
	int waiting = SD_EVENT_OFF;

	f->due = true;
	if (f->retry)
		(void)sd_event_source_get_enabled(f->retry, &waiting);
	if (f->call || waiting != SD_EVENT_OFF ||
		(!f->uplink->registered && f != &f->uplink->registration))
		return;
	f->due = false;
	f->begin(f);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	kick(userdata);
	return 0;
}

static void retry_later(struct flow *f, const struct err *e)
{
	if (!f->failing)
		log_control(LOG_WARNING, "the control plane does not take a request, trying on",
			" request=%s why=%s", f->name, log_quote(e->message));
	f->failing = true;
	f->due = true;
	f->delay_ns = MIN(
		MAX(2 * f->delay_ns, (uint64_t)UPLINK_RETRY_MIN_NS), (uint64_t)UPLINK_RETRY_MAX_NS);
	if (f->retry)
		(void)loop_rearm(f->retry, f->delay_ns);
	else
		(void)loop_after(f->uplink->config.event, f->delay_ns, on_retry, f, &f->retry);
}

/* The request has ended. Whether it was answered well. */
static bool settled(struct flow *f, const struct http_reply *reply)
{
	struct uplink *u = f->uplink;

	f->call = NULL;
	if (reply->err.code == ERR_NONE) {
		if (f->failing)
			log_control(LOG_INFO, "the control plane takes requests again",
				" request=%s", f->name);
		f->failing = false;
		f->delay_ns = 0;
		return true;
	}
	retry_later(f, &reply->err);
	if (f != &u->registration &&
		(reply->err.code == ERR_UNAUTHENTICATED || reply->err.code == ERR_FORBIDDEN)) {
		u->registered = false;
		kick(&u->registration);
	}
	return false;
}

/* body: taken; NULL for none. */
static void send_request(struct flow *f, const char *method, const char *path, json_t *body,
	uint64_t timeout_ns, http_done_fn done)
{
	CLEANUP_JSON json_t *own = body;
	struct uplink *u = f->uplink;
	CLEANUP_FREE char *text = own ? json_dumps(own, JSON_COMPACT) : NULL;
	const char *token = u->token[0] ? u->token : u->config.join_token;
	char url[URL_MAX];
	struct http_call call = {.method = method,
		.url = url,
		.ca_file = u->config.ca_file,
		.bearer = token,
		.body = text,
		.body_size = text ? strlen(text) : 0,
		.timeout_ns = timeout_ns,
		.max_response = DESIRED_BYTES};
	int n = snprintf(url, sizeof(url), "%s%s", u->config.url, path), r;
	struct err e;

	r = n < 0 || (size_t)n >= sizeof(url) ? -ENAMETOOLONG : (own && !text) ? -ENOMEM : 0;
	if (r == 0)
		r = http_start(u->client, &call, done, f, &f->call);
	if (r < 0) {
		(void)err_errno(&e, r, "send the request");
		retry_later(f, &e);
	}
}

static int save_agent(struct uplink *u, struct err *e)
{
	CLEANUP_JSON json_t *json = json_pack("{s:i, s:s, s:s, s:s}", "version", 1, "host_id",
		u->host_id, "token", u->token, "url", u->config.url);
	CLEANUP_FREE char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;

	if (!text)
		return err_errno(e, -ENOMEM, "write agent.json");
	return privileged_write(u->config.state, "agent.json", text, strlen(text), 0600, e);
}

static int load_agent(struct uplink *u, struct err *e)
{
	CLEANUP_BUF struct buf text = BUF_INIT(AGENT_MAX);
	CLEANUP_JSON json_t *json = NULL;
	const char *token = "", *host_id = "";
	int r = file_read_at(u->config.state, "agent.json", &text);

	if (r < 0)
		return r == -ENOENT ? 0 : err_errno(e, r, "read agent.json");
	r = json_parse(buf_text(&text), text.size, NULL, &json, e);
	if (r == 0)
		r = json_get_string(json, "token", UPLINK_TOKEN_MAX - 1, &token, e);
	if (r == 0)
		r = json_get_string(json, "host_id", NAME_MAX_LENGTH, &host_id, e);
	if (r < 0)
		return r;
	(void)snprintf(u->token, sizeof(u->token), "%s", token);
	(void)snprintf(u->host_id, sizeof(u->host_id), "%s", host_id);
	return 0;
}

static int take_registration(struct uplink *u, const struct http_reply *reply, struct err *e)
{
	CLEANUP_JSON json_t *json = NULL;
	const char *token = u->token, *host_id = "";
	int r = http_reply_json(reply, &json, e);

	if (r == 0)
		r = json_get_string(json, "host_id", NAME_MAX_LENGTH, &host_id, e);
	if (r == 0)
		r = json_get_string_or(json, "token", UPLINK_TOKEN_MAX - 1, u->token, &token, e);
	if (r < 0)
		return r;
	if (token != u->token)
		(void)snprintf(u->token, sizeof(u->token), "%s", token);
	(void)snprintf(u->host_id, sizeof(u->host_id), "%s", host_id);
	return save_agent(u, e);
}

static void on_registered(const struct http_reply *reply, void *userdata)
{
	struct flow *f = userdata;
	struct uplink *u = f->uplink;
	struct err e;

	if (!settled(f, reply)) {
		/* A token that is not known any more: the join token is the way back. */
		if (reply->err.code == ERR_UNAUTHENTICATED && u->config.join_token)
			u->token[0] = '\0';
		return;
	}
	if (take_registration(u, reply, &e) < 0) {
		retry_later(f, &e);
		return;
	}
	u->registered = true;
	log_control(LOG_INFO, "registered", " host=%s host_id=%s", u->config.host, u->host_id);
	images_set_source(u->host->images, u->client, u->config.url, u->config.ca_file, u->token);
	kick(&u->desired);
	kick(&u->observed);
	kick(&u->events);
}

static int put_optional(json_t *object, const char *name, const char *value)
{
	return value ? json_object_set_new(object, name, json_string(value)) : 0;
}

static void begin_registration(struct flow *f)
{
	struct uplink *u = f->uplink;
	struct resources resources;
	json_t *body;
	struct err e;

	if (resources_read(u->config.state, &u->config.offered, &resources, &e) < 0) {
		retry_later(f, &e);
		return;
	}
	body = json_pack("{s:s, s:o, s:s, s:s}", "host", u->config.host, "resources",
		resources_json(&resources), "accel", u->config.accel, "agent_version",
		SOSIE_VERSION);
	(void)put_optional(body, "zone", u->config.zone);
	(void)put_optional(body, "overlay", u->config.overlay);
	send_request(f, "POST", "/v1/agent/register", body, 0, on_registered);
}

static void on_desired(const struct http_reply *reply, void *userdata)
{
	const struct json_limits limits = {.max_bytes = DESIRED_BYTES, .max_depth = DESIRED_DEPTH};
	struct flow *f = userdata;
	CLEANUP_JSON json_t *json = NULL;
	struct err e;

	if (!settled(f, reply))
		return;
	if (reply->status == 200 &&
		(json_parse(buf_text(&reply->body), reply->body.size, &limits, &json, &e) < 0 ||
			host_desire(f->uplink->host, json, &e) < 0)) {
		retry_later(f, &e);
		return;
	}
	kick(f);
}

static void begin_desired(struct flow *f)
{
	const struct host *h = f->uplink->host;
	char path[96];

	/* 0 until there was one: what is desired must be known even if it has not changed. */
	(void)snprintf(path, sizeof(path), "/v1/agent/desired?revision=%" PRIu64 "&wait=%d",
		h->told ? h->revision : 0, UPLINK_WAIT_S);
	send_request(
		f, "GET", path, NULL, (UPLINK_WAIT_S + 15) * (uint64_t)NSEC_PER_SEC, on_desired);
}

static void on_observed(const struct http_reply *reply, void *userdata)
{
	struct flow *f = userdata;

	if (settled(f, reply) && f->due)
		kick(f);
}

static void begin_observed(struct flow *f)
{
	struct uplink *u = f->uplink;
	struct resources resources;
	struct err e;

	if (resources_read(u->config.state, &u->config.offered, &resources, &e) < 0) {
		retry_later(f, &e);
		return;
	}
	send_request(f, "POST", "/v1/agent/observed",
		json_pack("{s:s, s:I, s:o, s:o}", "boot_id", u->boot_id, "revision",
			(json_int_t)u->host->revision, "instances", host_observed(u->host),
			"resources", resources_json(&resources)),
		0, on_observed);
}

static void on_events(const struct http_reply *reply, void *userdata)
{
	struct flow *f = userdata;
	CLEANUP_JSON json_t *json = NULL;
	int64_t acknowledged = 0;
	struct err e;
	int r;

	if (!settled(f, reply))
		return;
	r = http_reply_json(reply, &json, &e);
	if (r == 0)
		r = json_get_integer(json, "acknowledged", 0, INT64_MAX, &acknowledged, &e);
	if (r == 0)
		r = journal_acknowledge(f->uplink->host->journal, (uint64_t)acknowledged, &e);
	if (r < 0)
		retry_later(f, &e);
	else
		kick(f);
}

static void begin_events(struct flow *f)
{
	json_t *batch = journal_batch(f->uplink->host->journal);

	if (batch)
		send_request(f, "POST", "/v1/agent/events", batch, 0, on_events);
}

static void on_changed(void *userdata)
{
	struct uplink *u = userdata;

	kick(&u->observed);
}

static void on_happened(void *userdata)
{
	struct uplink *u = userdata;

	kick(&u->events);
}

static int on_heartbeat(void *userdata)
{
	struct uplink *u = userdata;

	host_refresh(u->host);
	kick(&u->observed);
	return 0;
}

static void set_flow(
	struct uplink *u, struct flow *f, const char *name, void (*begin)(struct flow *flow))
{
	*f = (struct flow){.uplink = u, .name = name, .begin = begin};
}

int uplink_new(
	const struct uplink_config *config, struct host *host, struct uplink **ret, struct err *e)
{
	CLEANUP(uplink_free_p) struct uplink *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return err_errno(e, -ENOMEM, "reach the control plane");
	u->config = *config;
	u->host = host;
	set_flow(u, &u->registration, "register", begin_registration);
	set_flow(u, &u->desired, "desired", begin_desired);
	set_flow(u, &u->observed, "observed", begin_observed);
	set_flow(u, &u->events, "events", begin_events);
	r = read_boot_id(u->boot_id, e);
	if (r == 0)
		r = load_agent(u, e);
	if (r < 0)
		return r;
	if (!u->token[0] && !config->join_token) {
		(void)err_set(e, ERR_USAGE, "this host is not registered yet");
		return err_hint(e, "give --join-token-file with a token from the control plane");
	}
	r = http_client_new(config->event, &u->client);
	if (r >= 0)
		r = loop_every(config->event, config->heartbeat_ns, on_heartbeat, u, &u->heartbeat);
	if (r < 0)
		return err_errno(e, r, "reach the control plane");
	host->changed = on_changed;
	host->happened = on_happened;
	host->userdata = u;
	kick(&u->registration);
	*ret = TAKE_PTR(u);
	return 0;
}

void uplink_free(struct uplink *u)
{
	if (!u)
		return;
	u->host->changed = u->host->happened = NULL;
	loop_drop(&u->registration.retry);
	loop_drop(&u->desired.retry);
	loop_drop(&u->observed.retry);
	loop_drop(&u->events.retry);
	loop_drop(&u->heartbeat);
	images_set_source(u->host->images, NULL, NULL, NULL, NULL);
	http_client_free(u->client);
	free(u);
}
