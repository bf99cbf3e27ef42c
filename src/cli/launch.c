/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "cli/wait.h"
#include "io/json.h"

#define USER_DATA_MAX 65536

static int add_size(json_t *body, const char *field, const struct invocation *inv, const char *name,
	struct err *e)
{
	const char *text = option(inv, name);
	uint64_t bytes;

	if (!text)
		return 0;
	if (parse_size(text, &bytes) < 0 || bytes < 1 << 20)
		return err_set(e, ERR_INVALID, "--%s takes a number of bytes such as 512M", name);
	return json_object_set_new(body, field, json_integer((json_int_t)(bytes >> 20)));
}

static int add_count(json_t *body, const char *field, const struct invocation *inv,
	const char *name, struct err *e)
{
	const char *text = option(inv, name);
	uint64_t n;

	if (!text)
		return 0;
	if (parse_u64(text, INT32_MAX, &n) < 0)
		return err_set(e, ERR_INVALID, "--%s takes a number, not '%s'", name, text);
	return json_object_set_new(body, field, json_integer((json_int_t)n));
}

static int add_user_data(json_t *body, const char *file, struct err *e)
{
	CLEANUP_FREE char *text = zalloc(1, USER_DATA_MAX + 1);
	FILE *f = file ? fopen(file, "re") : NULL;
	size_t n;

	if (!file)
		return 0;
	if (!f || !text)
		return err_errno(e, errno ? -errno : -ENOMEM, "open %s", file);
	n = fread(text, 1, USER_DATA_MAX + 1, f);
	(void)fclose(f);
	if (n > USER_DATA_MAX)
		return err_set(e, ERR_TOO_LARGE, "%s is larger than %d bytes", file, USER_DATA_MAX);
	if (json_object_set_new(body, "user_data", json_stringn(text, n)) < 0)
		return err_set(e, ERR_INVALID, "%s is not UTF-8 text", file);
	return 0;
}

/* "80,8443:443" */
static int add_publish(json_t *body, const char *list, struct err *e)
{
	json_t *ports = json_array();

	if (!list || json_object_set_new(body, "publish", ports) < 0) {
		if (!list)
			json_decref(ports);
		return list ? err_errno(e, -ENOMEM, "make the request") : 0;
	}
	while (*list) {
		size_t n = strcspn(list, ",");
		json_t *port = json_object();
		char text[32];
		int r;

		(void)snprintf(text, sizeof(text), "%.*s", (int)n, list);
		(void)json_array_append_new(ports, port);
		r = add_published(port, text, e);
		if (r < 0)
			return r;
		list += n;
		list += *list == ',';
	}
	return 0;
}

static int describe(const struct invocation *inv, json_t *body, struct err *e)
{
	static const char *const texts[] = {"image", "group", "spread", "network"};
	int r = add_count(body, "count", inv, "count", e);

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (option(inv, texts[i]) &&
			json_object_set_new(body, texts[i], json_string(option(inv, texts[i]))) < 0)
			return err_set(e, ERR_INVALID, "--%s is not UTF-8 text", texts[i]);
	if (r == 0)
		r = add_count(body, "cores", inv, "cores", e);
	if (r == 0)
		r = add_size(body, "memory_mib", inv, "memory", e);
	if (r == 0)
		r = add_size(body, "disk_mib", inv, "disk", e);
	if (r == 0)
		r = add_user_data(body, option(inv, "user-data"), e);
	return r < 0 ? r : add_publish(body, option(inv, "publish"), e);
}

static void print_launched(const json_t *items)
{
	const json_t *item;
	size_t i;

	json_array_foreach(items, i, item)
	{
		char name[64], state[32], host[64], address[64];

		json_text(item, "name", name, sizeof(name));
		json_text(item, "state", state, sizeof(state));
		json_text(item, "host", host, sizeof(host));
		json_text(item, "nics.0.ip", address, sizeof(address));
		(void)printf("%s is %s on %s, address %s\n", name, state, host, address);
	}
}

int run_launch(const struct invocation *inv, struct err *e)
{
	const char *name = inv->count > 0 ? inv->arguments[0] : option(inv, "group");
	const char *tenant = option(inv, "tenant");
	CLEANUP_JSON json_t *answer = NULL;
	CLEANUP_JSON json_t *body = NULL;
	char path[API_PATH_MAX];
	json_t *items;
	struct api api;
	int r;

	if (!option(inv, "image")) {
		(void)err_set(e, ERR_USAGE, "which image?");
		return err_hint(
			e, "sosie launch NAME --image IMAGE; 'sosie image list' lists them");
	}
	if (!name)
		return err_set(e, ERR_USAGE, "an instance, or a group of them, needs a name");
	body = json_pack("{s:s}", "name", name);
	if (!body)
		return err_set(e, ERR_INVALID, "the name is not UTF-8 text");
	r = describe(inv, body, e);
	if (r == 0)
		r = api_open(&api, e);
	if (r == 0)
		r = tenant ? api_path(path, e, "/v1/instances?tenant=%s", tenant)
			   : api_path(path, e, "/v1/instances");
	if (r == 0)
		r = api_call(&api, "POST", path, body, &answer, e);
	if (r < 0)
		return r;
	items = json_object_get(answer, "items");
	r = wait_for_instances(&api, inv, items, UNTIL_RUNNING, e);
	if (r < 0)
		return r;
	if (inv->json)
		return print_json(json_incref(items), e);
	print_launched(items);
	return 0;
}
