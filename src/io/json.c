/* SPDX-License-Identifier: Apache-2.0 */
#include "io/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

/* Longest JSON Pointer that an error shows; a longer one is cut. */
#define POINTER_MAX 160

/*
 * Jansson's own depth limit is fixed when it is built, and is 2048 stack frames deep; so brackets
 * are counted first. Strings are skipped; whether the text is JSON is left to the parser.
 */
static bool deeper_than(const char *text, size_t n, unsigned int max)
{
	unsigned int depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < n; i++) {
		char c = text[i];

		if (quoted) {
			if (c == '\\')
				i++;
			else if (c == '"')
				quoted = false;
			continue;
		}
		if (c == '"')
			quoted = true;
		else if ((c == '[' || c == '{') && ++depth > max)
			return true;
		else if ((c == ']' || c == '}') && depth > 0)
			depth--;
	}
	return false;
}

int json_parse(
	const void *bytes, size_t n, const struct json_limits *limits, json_t **ret, struct err *e)
{
	struct json_limits l = limits ? *limits : (struct json_limits){0};
	json_error_t error;
	json_t *value;

	if (l.max_bytes == 0)
		l.max_bytes = JSON_BYTES_DEFAULT;
	if (l.max_depth == 0)
		l.max_depth = JSON_DEPTH_DEFAULT;
	if (n > l.max_bytes)
		return err_set(e, ERR_TOO_LARGE, "JSON document of %zu bytes: at most %zu", n,
			l.max_bytes);
	if (n == 0)
		return err_set(e, ERR_USAGE, "a JSON document is expected, not an empty one");
	/* Jansson takes a NUL between tokens for nothing at all. */
	if (memchr(bytes, '\0', n))
		return err_set(e, ERR_USAGE, "not JSON: it holds a NUL byte");
	if (deeper_than(bytes, n, l.max_depth))
		return err_set(e, ERR_INVALID, "JSON nested more than %u deep", l.max_depth);
	value = json_loadb(bytes, n, JSON_REJECT_DUPLICATES, &error);
	if (!value && l.big_integers && json_error_code(&error) == json_error_numeric_overflow)
		value = json_loadb(
			bytes, n, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
	if (!value)
		return err_set(e, ERR_USAGE, "not JSON: line %d, column %d: %s", error.line,
			error.column, error.text);
	*ret = value;
	return 0;
}

static const char *type_name(const json_t *value)
{
	if (!value)
		return "nothing";
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
		return "an integer";
	case JSON_REAL:
		return "a fractional number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	case JSON_NULL:
		break;
	}
	return "null";
}

/* The checks proper: `where` is the JSON Pointer that an error names. */

static int check_type(
	const json_t *value, const char *where, bool fits, const char *wanted, struct err *e)
{
	if (fits)
		return 0;
	return err_set(
		e, ERR_INVALID, "field %s must be %s, not %s", where, wanted, type_name(value));
}

static int check_string(
	const json_t *value, const char *where, int64_t min, int64_t max, struct err *e)
{
	int r = check_type(value, where, json_is_string(value), "a string", e);
	size_t n;

	if (r < 0)
		return r;
	n = json_string_length(value);
	if ((int64_t)n < min || (int64_t)n > max)
		return err_set(e, ERR_INVALID,
			"field %s must be %" PRId64 " to %" PRId64 " bytes long, not %zu", where,
			min, max, n);
	return 0;
}

static int check_integer(
	const json_t *value, const char *where, int64_t min, int64_t max, struct err *e)
{
	int r = check_type(value, where, json_is_integer(value), "an integer", e);
	json_int_t v;

	if (r < 0)
		return r;
	v = json_integer_value(value);
	if (v < min || v > max)
		return err_set(e, ERR_INVALID,
			"field %s must be %" PRId64 " to %" PRId64 ", not %" JSON_INTEGER_FORMAT,
			where, min, max, v);
	return 0;
}

static int check_array(
	const json_t *value, const char *where, int64_t min, int64_t max, struct err *e)
{
	int r = check_type(value, where, json_is_array(value), "an array", e);
	size_t n;

	if (r < 0)
		return r;
	n = json_array_size(value);
	if ((int64_t)n < min || (int64_t)n > max)
		return err_set(e, ERR_INVALID,
			"field %s must have %" PRId64 " to %" PRId64 " items, not %zu", where, min,
			max, n);
	return 0;
}

/*
 * Finds a field: 1 when there, 0 when missing, an error when it is required or when the thing
 * that should hold it is no object. where: POINTER_MAX bytes.
 */
static int find(const json_t *object, const char *name, bool required, char *where,
	const json_t **ret, struct err *e)
{
	(void)snprintf(where, POINTER_MAX, "/%s", name);
	if (!json_is_object(object))
		return err_set(e, ERR_INVALID, "an object with field %s is expected", where);
	*ret = json_object_get(object, name);
	if (*ret)
		return 1;
	if (required)
		return err_set(e, ERR_INVALID, "field %s is missing", where);
	return 0;
}

static int get_string(const json_t *object, const char *name, size_t max, bool required,
	const char **ret, struct err *e)
{
	char where[POINTER_MAX];
	const json_t *value = NULL;
	int r = find(object, name, required, where, &value, e);

	if (r <= 0)
		return r;
	r = check_string(value, where, 0, (int64_t)MIN(max, (size_t)INT64_MAX), e);
	if (r < 0)
		return r;
	*ret = json_string_value(value);
	return 1;
}

int json_get_string(
	const json_t *object, const char *name, size_t max, const char **ret, struct err *e)
{
	return MIN(get_string(object, name, max, true, ret, e), 0);
}

int json_get_string_or(const json_t *object, const char *name, size_t max, const char *fallback,
	const char **ret, struct err *e)
{
	int r = get_string(object, name, max, false, ret, e);

	if (r == 0)
		*ret = fallback;
	return MIN(r, 0);
}

static int get_integer(const json_t *object, const char *name, int64_t min, int64_t max,
	bool required, int64_t *ret, struct err *e)
{
	char where[POINTER_MAX];
	const json_t *value = NULL;
	int r = find(object, name, required, where, &value, e);

	if (r <= 0)
		return r;
	r = check_integer(value, where, min, max, e);
	if (r < 0)
		return r;
	*ret = json_integer_value(value);
	return 1;
}

int json_get_integer(const json_t *object, const char *name, int64_t min, int64_t max, int64_t *ret,
	struct err *e)
{
	return MIN(get_integer(object, name, min, max, true, ret, e), 0);
}

int json_get_integer_or(const json_t *object, const char *name, int64_t min, int64_t max,
	int64_t fallback, int64_t *ret, struct err *e)
{
	int r = get_integer(object, name, min, max, false, ret, e);

	if (r == 0)
		*ret = fallback;
	return MIN(r, 0);
}

static int get_boolean(
	const json_t *object, const char *name, bool required, bool *ret, struct err *e)
{
	char where[POINTER_MAX];
	const json_t *value = NULL;
	int r = find(object, name, required, where, &value, e);

	if (r <= 0)
		return r;
	r = check_type(value, where, json_is_boolean(value), "a boolean", e);
	if (r < 0)
		return r;
	*ret = json_is_true(value);
	return 1;
}

int json_get_boolean(const json_t *object, const char *name, bool *ret, struct err *e)
{
	return MIN(get_boolean(object, name, true, ret, e), 0);
}

int json_get_boolean_or(
	const json_t *object, const char *name, bool fallback, bool *ret, struct err *e)
{
	int r = get_boolean(object, name, false, ret, e);

	if (r == 0)
		*ret = fallback;
	return MIN(r, 0);
}

static int get_object(
	const json_t *object, const char *name, bool required, const json_t **ret, struct err *e)
{
	char where[POINTER_MAX];
	const json_t *value = NULL;
	int r = find(object, name, required, where, &value, e);

	if (r <= 0)
		return r;
	r = check_type(value, where, json_is_object(value), "an object", e);
	if (r < 0)
		return r;
	*ret = value;
	return 1;
}

int json_get_object(const json_t *object, const char *name, const json_t **ret, struct err *e)
{
	return MIN(get_object(object, name, true, ret, e), 0);
}

int json_get_object_or_null(
	const json_t *object, const char *name, const json_t **ret, struct err *e)
{
	int r = get_object(object, name, false, ret, e);

	if (r == 0)
		*ret = NULL;
	return MIN(r, 0);
}

static int get_array(const json_t *object, const char *name, size_t max, bool required,
	const json_t **ret, struct err *e)
{
	char where[POINTER_MAX];
	const json_t *value = NULL;
	int r = find(object, name, required, where, &value, e);

	if (r <= 0)
		return r;
	r = check_array(value, where, 0, (int64_t)MIN(max, (size_t)INT64_MAX), e);
	if (r < 0)
		return r;
	*ret = value;
	return 1;
}

int json_get_array(
	const json_t *object, const char *name, size_t max, const json_t **ret, struct err *e)
{
	return MIN(get_array(object, name, max, true, ret, e), 0);
}

int json_get_array_or_null(
	const json_t *object, const char *name, size_t max, const json_t **ret, struct err *e)
{
	int r = get_array(object, name, max, false, ret, e);

	if (r == 0)
		*ret = NULL;
	return MIN(r, 0);
}

int json_only_fields(const json_t *object, const char *const *names, size_t n, struct err *e)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)object, key, value)
	{
		size_t i = 0;

		while (i < n && strcmp(names[i], key) != 0)
			i++;
		if (i == n)
			return err_set(e, ERR_INVALID, "field /%.64s is not known here", key);
	}
	return 0;
}

static int check_object(
	const json_t *value, const char *where, const struct json_field *fields, struct err *e);

static int check_choice(
	const json_t *value, const char *where, const char *const *choices, struct err *e)
{
	int r = check_type(value, where, json_is_string(value), "a string", e);
	char list[160] = "";
	size_t used = 0;

	if (r < 0)
		return r;
	for (size_t i = 0; choices[i]; i++) {
		if (!strcmp(choices[i], json_string_value(value)))
			return 0;
		if (used < sizeof(list))
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
				i ? ", " : "", choices[i]);
	}
	return err_set(e, ERR_INVALID, "field %s must be one of: %s", where, list);
}

static int check_items(
	const json_t *array, const char *where, const struct json_field *item, struct err *e);

/* The schema's depth bounds the recursion from here through objects and arrays. */
static int check_field(/* NOLINT(misc-no-recursion) */
	const json_t *value, const char *where, const struct json_field *f, struct err *e)
{
	int r;

	switch (f->type) {
	case JSON_FIELD_STRING:
		return check_string(value, where, f->min, f->max, e);
	case JSON_FIELD_NAME:
		r = check_type(value, where, json_is_string(value), "a string", e);
		if (r == 0 && !name_valid(json_string_value(value)))
			r = err_set(
				e, ERR_INVALID, "field %s must be a name: %s", where, name_rule);
		return r;
	case JSON_FIELD_CHOICE:
		return check_choice(value, where, f->choices, e);
	case JSON_FIELD_INTEGER:
		return check_integer(value, where, f->min, f->max, e);
	case JSON_FIELD_BOOLEAN:
		return check_type(value, where, json_is_boolean(value), "a boolean", e);
	case JSON_FIELD_OBJECT:
		if (f->fields)
			return check_object(value, where, f->fields, e);
		r = check_type(value, where, json_is_object(value), "an object", e);
		if (r == 0 && (int64_t)json_object_size(value) > f->max)
			r = err_set(e, ERR_INVALID, "field %s may have %" PRId64 " fields, not %zu",
				where, f->max, json_object_size(value));
		return r;
	case JSON_FIELD_ARRAY:
		r = check_array(value, where, f->min, f->max, e);
		return r < 0 || !f->items ? r : check_items(value, where, f->items, e);
	case JSON_FIELD_TYPES:
		break;
	}
	return err_set(e, ERR_INTERNAL, "field %s has an unknown type in its table", where);
}

static int check_items(/* NOLINT(misc-no-recursion) */
	const json_t *array, const char *where, const struct json_field *item, struct err *e)
{
	char inner[POINTER_MAX];
	int r = 0;

	for (size_t i = 0; r == 0 && i < json_array_size(array); i++) {
		(void)snprintf(inner, sizeof(inner), "%.*s/%zu", POINTER_MAX - 32, where, i);
		r = check_field(json_array_get(array, i), inner, item, e);
	}
	return r;
}

static int check_object(/* NOLINT(misc-no-recursion) */
	const json_t *value, const char *where, const struct json_field *fields, struct err *e)
{
	const char *key;
	json_t *inner;

	if (!json_is_object(value))
		return err_set(e, ERR_INVALID, "%s must be an object, not %s",
			*where ? where : "the body", type_name(value));
	json_object_foreach((json_t *)value, key, inner)
	{
		const struct json_field *f = fields;
		char name[POINTER_MAX];
		int r;

		while (f->name && strcmp(f->name, key) != 0)
			f++;
		(void)snprintf(name, sizeof(name), "%.*s/%.64s", POINTER_MAX - 67, where, key);
		if (!f->name)
			return err_set(e, ERR_INVALID, "field %s is not known here", name);
		r = check_field(inner, name, f, e);
		if (r < 0)
			return r;
	}
	for (const struct json_field *f = fields; f->name; f++)
		if (f->required && !json_object_get(value, f->name))
			return err_set(e, ERR_INVALID, "field %s/%s is missing", where, f->name);
	return 0;
}

int json_check(const json_t *value, const struct json_field *fields, struct err *e)
{
	return check_object(value, "", fields, e);
}

static const char *const schema_types[] = {
#define X(constant, type, bounds) [constant] = (type),
	JSON_FIELD_TABLE(X)
#undef X
};
static_assert(ARRAY_SIZE(schema_types) == JSON_FIELD_TYPES, "one JSON type per field type");

static int put_bounds(
	json_t *out, int64_t min, int64_t max, const char *min_name, const char *max_name)
{
	if (json_object_set_new(out, min_name, json_integer(min)) < 0 ||
		json_object_set_new(out, max_name, json_integer(max)) < 0)
		return -ENOMEM;
	return 0;
}

static int put_choices(json_t *out, const char *const *choices)
{
	json_t *list = json_array();

	if (json_object_set_new(out, "enum", list) < 0)
		return -ENOMEM;
	for (; *choices; choices++)
		if (json_array_append_new(list, json_string(*choices)) < 0)
			return -ENOMEM;
	return 0;
}

static json_t *schema_of_field(const struct json_field *f);

/* Adds what is particular to the type. */
static int put_particulars(json_t *out, const struct json_field *f) /* NOLINT(misc-no-recursion) */
{
	switch (f->type) {
	case JSON_FIELD_STRING:
		/* These count characters, of which a string of min bytes may have fewer. */
		return put_bounds(out, MIN(f->min, 1), f->max, "minLength", "maxLength");
	case JSON_FIELD_NAME:
		return json_object_set_new(
			out, "pattern", json_string("^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"));
	case JSON_FIELD_CHOICE:
		return put_choices(out, f->choices);
	case JSON_FIELD_INTEGER:
		return put_bounds(out, f->min, f->max, "minimum", "maximum");
	case JSON_FIELD_OBJECT:
		return json_object_set_new(out, "maxProperties", json_integer(f->max));
	case JSON_FIELD_ARRAY:
		if (f->items && json_object_set_new(out, "items", schema_of_field(f->items)) < 0)
			return -ENOMEM;
		return put_bounds(out, f->min, f->max, "minItems", "maxItems");
	case JSON_FIELD_BOOLEAN:
	case JSON_FIELD_TYPES:
		break;
	}
	return 0;
}

static json_t *schema_of_field(const struct json_field *f) /* NOLINT(misc-no-recursion) */
{
	bool described = f->type == JSON_FIELD_OBJECT && f->fields;
	CLEANUP_JSON json_t *out = described ? json_schema(f->fields)
					     : json_pack("{s:s}", "type", schema_types[f->type]);

	if (!out)
		return NULL;
	if (!described && put_particulars(out, f) < 0)
		return NULL;
	if (f->description &&
		json_object_set_new(out, "description", json_string(f->description)) < 0)
		return NULL;
	return TAKE_PTR(out);
}

json_t *json_schema(const struct json_field *fields) /* NOLINT(misc-no-recursion) */
{
	CLEANUP_JSON json_t *out = json_pack("{s:s, s:b, s:{}, s:[]}", "type", "object",
		"additionalProperties", 0, "properties", "required");
	json_t *properties, *required;

	if (!out)
		return NULL;
	properties = json_object_get(out, "properties");
	required = json_object_get(out, "required");
	for (; fields->name; fields++) {
		if (json_object_set_new(properties, fields->name, schema_of_field(fields)) < 0)
			return NULL;
		if (fields->required &&
			json_array_append_new(required, json_string(fields->name)) < 0)
			return NULL;
	}
	return TAKE_PTR(out);
}

/* A message may quote bytes of any kind, or have been cut within a character. */
static json_t *lenient_string(const char *s)
{
	json_t *value = json_string(s);
	char plain[sizeof(((struct err *)NULL)->message)];
	size_t n;

	if (value)
		return value;
	for (n = 0; n < sizeof(plain) - 1 && s[n]; n++)
		plain[n] = (unsigned char)s[n] < 0x80 ? s[n] : '?';
	plain[n] = '\0';
	return json_string(plain);
}

json_t *json_from_err(const struct err *e)
{
	CLEANUP_JSON json_t *out = json_pack("{s:{s:s}}", "error", "code", err_name(e->code));
	json_t *error = json_object_get(out, "error");

	if (json_object_set_new(error, "message", lenient_string(e->message)) < 0)
		return NULL;
	if (e->hint[0] && json_object_set_new(error, "hint", lenient_string(e->hint)) < 0)
		return NULL;
	return TAKE_PTR(out);
}

int json_to_err(const json_t *value, struct err *e)
{
	const json_t *error = json_object_get(value, "error");
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *message = json_string_value(json_object_get(error, "message"));
	const char *hint = json_string_value(json_object_get(error, "hint"));

	if (!code || !message)
		return -EBADMSG;
	(void)err_set(e, err_from_name(code), "%s", message);
	if (hint)
		(void)err_hint(e, "%s", hint);
	return 0;
}
