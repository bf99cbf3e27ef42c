/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/api.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "io/json.h"
#include "lib/values/group.h"

#define CONTROL_FILE     "control.json"
#define CONTROL_FILE_MAX 4096

static int nowhere(struct err *e)
{
	(void)err_set(e, ERR_UNAVAILABLE, "no control plane is known");
	return err_hint(
		e, "'sosie up' starts one on this machine; or set SOSIE_API and SOSIE_TOKEN");
}

static int set_address(struct api *api, const char *where, struct err *e)
{
	size_t n = strlen(where);

	while (n > 0 && where[n - 1] == '/')
		n--;
	if (n >= sizeof(api->url))
		return err_set(e, ERR_USAGE, "the control plane's address is too long");
	if (str_starts_with(where, "unix:")) {
		(void)snprintf(api->unix_path, sizeof(api->unix_path), "%s", where + 5);
		(void)snprintf(api->url, sizeof(api->url), "http://localhost");
		return 0;
	}
	if (!str_starts_with(where, "http://") && !str_starts_with(where, "https://"))
		return err_set(e, ERR_USAGE, "SOSIE_API is http://…, https://… or unix:PATH");
	(void)snprintf(api->url, sizeof(api->url), "%.*s", (int)n, where);
	return 0;
}

static int set_token(struct api *api, const char *token, struct err *e)
{
	size_t n = strcspn(token, " \t\r\n");

	if (n == 0 || n >= sizeof(api->token))
		return err_set(e, ERR_USAGE, "SOSIE_TOKEN is not a token");
	(void)snprintf(api->token, sizeof(api->token), "%.*s", (int)n, token);
	return 0;
}

/* 1 and both set, 0 when there is no such file. */
static int read_stored(struct api *api, struct err *e)
{
	char state[PATH_MAX], path[PATH_MAX];
	CLEANUP_FREE char *text = zalloc(1, CONTROL_FILE_MAX + 1);
	const char *where = "", *token = "";
	CLEANUP_JSON json_t *j = NULL;
	FILE *file;
	size_t n;
	int r = state_directory(state, e);

	if (r == 0)
		r = path_join(path, sizeof(path), state, CONTROL_FILE);
	if (r < 0 || !text)
		return r < 0 ? r : err_errno(e, -ENOMEM, "read %s", path);
	file = fopen(path, "re");
	if (!file)
		return errno == ENOENT ? 0 : err_errno(e, -errno, "open %s", path);
	n = fread(text, 1, CONTROL_FILE_MAX, file);
	(void)fclose(file);
	r = json_parse(text, n, NULL, &j, e);
	if (r == 0)
		r = json_get_string(j, "api", API_URL_MAX - 1, &where, e);
	if (r == 0)
		r = json_get_string(j, "token", API_TOKEN_MAX - 1, &token, e);
	if (r == 0)
		r = set_address(api, where, e);
	if (r == 0)
		r = set_token(api, token, e);
	return r < 0 ? r : 1;
}

int api_known(struct api *ret, struct err *e)
{
	const char *where = getenv("SOSIE_API"), *token = getenv("SOSIE_TOKEN");
	struct api api = {.ca_file = getenv("SOSIE_CA_FILE")};
	int r;

	if (!where || !*where) {
		r = read_stored(&api, e);
		if (r > 0 && token && *token)
			r = set_token(&api, token, e) < 0 ? -EINVAL : 1;
	} else {
		r = set_address(&api, where, e);
		if (r == 0 && (!token || !*token)) {
			(void)err_set(e, ERR_USAGE, "SOSIE_API is set, and SOSIE_TOKEN is not");
			return err_hint(e, "set both, or neither to use what 'sosie up' started");
		}
		if (r == 0)
			r = set_token(&api, token ? token : "", e);
		r = r < 0 ? r : 1;
	}
	if (r > 0)
		*ret = api;
	return r;
}

int api_open(struct api *ret, struct err *e)
{
	int r = api_known(ret, e);

	return r < 0 ? r : r == 0 ? nowhere(e) : 0;
}

void api_prepare(const struct api *api, const char *path, char *url, struct http_call *ret)
{
	(void)snprintf(url, API_URL_MAX + API_PATH_MAX, "%s%s", api->url, path);
	*ret = (struct http_call){
		.url = url,
		.unix_path = api->unix_path[0] ? api->unix_path : NULL,
		.bearer = api->token,
		.ca_file = api->ca_file,
	};
}

/* What is not reachable is most often not running. */
static int explain(int r, struct err *e)
{
	if (e->code == ERR_UNAVAILABLE && !e->hint[0])
		(void)err_hint(e, "is it running? 'sosie up' starts one on this machine");
	if (e->code == ERR_UNAUTHENTICATED)
		(void)err_hint(e, "is SOSIE_TOKEN a token of this control plane?");
	return r;
}

int api_call(const struct api *api, const char *method, const char *path, const json_t *body,
	json_t **ret, struct err *e)
{
	CLEANUP_REPLY struct http_reply reply = {0};
	CLEANUP_FREE char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	char url[API_URL_MAX + API_PATH_MAX];
	struct http_call call;
	int r;

	if (body && !text)
		return err_errno(e, -ENOMEM, "make the request");
	api_prepare(api, path, url, &call);
	call.method = method;
	call.body = text;
	call.body_size = text ? strlen(text) : 0;
	r = http_call(&call, &reply, e);
	if (r < 0)
		return explain(r, e);
	if (reply.err.code != ERR_NONE) {
		*e = reply.err;
		return explain(err_set(NULL, e->code, "-"), e);
	}
	if (!ret)
		return 0;
	*ret = NULL;
	return reply.body.size > 0 ? http_reply_json(&reply, ret, e) : 0;
}

static void encode(struct buf *out, const char *text)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789-._~";

	for (; *text; text++) {
		if (strchr(plain, *text))
			(void)buf_putc(out, *text);
		else
			(void)buf_printf(out, "%%%02X", (unsigned int)(unsigned char)*text);
	}
}

int api_path(char out[API_PATH_MAX], struct err *e, const char *format, ...)
{
	CLEANUP_BUF struct buf b = BUF_INIT(API_PATH_MAX - 1);
	va_list args;

	va_start(args, format);
	for (; *format; format++) {
		if (*format != '%') {
			(void)buf_putc(&b, *format);
			continue;
		}
		format++;
		assert(*format == 's');
		encode(&b, va_arg(args, const char *));
	}
	va_end(args);
	if (buf_error(&b) < 0)
		return err_set(e, ERR_INVALID, "a name in the request is too long");
	(void)snprintf(out, API_PATH_MAX, "%s", buf_text(&b));
	return 0;
}

int print_json(json_t *j, struct err *e)
{
	int r = j ? json_dumpf(j, stdout, JSON_INDENT(2)) : -1;

	json_decref(j);
	(void)putchar('\n');
	return r < 0 ? err_set(e, ERR_INTERNAL, "out of memory while printing") : 0;
}

void json_text(const json_t *j, const char *path, char *out, size_t size)
{
	while (j && *path) {
		size_t n = strcspn(path, ".");
		char name[64];
		uint64_t index;

		(void)snprintf(name, sizeof(name), "%.*s", (int)n, path);
		if (json_is_array(j))
			j = parse_u64(name, SIZE_MAX, &index) == 0 ? json_array_get(j, index)
								   : NULL;
		else
			j = json_object_get(j, name);
		path += n;
		path += *path == '.';
	}
	if (json_is_string(j) && *json_string_value(j))
		(void)snprintf(out, size, "%s", json_string_value(j));
	else if (json_is_integer(j))
		(void)snprintf(out, size, "%" JSON_INTEGER_FORMAT, json_integer_value(j));
	else if (json_is_boolean(j))
		(void)snprintf(out, size, "%s", json_is_true(j) ? "yes" : "no");
	else
		(void)snprintf(out, size, "-");
}

bool progress_wanted(void)
{
	return isatty(STDERR_FILENO) == 1;
}

void progress(const char *format, ...)
{
	va_list args;

	if (!progress_wanted())
		return;
	(void)fputs("\r\033[K", stderr);
	va_start(args, format);
	(void)vfprintf(stderr, format, args);
	va_end(args);
	(void)fflush(stderr);
}
