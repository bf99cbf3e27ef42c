/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control plane, as commands reach it: by SOSIE_API and SOSIE_TOKEN, or as `sosie up` has left
 * word in STATE/control.json.
 */
#ifndef SOSIE_CLI_API_H
#define SOSIE_CLI_API_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/zalloc.h"
#include "io/http_client.h"

#define API_URL_MAX   512
#define API_TOKEN_MAX 128
#define API_PATH_MAX  1024

struct api {
	char url[API_URL_MAX];
	char unix_path[API_URL_MAX]; /* "" unless SOSIE_API is unix:PATH */
	char token[API_TOKEN_MAX];
	const char *ca_file;
};

/* ERR_UNAVAILABLE with a hint when no control plane is known. */
int api_open(struct api *ret, struct err *e);
/* 1 when one is known, 0 when none is. */
int api_known(struct api *ret, struct err *e);
/* Fills what every call of it has in common; url holds API_URL_MAX + API_PATH_MAX bytes. */
void api_prepare(const struct api *api, const char *path, char *url, struct http_call *ret);
/*
 * One request. body may be NULL and stays the caller's; *ret (which may be NULL) is new, and NULL
 * when the answer has no body.
 */
int api_call(const struct api *api, const char *method, const char *path, const json_t *body,
	json_t **ret, struct err *e);

/*
 * Formats a path; each %s is percent-encoded. Only %s is known. ERR_INVALID when it is too long.
 */
int api_path(char out[API_PATH_MAX], struct err *e, const char *format, ...) PRINTF(3, 4);

/* Prints the value and drops it. NULL: out of memory. */
int print_json(json_t *j, struct err *e);
/* A value by a path such as "free.cores" or "nics.0.ip", as text for people; "-" for none. */
void json_text(const json_t *j, const char *path, char *out, size_t size);

/* Standard error is a terminal, and somebody may want to see how it goes. */
bool progress_wanted(void);
/* One line that the next one replaces; "" clears it. Only when wanted. */
void progress(const char *format, ...) PRINTF(1, 2);

#endif
