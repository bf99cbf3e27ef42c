/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	int http;
	int status;
	const char *meaning;
} table[] = {
#define X(constant, name, http, status, meaning) [constant] = {name, http, status, meaning},
	ERR_TABLE(X)
#undef X
};
static_assert(ARRAY_SIZE(table) == ERR_CODES, "one row per error code");

static int to_errno(enum err_code code)
{
	switch (code) {
	case ERR_NONE:
		return 0;
	case ERR_USAGE:
	case ERR_INVALID:
		return -EINVAL;
	case ERR_NOT_FOUND:
		return -ENOENT;
	case ERR_CONFLICT:
		return -EEXIST;
	case ERR_UNAUTHENTICATED:
	case ERR_FORBIDDEN:
		return -EACCES;
	case ERR_TOO_LARGE:
		return -E2BIG;
	case ERR_LIMIT:
		return -EDQUOT;
	case ERR_NO_CAPACITY:
		return -ENOSPC;
	case ERR_UNAVAILABLE:
		return -ECONNREFUSED;
	case ERR_TIMEOUT:
		return -ETIMEDOUT;
	case ERR_CORRUPT:
		return -EBADMSG;
	case ERR_VERSION:
		return -EPROTONOSUPPORT;
	case ERR_INTERNAL:
	case ERR_CODES:
		break;
	}
	return -EIO;
}

static enum err_code from_errno(int r)
{
	switch (-r) {
	case ENOENT:
		return ERR_NOT_FOUND;
	case EEXIST:
	case EBUSY:
		return ERR_CONFLICT;
	case EACCES:
	case EPERM:
		return ERR_FORBIDDEN;
	case ENOSPC:
	case EDQUOT:
		return ERR_NO_CAPACITY;
	case EINVAL:
		return ERR_INVALID;
	case ETIMEDOUT:
		return ERR_TIMEOUT;
	case ECONNREFUSED:
	case ECONNRESET:
	case EPIPE:
		return ERR_UNAVAILABLE;
	default:
		return ERR_INTERNAL;
	}
}

int err_set(struct err *e, enum err_code code, const char *format, ...)
{
	va_list args;

	if (!e)
		return to_errno(code);
	e->code = code;
	e->hint[0] = '\0';
	va_start(args, format);
	(void)vsnprintf(e->message, sizeof(e->message), format, args);
	va_end(args);
	return to_errno(code);
}

int err_hint(struct err *e, const char *format, ...)
{
	va_list args;

	if (!e)
		return -EIO;
	va_start(args, format);
	(void)vsnprintf(e->hint, sizeof(e->hint), format, args);
	va_end(args);
	return to_errno(e->code);
}

int err_errno(struct err *e, int r, const char *format, ...)
{
	va_list args;
	size_t used;

	if (!e)
		return r;
	e->code = from_errno(r);
	e->hint[0] = '\0';
	va_start(args, format);
	(void)vsnprintf(e->message, sizeof(e->message), format, args);
	va_end(args);
	used = strlen(e->message);
	(void)snprintf(e->message + used, sizeof(e->message) - used, ": %s", strerror(-r));
	if (r == -ENOSPC)
		(void)snprintf(e->hint, sizeof(e->hint), "free some disk space and try again");
	return r;
}

const char *err_name(enum err_code code)
{
	return (unsigned int)code < ERR_CODES ? table[code].name : table[ERR_INTERNAL].name;
}

enum err_code err_from_name(const char *name)
{
	for (unsigned int i = 0; i < ERR_CODES; i++)
		if (name && !strcmp(table[i].name, name))
			return (enum err_code)i;
	return ERR_INTERNAL;
}

int err_http_status(enum err_code code)
{
	return (unsigned int)code < ERR_CODES ? table[code].http : table[ERR_INTERNAL].http;
}

int err_exit_status(enum err_code code)
{
	return (unsigned int)code < ERR_CODES ? table[code].status : table[ERR_INTERNAL].status;
}

const char *err_meaning(enum err_code code)
{
	return (unsigned int)code < ERR_CODES ? table[code].meaning : table[ERR_INTERNAL].meaning;
}
