/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands that are alike for all kinds of things: list, show, delete and the plain actions.
 * The command's first word names a row of the table below, its second the action.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "cli/api.h"
#include "cli/command.h"
#include "cli/wait.h"
#include "io/json.h"

#define COLUMNS_MAX 8
#define CELL_MAX    160
/* Pages of a list that are read before giving up on its end. */
#define PAGES_MAX 10000

struct column {
	const char *title;
	const char *path; /* for json_text(); "" for none */
	int width;
	bool size; /* bytes, shown in MiB */
};

struct resource {
	const char *word;
	const char *path;
	struct column columns[COLUMNS_MAX];
};

static const struct resource resources[] = {
	{"host", "/v1/hosts",
		{{"HOST", "name", 16}, {"STATE", "state", 10}, {"ZONE", "zone", 10},
			{"ACCEL", "accel", 5}, {"CORES FREE", "free.cores", 10},
			{"MEMORY FREE", "free.memory_bytes", 12, true},
			{"DISK FREE", "free.disk_bytes", 12, true}}},
	{"image", "/v1/images",
		{{"IMAGE", "name", 20}, {"VERSION", "version", 10}, {"STATE", "state", 10},
			{"FORMAT", "format", 6}, {"SIZE", "size", 12, true},
			{"PUBLIC", "public", 6}}},
	{"instance", "/v1/instances",
		{{"INSTANCE", "name", 20}, {"STATE", "state", 12}, {"HOST", "host", 16},
			{"GROUP", "group", 16}, {"ADDRESS", "nics.0.ip", 15},
			{"IMAGE", "image", 16}}},
	{"volume", "/v1/volumes",
		{{"VOLUME", "name", 20}, {"STATE", "state", 10}, {"SIZE", "size", 12, true},
			{"HOST", "host", 16}, {"INSTANCE", "instance", 20}}},
	{"network", "/v1/networks",
		{{"NETWORK", "name", 20}, {"CIDR", "cidr", 18}, {"GATEWAY", "gateway", 15},
			{"TENANT", "tenant", 16}}},
	{"published", "/v1/published-ports",
		{{"ID", "id", 26}, {"INSTANCE", "instance", 20}, {"PORT", "port", 6},
			{"PROTOCOL", "protocol", 8}, {"HOST", "host", 16},
			{"HOST PORT", "host_port", 9}}},
	{"token", "/v1/tokens",
		{{"ID", "id", 26}, {"ROLE", "role", 8}, {"TENANT", "tenant", 16},
			{"COMMENT", "comment", 24}, {"EXPIRES", "expires", 30}}},
	{"tenant", "/v1/tenants", {{"TENANT", "name", 24}, {"ID", "id", 26}}},
};

static const struct resource *resource_of(const struct invocation *inv)
{
	size_t n = strcspn(inv->command->name, " ");

	for (size_t i = 0; i < ARRAY_SIZE(resources); i++)
		if (strlen(resources[i].word) == n &&
			!strncmp(resources[i].word, inv->command->name, n))
			return &resources[i];
	abort(); /* the command's table has a word that this one lacks: a defect */
}

int item_path(const struct invocation *inv, const char *collection, const char *name,
	const char *action, char out[API_PATH_MAX], struct err *e)
{
	const char *tenant = option(inv, "tenant");
	char rest[API_PATH_MAX];
	int r, n;

	r = tenant ? api_path(rest, e, "/%s?tenant=%s", name, tenant)
		   : api_path(rest, e, "/%s", name);
	if (r < 0)
		return r;
	n = snprintf(out, API_PATH_MAX, "%s%.*s%s%s%s", collection, (int)strcspn(rest, "?"), rest,
		*action ? "/" : "", action, rest + strcspn(rest, "?"));
	return n < 0 || n >= API_PATH_MAX ? err_set(e, ERR_INVALID, "the name is too long") : 0;
}

int api_list(const struct api *api, const struct invocation *inv, const char *collection,
	json_t **ret, struct err *e)
{
	const char *tenant = inv ? option(inv, "tenant") : NULL;
	CLEANUP_JSON json_t *items = json_array();
	char after[128] = "";

	for (unsigned int i = 0; i < PAGES_MAX; i++) {
		CLEANUP_JSON json_t *page = NULL;
		char query[API_PATH_MAX], path[API_PATH_MAX];
		const char *next;
		int r = api_path(
			query, e, "limit=500&after=%s&tenant=%s", after, tenant ? tenant : "");

		if (r < 0)
			return r;
		if (!tenant)
			*strstr(query, "&tenant=") = '\0';
		if (snprintf(path, sizeof(path), "%s?%s", collection, query) >= (int)sizeof(path))
			return err_set(e, ERR_INVALID, "the tenant's name is too long");
		r = api_call(api, "GET", path, NULL, &page, e);
		if (r < 0)
			return r;
		if (json_array_extend(items, json_object_get(page, "items")) < 0)
			return err_errno(e, -ENOMEM, "list");
		next = json_string_value(json_object_get(page, "next"));
		if (!next) {
			*ret = json_incref(items);
			return 0;
		}
		(void)snprintf(after, sizeof(after), "%s", next);
	}
	return err_set(e, ERR_TOO_LARGE, "the list has no end");
}

static void print_cell(const struct column *c, const char *text, bool last)
{
	if (last)
		(void)printf("%s\n", text);
	else
		(void)printf("%-*s ", c->width, text);
}

static void print_row(const struct resource *kind, const json_t *item)
{
	for (size_t i = 0; i < COLUMNS_MAX && kind->columns[i].title; i++) {
		const struct column *c = &kind->columns[i];
		bool last = i + 1 == COLUMNS_MAX || !kind->columns[i + 1].title;
		char cell[CELL_MAX];
		uint64_t bytes;

		if (item)
			json_text(item, c->path, cell, sizeof(cell));
		if (item && c->size && parse_u64(cell, UINT64_MAX, &bytes) == 0)
			(void)snprintf(
				cell, sizeof(cell), "%llu MiB", (unsigned long long)(bytes >> 20));
		print_cell(c, item ? cell : c->title, last);
	}
}

int run_resource_list(const struct invocation *inv, struct err *e)
{
	const struct resource *kind = resource_of(inv);
	CLEANUP_JSON json_t *items = NULL;
	struct api api;
	const json_t *item;
	size_t i;
	int r = api_open(&api, e);

	if (r == 0)
		r = api_list(&api, inv, kind->path, &items, e);
	if (r < 0)
		return r;
	if (inv->json)
		return print_json(json_incref(items), e);
	if (!option(inv, "names"))
		print_row(kind, NULL);
	json_array_foreach(items, i, item)
	{
		char name[CELL_MAX];

		json_text(item, kind->columns[0].path, name, sizeof(name));
		if (option(inv, "names"))
			(void)puts(name);
		else
			print_row(kind, item);
	}
	return 0;
}

void print_fields(const json_t *object, int indent)
{
	const char *name;
	json_t *value;

	/* jansson's macro takes what is not const. */
	json_object_foreach((json_t *)object, name, value)
	{
		char text[1024];
		size_t i;
		const json_t *item;

		json_text(value, "", text, sizeof(text));
		if (json_is_object(value)) {
			(void)printf("%*s%s\n", indent, "", name);
			print_fields(value, indent + 2);
		} else if (json_is_array(value)) {
			(void)printf("%*s%s%s\n", indent, "", name,
				json_array_size(value) ? "" : "  none");
			json_array_foreach(value, i, item)
			{
				(void)printf("%*s- \n", indent + 2, "");
				print_fields(item, indent + 4);
			}
		} else {
			(void)printf("%*s%-*s %s\n", indent, "", MAX(18 - indent, 1), name, text);
		}
	}
}

/* Prints what is new about a thing, as JSON or for people. Takes it. */
static int print_item(const struct invocation *inv, json_t *item, struct err *e)
{
	if (inv->json)
		return print_json(item, e);
	print_fields(item, 0);
	json_decref(item);
	return 0;
}

int run_resource_show(const struct invocation *inv, struct err *e)
{
	char path[API_PATH_MAX];
	json_t *item = NULL;
	struct api api;
	int r = api_open(&api, e);

	if (r == 0)
		r = item_path(inv, resource_of(inv)->path, inv->arguments[0], "", path, e);
	if (r == 0)
		r = api_call(&api, "GET", path, NULL, &item, e);
	return r < 0 ? r : print_item(inv, item, e);
}

int run_resource_delete(const struct invocation *inv, struct err *e)
{
	struct api api;
	int r = api_open(&api, e);

	for (int i = 0; r == 0 && i < inv->count; i++) {
		char path[API_PATH_MAX];

		r = item_path(inv, resource_of(inv)->path, inv->arguments[i], "", path, e);
		if (r == 0)
			r = api_call(&api, "DELETE", path, NULL, NULL, e);
	}
	return r;
}

int run_resource_act(const struct invocation *inv, struct err *e)
{
	const char *action = strchr(inv->command->name, ' ') + 1;
	struct api api;
	int r = api_open(&api, e);

	for (int i = 0; r == 0 && i < inv->count; i++) {
		char path[API_PATH_MAX];
		json_t *item = NULL;

		r = item_path(inv, resource_of(inv)->path, inv->arguments[i], action, path, e);
		if (r == 0)
			r = api_call(&api, "POST", path, NULL, &item, e);
		if (r == 0 && inv->json)
			r = print_json(item, e);
		else
			json_decref(item);
	}
	return r;
}

/* Asks for one after the other, then waits for all. */
int run_instance_act(const struct invocation *inv, struct err *e)
{
	const char *action = strchr(inv->command->name, ' ') + 1;
	bool ends = !strcmp(action, "terminate");
	CLEANUP_JSON json_t *items = json_array();
	struct api api;
	int r = api_open(&api, e);

	for (int i = 0; r == 0 && i < inv->count; i++) {
		char path[API_PATH_MAX];
		json_t *item = NULL;

		r = item_path(inv, "/v1/instances", inv->arguments[i], ends ? "" : action, path, e);
		if (r == 0)
			r = api_call(&api, ends ? "DELETE" : "POST", path, NULL, &item, e);
		if (r == 0)
			(void)json_array_append_new(items, item);
	}
	if (r == 0)
		r = wait_for_instances(&api, inv, items,
			ends                          ? UNTIL_GONE
			: strcmp(action, "stop") == 0 ? UNTIL_STOPPED
						      : UNTIL_RUNNING,
			e);
	return r == 0 && inv->json ? print_json(json_incref(items), e) : r;
}

/* Adds the option's value to the body when it is given; numbers are checked. */
static int add_text(json_t *body, const char *field, const char *value)
{
	return value ? json_object_set_new(body, field, json_string(value)) : 0;
}

static int add_number(
	json_t *body, const char *field, const char *name, const char *value, struct err *e)
{
	uint64_t n;

	if (!value)
		return 0;
	if (parse_u64(value, INT64_MAX, &n) < 0)
		return err_set(e, ERR_INVALID, "%s is a number, not '%s'", name, value);
	return json_object_set_new(body, field, json_integer((json_int_t)n));
}

/* Posts the body to the collection and prints what came of it. */
static int create(
	const struct invocation *inv, const char *path, json_t *body, json_t **ret, struct err *e)
{
	const char *tenant = option(inv, "tenant");
	char where[API_PATH_MAX], query[API_PATH_MAX] = "";
	struct api api;
	int r = api_open(&api, e);

	if (r == 0 && tenant)
		r = api_path(query, e, "?tenant=%s", tenant);
	if (r == 0 && snprintf(where, sizeof(where), "%s%s", path, query) >= (int)sizeof(where))
		r = err_set(e, ERR_INVALID, "the tenant's name is too long");
	return r < 0 ? r : api_call(&api, "POST", where, body, ret, e);
}

/* The same, and prints the new thing. */
static int create_and_print(
	const struct invocation *inv, const char *path, json_t *body, struct err *e)
{
	json_t *item = NULL;
	int r = create(inv, path, body, &item, e);

	return r < 0 ? r : print_item(inv, item, e);
}

int run_volume_create(const struct invocation *inv, struct err *e)
{
	CLEANUP_JSON json_t *body = json_pack("{s:s}", "name", inv->arguments[0]);
	const char *size = option(inv, "size");
	uint64_t bytes = 0;

	if (!size || parse_size(size, &bytes) < 0 || bytes < 1 << 20)
		return err_set(e, ERR_INVALID, "--size takes a number of bytes such as 10G");
	(void)json_object_set_new(body, "size_mib", json_integer((json_int_t)(bytes >> 20)));
	(void)add_text(body, "instance", option(inv, "instance"));
	return create_and_print(inv, "/v1/volumes", body, e);
}

int run_volume_attach(const struct invocation *inv, struct err *e)
{
	CLEANUP_JSON json_t *body = json_pack("{s:s}", "instance", inv->arguments[1]);
	char path[API_PATH_MAX];
	json_t *item = NULL;
	struct api api;
	int r = api_open(&api, e);

	if (r == 0)
		r = item_path(inv, "/v1/volumes", inv->arguments[0], "attach", path, e);
	if (r == 0)
		r = api_call(&api, "POST", path, body, &item, e);
	return r < 0 ? r : print_item(inv, item, e);
}

int run_network_create(const struct invocation *inv, struct err *e)
{
	CLEANUP_JSON json_t *body =
		json_pack("{s:s,s:s}", "name", inv->arguments[0], "cidr", inv->arguments[1]);

	return create_and_print(inv, "/v1/networks", body, e);
}

/* "80", or "8000-8080". */
static int add_ports(json_t *body, const char *ports, struct err *e)
{
	char first[8];
	size_t n;
	int r;

	if (!ports)
		return 0;
	n = strcspn(ports, "-");
	if (n >= sizeof(first))
		return err_set(e, ERR_INVALID, "--port takes 80 or 8000-8080, not '%s'", ports);
	memcpy(first, ports, n);
	first[n] = '\0';
	r = add_number(body, "first_port", "--port", first, e);
	return r == 0 && ports[n] ? add_number(body, "last_port", "--port", ports + n + 1, e) : r;
}

int run_network_allow(const struct invocation *inv, struct err *e)
{
	const char *protocol = option(inv, "protocol");
	CLEANUP_JSON json_t *body =
		json_pack("{s:s,s:s}", "direction", "in", "protocol", protocol ? protocol : "tcp");
	char path[API_PATH_MAX];
	int r = add_ports(body, option(inv, "port"), e);

	(void)add_text(body, "remote", option(inv, "from"));
	if (r == 0)
		r = api_path(path, e, "/v1/networks/%s/rules", inv->arguments[0]);
	return r < 0 ? r : create_and_print(inv, path, body, e);
}

int run_network_rules(const struct invocation *inv, struct err *e)
{
	CLEANUP_JSON json_t *items = NULL;
	char path[API_PATH_MAX];
	const json_t *item;
	struct api api;
	size_t i;
	int r = api_open(&api, e);

	if (r == 0)
		r = api_path(path, e, "/v1/networks/%s/rules", inv->arguments[0]);
	if (r == 0)
		r = api_list(&api, inv, path, &items, e);
	if (r < 0 || inv->json)
		return r < 0 ? r : print_json(json_incref(items), e);
	(void)printf("%-26s %-4s %-5s %-12s %s\n", "ID", "DIR", "PROTO", "PORTS", "FROM/TO");
	json_array_foreach(items, i, item)
	{
		char id[32], direction[8], protocol[8], first[8], last[8], remote[32];

		json_text(item, "id", id, sizeof(id));
		json_text(item, "direction", direction, sizeof(direction));
		json_text(item, "protocol", protocol, sizeof(protocol));
		json_text(item, "first_port", first, sizeof(first));
		json_text(item, "last_port", last, sizeof(last));
		json_text(item, "remote", remote, sizeof(remote));
		(void)printf("%-26s %-4s %-5s %5s-%-6s %s\n", id, direction, protocol, first, last,
			remote);
	}
	return 0;
}

int run_network_deny(const struct invocation *inv, struct err *e)
{
	char path[API_PATH_MAX], collection[API_PATH_MAX];
	struct api api;
	int r = api_open(&api, e);

	if (r == 0)
		r = api_path(collection, e, "/v1/networks/%s/rules", inv->arguments[0]);
	if (r == 0)
		r = item_path(inv, collection, inv->arguments[1], "", path, e);
	return r < 0 ? r : api_call(&api, "DELETE", path, NULL, NULL, e);
}

/* "80", "8080:80" (the host's first), each with "/udp" by choice. */
int add_published(json_t *body, const char *text, struct err *e)
{
	size_t n = strcspn(text, "/");
	char ports[32], *colon;
	int r;

	if (n >= sizeof(ports))
		return err_set(e, ERR_INVALID, "a port is written 80, 8080:80 or 53/udp");
	memcpy(ports, text, n);
	ports[n] = '\0';
	colon = strchr(ports, ':');
	if (colon)
		*colon = '\0';
	r = add_number(body, "port", "a port", colon ? colon + 1 : ports, e);
	if (r == 0 && colon)
		r = add_number(body, "host_port", "a host's port", ports, e);
	return r == 0 && text[n] ? add_text(body, "protocol", text + n + 1) : r;
}

int run_network_publish(const struct invocation *inv, struct err *e)
{
	CLEANUP_JSON json_t *body = json_pack("{s:s}", "instance", inv->arguments[0]);
	int r = add_published(body, inv->arguments[1], e);

	return r < 0 ? r : create_and_print(inv, "/v1/published-ports", body, e);
}

int run_tenant_create(const struct invocation *inv, struct err *e)
{
	CLEANUP_JSON json_t *body = json_pack("{s:s}", "name", inv->arguments[0]);

	return create_and_print(inv, "/v1/tenants", body, e);
}

int run_token_create(const struct invocation *inv, struct err *e)
{
	const char *role = option(inv, "role"), *expires = option(inv, "expires");
	CLEANUP_JSON json_t *body = json_object();
	bool join = role && !strcmp(role, "join");
	json_t *item = NULL;
	uint64_t ns = 0;
	int r;

	if (expires && parse_duration_ns(expires, &ns) < 0)
		return err_set(e, ERR_INVALID, "--expires takes a duration such as 12h, not '%s'",
			expires);
	if (ns > 0)
		(void)json_object_set_new(
			body, "seconds", json_integer((json_int_t)(ns / NSEC_PER_SEC)));
	(void)add_text(body, "comment", option(inv, "comment"));
	if (!join)
		(void)add_text(body, "role", role ? role : "operator");
	if (option(inv, "provider"))
		(void)json_object_set_new(body, "provider", json_true());
	r = create(inv, join ? "/v1/join-tokens" : "/v1/tokens", body, &item, e);
	if (r < 0)
		return r;
	if (inv->json)
		return print_json(item, e);
	/* By itself, so that it can be put into a variable. */
	(void)puts(json_string_value(json_object_get(item, "token")));
	json_decref(item);
	return 0;
}

static int upload(const struct invocation *inv, const struct api *api, const char *file,
	const char *path, json_t **ret, struct err *e)
{
	CLEANUP_REPLY struct http_reply reply = {0};
	char url[API_URL_MAX + API_PATH_MAX];
	struct http_call call;
	FILE *f = fopen(file, "re");
	off_t size;
	int r;

	(void)inv;
	if (!f)
		return err_errno(e, -errno, "open %s", file);
	if (fseeko(f, 0, SEEK_END) < 0 || (size = ftello(f)) < 0 || fseeko(f, 0, SEEK_SET) < 0) {
		r = err_errno(e, -errno, "read %s", file);
		(void)fclose(f);
		return r;
	}
	api_prepare(api, path, url, &call);
	call.method = "PUT";
	call.content_type = "application/octet-stream";
	call.body_file = f;
	call.body_size = (size_t)size;
	call.timeout_ns = UINT64_MAX;
	call.stall_s = 60;
	progress("uploading %s (%lld MiB)", file, (long long)size >> 20);
	r = http_call(&call, &reply, e);
	progress("%s", "");
	(void)fclose(f);
	if (r < 0)
		return r;
	if (reply.err.code != ERR_NONE) {
		*e = reply.err;
		return err_set(NULL, e->code, "-");
	}
	return http_reply_json(&reply, ret, e);
}

/* "mini" of "/images/mini.qcow2" */
static void name_of_file(const char *file, char *out, size_t size)
{
	const char *slash = strrchr(file, '/');

	(void)snprintf(out, size, "%s", slash ? slash + 1 : file);
	out[strcspn(out, ".")] = '\0';
}

static int import_path(
	const struct invocation *inv, const char *name, char path[API_PATH_MAX], struct err *e)
{
	const char *version = option(inv, "version"), *tenant = option(inv, "tenant");
	int r = api_path(path, e, "/v1/images/%s/file?version=%s&tenant=%s", name,
		version ? version : "1", tenant ? tenant : "default");

	if (r < 0)
		return r;
	if (!tenant)
		*strstr(path, "&tenant=") = '\0';
	if (option(inv, "public"))
		(void)strncat(path, "&public=true", API_PATH_MAX - strlen(path) - 1);
	return 0;
}

int import_image(
	const struct invocation *inv, const char *file, const char *asked_name, struct err *e)
{
	char path[API_PATH_MAX], name[NAME_MAX_LENGTH + 1];
	json_t *item = NULL;
	struct api api;
	int r = api_open(&api, e);

	name_of_file(file, name, sizeof(name));
	if (!name_valid(asked_name ? asked_name : name)) {
		(void)err_set(e, ERR_INVALID, "'%s' is no name for an image",
			asked_name ? asked_name : name);
		return err_hint(e, "a name is %s; --name gives one", name_rule);
	}
	if (r == 0)
		r = import_path(inv, asked_name ? asked_name : name, path, e);
	if (r == 0)
		r = upload(inv, &api, file, path, &item, e);
	return r < 0 ? r : print_item(inv, item, e);
}

int run_image_import(const struct invocation *inv, struct err *e)
{
	return import_image(inv, inv->arguments[0], option(inv, "name"), e);
}
