/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors that people and programs see.
 *
 * Inside, functions return 0 or a negative errno. Where an answer crosses to a person or over the
 * API it is one of the codes of ERR_TABLE, which fixes its name, HTTP status and exit status once,
 * with a sentence saying what is wrong and, where there is one, a hint saying what to do next.
 */
#ifndef SOSIE_BASE_ERR_H
#define SOSIE_BASE_ERR_H

#include "base/macro.h"

/*     constant            name                HTTP exit  meaning (for the manual) */
#define ERR_TABLE(X)                                                                            \
	X(ERR_NONE, "ok", 200, 0, "success")                                                    \
	X(ERR_INTERNAL, "internal", 500, 1, "a defect or an unexpected failure of the system")  \
	X(ERR_USAGE, "usage", 400, 2, "the command line or request is not understood")          \
	X(ERR_INVALID, "invalid", 422, 3, "understood, but a value in it is not acceptable")    \
	X(ERR_NOT_FOUND, "not_found", 404, 4, "no such thing, or not yours to see")             \
	X(ERR_CONFLICT, "conflict", 409, 5, "the thing exists already or is in another state")  \
	X(ERR_UNAUTHENTICATED, "unauthenticated", 401, 6, "no token, or one that is not known") \
	X(ERR_FORBIDDEN, "forbidden", 403, 6, "the token's role does not allow it")             \
	X(ERR_TOO_LARGE, "too_large", 413, 3, "larger than the stated limit")                   \
	X(ERR_LIMIT, "rate_limited", 429, 7, "too many requests or quota used up")              \
	X(ERR_NO_CAPACITY, "no_capacity", 409, 7, "no host, disk or memory with room for it")   \
	X(ERR_UNAVAILABLE, "unavailable", 503, 8, "a service it needs is not reachable")        \
	X(ERR_TIMEOUT, "timeout", 504, 8, "no answer within the time limit")                    \
	X(ERR_CORRUPT, "corrupt", 500, 9, "a file or message fails its checks")                 \
	X(ERR_VERSION, "version", 409, 9, "written by another version of the format")

enum err_code {
#define X(constant, name, http, status, meaning) constant,
	ERR_TABLE(X)
#undef X
		ERR_CODES
};

/* An error with its explanation. Plain value: copy it freely, nothing to free. */
struct err {
	enum err_code code;
	char message[384]; /* one sentence, no full stop, no newline */
	char hint[256];    /* what to do next; may be empty */
};

/* Fills e (which may be NULL) and returns the negative errno that stands for the code. */
int err_set(struct err *e, enum err_code code, const char *format, ...) PRINTF(3, 4);
/* Adds the hint to an error already set. Returns what err_set() returned for it. */
int err_hint(struct err *e, const char *format, ...) PRINTF(2, 3);
/* Sets e from a failed system call: "what: strerror". r is a negative errno. Returns r. */
int err_errno(struct err *e, int r, const char *format, ...) PRINTF(3, 4);

const char *err_name(enum err_code code);
/* The code with that name, or ERR_INTERNAL when there is none. */
enum err_code err_from_name(const char *name);
int err_http_status(enum err_code code);
int err_exit_status(enum err_code code);
const char *err_meaning(enum err_code code);

#endif
