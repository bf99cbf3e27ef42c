/* SPDX-License-Identifier: Apache-2.0 */
#include "sosied/routes.h"

#include <string.h>

const struct route routes[ROUTES] = {
#define X(name_, method_, path_, access_, schema_, status_, flags_, summary_, answer_)        \
	[ROUTE_ID_##name_] = {#name_, path_, HTTP_##method_, access_, route_##name_, schema_, \
		status_, flags_, summary_, answer_},
	ROUTE_TABLE(X)
#undef X
};

static bool match(const char *pattern, const char *path, char params[PARAMS_MAX][PARAM_SIZE])
{
	unsigned int n = 0;

	while (*pattern) {
		size_t length = strcspn(path, "/");

		if (*pattern != '{') {
			if (*pattern++ != *path++)
				return false;
			continue;
		}
		assert(n < PARAMS_MAX);
		if (length == 0 || length >= PARAM_SIZE)
			return false;
		memcpy(params[n], path, length);
		params[n++][length] = '\0';
		path += length;
		pattern = strchr(pattern, '}') + 1;
	}
	return *path == '\0';
}

const struct route *route_find(enum http_method method, const char *path,
	char params[PARAMS_MAX][PARAM_SIZE], bool *ret_elsewhere)
{
	if (method == HTTP_HEAD)
		method = HTTP_GET;
	*ret_elsewhere = false;
	for (size_t i = 0; i < ROUTES; i++) {
		if (!match(routes[i].path, path, params))
			continue;
		if (routes[i].method == method)
			return &routes[i];
		*ret_elsewhere = true;
	}
	return NULL;
}
