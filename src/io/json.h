/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON from other people: parsed within limits, taken apart with checks, and described by tables
 * that serve both as the validator of a request and as its published JSON Schema.
 *
 * Every failure fills the struct err (which may be NULL) so that it can be shown to the sender as
 * it stands: it names the field by its JSON Pointer and says what was expected.
 * Returned strings and values are borrowed from the document. Thread-safe on different documents.
 */
#ifndef SOSIE_IO_JSON_H
#define SOSIE_IO_JSON_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/macro.h"

#define JSON_BYTES_DEFAULT (1U << 20)
#define JSON_DEPTH_DEFAULT 16

struct json_limits {
	size_t max_bytes;       /* 0: JSON_BYTES_DEFAULT */
	unsigned int max_depth; /* nested arrays and objects; 0: JSON_DEPTH_DEFAULT */
	/*
	 * Integers beyond 64 signed bits are an error, unless this is set: then a document with
	 * one has all its integers as reals. For peers that print unsigned 64-bit numbers.
	 */
	bool big_integers;
};

/*
 * Parses one object or array. Refuses duplicate names, anything behind the document, NUL
 * characters, invalid UTF-8, and what is beyond the limits (NULL: defaults). ERR_USAGE with line
 * and column when it is not JSON, ERR_TOO_LARGE when it is too long, ERR_INVALID when too deep.
 */
int json_parse(
	const void *bytes, size_t n, const struct json_limits *limits, json_t **ret, struct err *e);

DEFINE_CLEANUP(json_t *, json_decref);
#define CLEANUP_JSON CLEANUP(json_decref_p)

/*
 * One field of an object. The plain forms fail with ERR_INVALID when the field is missing; the
 * _or forms then give the fallback. Both fail when it is there and of another type, or out of
 * range; null is a type of its own. Lengths are bytes of UTF-8.
 */
int json_get_string(
	const json_t *object, const char *name, size_t max, const char **ret, struct err *e);
int json_get_string_or(const json_t *object, const char *name, size_t max, const char *fallback,
	const char **ret, struct err *e);
int json_get_integer(const json_t *object, const char *name, int64_t min, int64_t max, int64_t *ret,
	struct err *e);
int json_get_integer_or(const json_t *object, const char *name, int64_t min, int64_t max,
	int64_t fallback, int64_t *ret, struct err *e);
int json_get_boolean(const json_t *object, const char *name, bool *ret, struct err *e);
int json_get_boolean_or(
	const json_t *object, const char *name, bool fallback, bool *ret, struct err *e);
int json_get_object(const json_t *object, const char *name, const json_t **ret, struct err *e);
/* NULL when it is missing. */
int json_get_object_or_null(
	const json_t *object, const char *name, const json_t **ret, struct err *e);
int json_get_array(
	const json_t *object, const char *name, size_t max, const json_t **ret, struct err *e);
int json_get_array_or_null(
	const json_t *object, const char *name, size_t max, const json_t **ret, struct err *e);

/* ERR_INVALID, naming the first, when the object has a field that is not among the n names. */
int json_only_fields(const json_t *object, const char *const *names, size_t n, struct err *e);

/*     constant         JSON type    what min and max bound */
#define JSON_FIELD_TABLE(X)                                               \
	X(JSON_FIELD_STRING, "string", "bytes of UTF-8")                  \
	X(JSON_FIELD_NAME, "string", "unused: name_valid() holds")        \
	X(JSON_FIELD_CHOICE, "string", "unused: one of the choices")      \
	X(JSON_FIELD_INTEGER, "integer", "the value")                     \
	X(JSON_FIELD_BOOLEAN, "boolean", "unused")                        \
	X(JSON_FIELD_OBJECT, "object", "fields, when they are free-form") \
	X(JSON_FIELD_ARRAY, "array", "items")

enum json_field_type {
#define X(constant, type, bounds) constant,
	JSON_FIELD_TABLE(X)
#undef X
		JSON_FIELD_TYPES
};

#define JSON_REQUIRED true
#define JSON_OPTIONAL false

/*
 * A table of these, ended by a row without a name, describes an object. Lengths of strings are
 * checked in bytes; the published minLength and maxLength count characters, of which there are
 * never more, so that what the schema refuses the check refuses too.
 */
struct json_field {
	const char *name;
	enum json_field_type type;
	bool required;
	int64_t min, max;
	const char *description;
	const char *const *choices;      /* CHOICE: the strings, then NULL */
	const struct json_field *fields; /* OBJECT: its fields; NULL: any */
	const struct json_field *items;  /* ARRAY: one row that each item obeys */
};

/* Whether the value is an object as the table says, with no other fields. */
int json_check(const json_t *value, const struct json_field *fields, struct err *e);
/* The same table as a JSON Schema (2020-12, as OpenAPI 3.1 embeds it). NULL when out of memory. */
json_t *json_schema(const struct json_field *fields);

/*
 * The error body of the API, {"error":{"code","message","hint"}}, hint only when there is one.
 * NULL when out of memory.
 */
json_t *json_from_err(const struct err *e);
/*
 * The reverse. 0 and e filled when value is such a body; -EBADMSG otherwise, e untouched.
 */
int json_to_err(const json_t *value, struct err *e);

#endif
