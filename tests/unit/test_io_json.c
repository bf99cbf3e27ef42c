/* SPDX-License-Identifier: Apache-2.0 */
#include "io/json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "unit.h"

static int parse(const char *text, json_t **ret, struct err *e)
{
	return json_parse(text, strlen(text), NULL, ret, e);
}

static void documents_are_parsed_and_bad_ones_say_where(void **state)
{
	static const struct {
		const char *text;
		enum err_code code;
		const char *says;
	} bad[] = {
		{"", ERR_USAGE, "empty"},
		{"{", ERR_USAGE, "line 1, column 1"},
		{"{\n \"a\": tru}", ERR_USAGE, "line 2, column 9"},
		{"{\"a\":1,\"a\":2}", ERR_USAGE, "duplicate"},
		{"{} {}", ERR_USAGE, "end of file expected"},
		{"{\"a\":\"x\\u0000y\"}", ERR_USAGE, "\\u0000"},
		{"{\"a\":\"\xff\"}", ERR_USAGE, "unable to decode byte 0xff"},
		{"1", ERR_USAGE, "'[' or '{' expected"},
		{"[18446744073709551615]", ERR_USAGE, "too big integer"},
		{"[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]", ERR_INVALID, "more than 16 deep"},
	};
	CLEANUP_JSON json_t *value = NULL;
	struct err e;

	(void)state;
	assert_ok(parse("[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]", &value, &e));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *none = NULL;

		assert_true(parse(bad[i].text, &none, &e) < 0);
		assert_null(none);
		assert_int_equal(e.code, bad[i].code);
		if (!strstr(e.message, bad[i].says))
			fail_msg("%s: %s", bad[i].text, e.message);
	}
	assert_true(json_parse("[1\0]", 4, NULL, &value, &e) < 0);
}

static void limits_are_kept(void **state)
{
	const struct json_limits small = {.max_bytes = 8, .max_depth = 2};
	const struct json_limits big = {.big_integers = true};
	CLEANUP_JSON json_t *value = NULL, *reals = NULL, *quoted = NULL;
	struct err e;

	(void)state;
	assert_ok(json_parse("[[1234]]", 8, &small, &value, &e));
	assert_true(json_parse("[[12345]]", 9, &small, &value, &e) < 0);
	assert_int_equal(e.code, ERR_TOO_LARGE);
	assert_true(json_parse("[[[]]]", 6, &small, &value, &e) < 0);
	assert_int_equal(e.code, ERR_INVALID);
	/* Brackets in strings nest nothing, also behind escaped quotes. */
	assert_ok(json_parse("[\"\\\"[[\"]", 8, &small, &quoted, &e));
	assert_ok(json_parse("[18446744073709551615, 7]", 25, &big, &reals, &e));
	assert_true(json_number_value(json_array_get(reals, 0)) > 1.8e19);
	assert_true(json_number_value(json_array_get(reals, 1)) == 7);
}

static void fields_are_fetched_with_type_and_range(void **state)
{
	CLEANUP_JSON json_t *v = NULL;
	const json_t *inner;
	const char *s = "untouched";
	int64_t i = -1;
	bool b = false;
	struct err e;

	(void)state;
	assert_ok(parse(
		"{\"s\":\"text\",\"i\":5,\"b\":true,\"o\":{},\"a\":[1,2],\"n\":null,\"r\":1.5}", &v,
		&e));
	assert_true(json_get_string(v, "s", 3, &s, &e) < 0);
	assert_string_equal(e.message, "field /s must be 0 to 3 bytes long, not 4");
	assert_string_equal(s, "untouched");
	assert_ok(json_get_string(v, "s", 4, &s, &e));
	assert_string_equal(s, "text");
	assert_int_equal(json_get_string(v, "x", 4, &s, &e), -EINVAL);
	assert_string_equal(e.message, "field /x is missing");
	assert_true(json_get_string(v, "n", 4, &s, &e) < 0);
	assert_string_equal(e.message, "field /n must be a string, not null");
	assert_ok(json_get_string_or(v, "x", 4, "else", &s, &e));
	assert_string_equal(s, "else");
	assert_true(json_get_string_or(v, "i", 4, "else", &s, &e) < 0);

	assert_true(json_get_integer(v, "i", 6, 9, &i, &e) < 0);
	assert_string_equal(e.message, "field /i must be 6 to 9, not 5");
	assert_true(json_get_integer(v, "r", 0, 9, &i, &e) < 0);
	assert_string_equal(e.message, "field /r must be an integer, not a fractional number");
	assert_int_equal(i, -1);
	assert_ok(json_get_integer(v, "i", 5, 5, &i, &e));
	assert_int_equal(i, 5);
	assert_ok(json_get_integer_or(v, "x", 0, 9, 7, &i, &e));
	assert_int_equal(i, 7);

	assert_ok(json_get_boolean(v, "b", &b, &e));
	assert_true(b);
	assert_true(json_get_boolean(v, "i", &b, &e) < 0);
	assert_ok(json_get_boolean_or(v, "x", false, &b, &e));
	assert_false(b);

	assert_ok(json_get_object(v, "o", &inner, &e));
	assert_true(json_get_object(v, "a", &inner, &e) < 0);
	assert_ok(json_get_object_or_null(v, "x", &inner, &e));
	assert_null(inner);
	assert_true(json_get_array(v, "a", 1, &inner, &e) < 0);
	assert_ok(json_get_array(v, "a", 2, &inner, &e));
	assert_int_equal(json_array_size(inner), 2);
	assert_ok(json_get_array_or_null(v, "x", 2, &inner, &e));
	assert_null(inner);
	assert_true(json_get_string(inner, "s", 4, &s, &e) < 0);
	assert_string_equal(e.message, "an object with field /s is expected");
}

static void unknown_fields_are_named(void **state)
{
	static const char *const known[] = {"a", "b"};
	CLEANUP_JSON json_t *v = NULL;
	struct err e;

	(void)state;
	assert_ok(parse("{\"a\":1,\"c\":2}", &v, &e));
	assert_true(json_only_fields(v, known, 2, &e) < 0);
	assert_string_equal(e.message, "field /c is not known here");
	assert_ok(json_object_del(v, "c"));
	assert_ok(json_only_fields(v, known, 2, &e));
}

static const char *const policies[] = {"stop", "go", NULL};
static const struct json_field disk[] = {
	{"size", JSON_FIELD_INTEGER, JSON_REQUIRED, 1, 1000, "Size in GiB."},
	{"readonly", JSON_FIELD_BOOLEAN, JSON_OPTIONAL, 0, 0, "Whether writes are refused."},
	{0},
};
static const struct json_field one_disk = {
	.type = JSON_FIELD_OBJECT, .description = "A disk.", .fields = disk};
static const struct json_field machine[] = {
	{"name", JSON_FIELD_NAME, JSON_REQUIRED, 0, 0, "The machine's name."},
	{"note", JSON_FIELD_STRING, JSON_OPTIONAL, 2, 8, "Free text."},
	{"policy", JSON_FIELD_CHOICE, JSON_OPTIONAL, 0, 0, "What to do.", .choices = policies},
	{"disks", JSON_FIELD_ARRAY, JSON_OPTIONAL, 0, 2, "Its disks.", .items = &one_disk},
	{"labels", JSON_FIELD_OBJECT, JSON_OPTIONAL, 0, 2, "Anything."},
	{0},
};

static void tables_validate(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"{\"name\":\"web-1\"}", NULL},
		{"{\"name\":\"web-1\",\"note\":\"\xc3\xa4\",\"policy\":\"go\",\"labels\":{\"a\":[]}"
		 ","
		 "\"disks\":[{\"size\":1},{\"size\":2,\"readonly\":true}]}",
			NULL},
		{"[]", "the body must be an object, not an array"},
		{"{}", "field /name is missing"},
		{"{\"name\":1}", "field /name must be a string, not an integer"},
		{"{\"name\":\"../x\"}", "field /name must be a name: 1 to 63"},
		{"{\"name\":\"a\",\"nmae\":\"b\"}", "field /nmae is not known here"},
		{"{\"name\":\"a\",\"note\":\"123456789\"}",
			"field /note must be 2 to 8 bytes long, not 9"},
		{"{\"name\":\"a\",\"policy\":\"run\"}", "field /policy must be one of: stop, go"},
		{"{\"name\":\"a\",\"disks\":[{},{},{}]}",
			"field /disks must have 0 to 2 items, not 3"},
		{"{\"name\":\"a\",\"disks\":[{\"size\":1},{\"size\":0}]}",
			"field /disks/1/size must be 1 to 1000, not 0"},
		{"{\"name\":\"a\",\"disks\":[{}]}", "field /disks/0/size is missing"},
		{"{\"name\":\"a\",\"disks\":[{\"size\":1,\"x\":0}]}",
			"field /disks/0/x is not known here"},
		{"{\"name\":\"a\",\"disks\":[{\"size\":1,\"readonly\":1}]}",
			"field /disks/0/readonly must be a boolean, not an integer"},
		{"{\"name\":\"a\",\"disks\":[null]}", "/disks/0 must be an object, not null"},
		{"{\"name\":\"a\",\"labels\":{\"1\":1,\"2\":2,\"3\":3}}",
			"field /labels may have 2 fields, not 3"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP_JSON json_t *v = NULL;
		struct err e = {0};

		assert_ok(parse(cases[i].text, &v, &e));
		if (!cases[i].says) {
			if (json_check(v, machine, &e) < 0)
				fail_msg("%s: %s", cases[i].text, e.message);
			continue;
		}
		assert_int_equal(json_check(v, machine, &e), -EINVAL);
		if (strncmp(e.message, cases[i].says, strlen(cases[i].says)) != 0)
			fail_msg("%s: %s", cases[i].text, e.message);
	}
}

static void tables_become_json_schema(void **state)
{
	static const char expected[] =
		"{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"
		"\"name\":{\"type\":\"string\",\"pattern\":\"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$\","
		"\"description\":\"The machine's name.\"},"
		"\"note\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":8,"
		"\"description\":\"Free text.\"},"
		"\"policy\":{\"type\":\"string\",\"enum\":[\"stop\",\"go\"],"
		"\"description\":\"What to do.\"},"
		"\"disks\":{\"type\":\"array\",\"items\":{\"type\":\"object\","
		"\"additionalProperties\":false,\"properties\":{"
		"\"size\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":1000,"
		"\"description\":\"Size in GiB.\"},"
		"\"readonly\":{\"type\":\"boolean\",\"description\":\"Whether writes are "
		"refused.\"}},"
		"\"required\":[\"size\"],\"description\":\"A disk.\"},"
		"\"minItems\":0,\"maxItems\":2,\"description\":\"Its disks.\"},"
		"\"labels\":{\"type\":\"object\",\"maxProperties\":2,"
		"\"description\":\"Anything.\"}},\"required\":[\"name\"]}";
	CLEANUP_JSON json_t *schema = json_schema(machine);
	CLEANUP_FREE char *text = json_dumps(schema, JSON_COMPACT | JSON_PRESERVE_ORDER);

	(void)state;
	assert_non_null(text);
	assert_string_equal(text, expected);
}

static void errors_survive_the_round_trip(void **state)
{
	CLEANUP_JSON json_t *body = NULL, *cut = NULL, *other = NULL;
	struct err e, back = {0};

	(void)state;
	(void)err_set(&e, ERR_NO_CAPACITY, "no host has room");
	(void)err_hint(&e, "add a host");
	body = json_from_err(&e);
	assert_ok(json_to_err(body, &back));
	assert_int_equal(back.code, ERR_NO_CAPACITY);
	assert_string_equal(back.message, e.message);
	assert_string_equal(back.hint, e.hint);
	/* A message cut within a character still makes a body. */
	(void)err_set(&e, ERR_INVALID, "cut \xc3");
	cut = json_from_err(&e);
	assert_ok(json_to_err(cut, &back));
	assert_string_equal(back.message, "cut ?");
	assert_string_equal(back.hint, "");
	assert_ok(parse("{\"error\":\"x\"}", &other, NULL));
	assert_int_equal(json_to_err(other, &back), -EBADMSG);
	assert_int_equal(json_to_err(NULL, &back), -EBADMSG);
	assert_string_equal(back.message, "cut ?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(documents_are_parsed_and_bad_ones_say_where),
		cmocka_unit_test(limits_are_kept),
		cmocka_unit_test(fields_are_fetched_with_type_and_range),
		cmocka_unit_test(unknown_fields_are_named),
		cmocka_unit_test(tables_validate),
		cmocka_unit_test(tables_become_json_schema),
		cmocka_unit_test(errors_survive_the_round_trip),
	};

	return cmocka_run_group_tests_name("io_json", tests, NULL, NULL);
}
