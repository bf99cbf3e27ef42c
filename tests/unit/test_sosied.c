/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/reader.h"
#include "sosied/images.h"
#include "sosied/limit.h"
#include "sosied/routes.h"
#include "unit.h"

static void every_route_says_who_may_use_it(void **state)
{
	char params[PARAMS_MAX][PARAM_SIZE];
	bool elsewhere;

	(void)state;
	for (size_t i = 0; i < ROUTES; i++) {
		const struct route *r = &routes[i];
		enum access a = r->access;

		assert_int_not_equal(a, ACCESS_NOBODY);
		assert_non_null(r->handler);
		assert_true(strncmp(r->path, "/v1/", 4) == 0);
		assert_int_not_equal(strlen(r->summary), 0);
		assert_int_not_equal(strlen(r->answer), 0);
		/* Each finds itself, so that none hides another. */
		assert_ptr_equal(route_find(r->method, r->path, params, &elsewhere), r);
		/* What changes something is not for viewers; only reads are. */
		if (r->flags & ROUTE_WRITES) {
			assert_int_not_equal(r->method, HTTP_GET);
			assert_false(access_granted(a, CALLER_TENANT_VIEWER));
			assert_false(access_granted(a, CALLER_PROVIDER_VIEWER));
		}
		if (!strncmp(r->path, "/v1/agent/", 10))
			assert_false(access_granted(a, CALLER_PROVIDER_ADMIN));
		else if (a != ACCESS_ANYONE)
			assert_false(access_granted(a, CALLER_HOST_AGENT));
		assert_false(access_granted(a, CALLER_NONE));
	}
	assert_null(route_find(HTTP_PUT, "/v1/instances", params, &elsewhere));
	assert_true(elsewhere);
	assert_null(route_find(HTTP_GET, "/v1/instances/", params, &elsewhere));
	assert_null(route_find(HTTP_GET, "/v1/instances/a/b/c/d", params, &elsewhere));
	assert_false(elsewhere);
	assert_non_null(route_find(HTTP_HEAD, "/v1/instances/web-1", params, &elsewhere));
	assert_string_equal(params[0], "web-1");
}

static void the_access_table_grants_nothing_by_default(void **state)
{
	static const struct {
		const char *tenant, *host;
		unsigned int role;
		enum caller caller;
	} cases[] = {
		{"t-1", "", STORE_ROLE_ADMIN, CALLER_TENANT_ADMIN},
		{"", "", STORE_ROLE_ADMIN, CALLER_PROVIDER_ADMIN},
		{"t-1", "", STORE_ROLE_VIEWER, CALLER_TENANT_VIEWER},
		{"", "h-1", STORE_ROLE_AGENT, CALLER_HOST_AGENT},
		{"", "", STORE_ROLE_AGENT, CALLER_NONE},
		{"t-1", "h-1", STORE_ROLE_AGENT, CALLER_NONE},
		{"", "h-1", STORE_ROLE_ADMIN, CALLER_NONE},
		{"", "", STORE_ROLE_JOIN, CALLER_HOST_JOINING},
		{"t-1", "", STORE_ROLE_JOIN, CALLER_NONE},
		{"t-1", "", STORE_ROLE_MEMBER, CALLER_NONE},
		{"", "", 99, CALLER_NONE},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct store_token token = {.role = cases[i].role};

		COPY(token.tenant_id, cases[i].tenant);
		COPY(token.host_id, cases[i].host);
		assert_int_equal(caller_of(&token), cases[i].caller);
	}
	for (unsigned int bit = 0; bit < CALLER_BITS; bit++) {
		assert_false(access_granted(ACCESS_NOBODY, (enum caller)(1U << bit)));
		assert_false(access_granted(ACCESSES, (enum caller)(1U << bit)));
	}
	assert_false(access_granted(ACCESS_OPERATOR, CALLER_TENANT_VIEWER));
	assert_false(access_granted(ACCESS_PROVIDER_VIEWER, CALLER_TENANT_ADMIN));
	assert_false(access_granted(ACCESS_PROVIDER_ADMIN, CALLER_PROVIDER_OPERATOR));
}

static void the_interface_is_published_whole(void **state)
{
	CLEANUP_JSON json_t *document = openapi_document();
	json_t *paths = json_object_get(document, "paths"), *path, *operation;
	const char *name, *method;
	size_t n = 0;

	(void)state;
	assert_string_equal(json_string_value(json_object_get(document, "openapi")), "3.1.0");
	json_object_foreach(paths, name, path)
	{
		json_object_foreach(path, method, operation)
		{
			json_t *parameters = json_object_get(operation, "parameters");
			size_t in_path = 0, i;
			json_t *p;

			n++;
			json_array_foreach(parameters, i, p)
			{
				in_path += !strcmp(
					json_string_value(json_object_get(p, "in")), "path");
			}
			assert_int_equal(in_path > 0, strchr(name, '{') != NULL);
			assert_non_null(json_object_get(operation, "responses"));
			assert_non_null(json_object_get(operation, "x-access"));
		}
	}
	assert_int_equal(n, ROUTES);
}

static void tokens_are_limited_apart(void **state)
{
	struct limiter *l = limiter_new(10);
	uint64_t now = NSEC_PER_SEC;
	unsigned int n = 0;

	(void)state;
	assert_non_null(l);
	while (limiter_take(l, "k-a", now))
		n++;
	assert_int_equal(n, 20);
	assert_true(limiter_take(l, "k-b", now));
	assert_false(limiter_take(l, "k-a", now + NSEC_PER_SEC / 20));
	assert_true(limiter_take(l, "k-a", now + NSEC_PER_SEC / 5));
	/* A clock that steps back gives nothing and breaks nothing. */
	assert_false(limiter_take(l, "k-a", 0) && limiter_take(l, "k-a", 0));
	/* More tokens than buckets: each still gets its first. */
	for (unsigned int i = 0; i < 4 * LIMITER_BUCKETS; i++) {
		char id[32];

		(void)snprintf(id, sizeof(id), "k-%u", i);
		assert_true(limiter_take(l, id, now + i));
	}
	limiter_free(l);
}

static void put_u64_be(uint8_t *p, uint64_t v)
{
	put_u32_be(p, (uint32_t)(v >> 32));
	put_u32_be(p + 4, (uint32_t)v);
}

static void make_qcow2(uint8_t header[IMAGE_HEADER_SIZE], uint64_t size)
{
	memset(header, 0, IMAGE_HEADER_SIZE);
	put_u32_be(header, 0x514649fb);
	put_u32_be(header + 4, 3);
	put_u32_be(header + 20, 16);
	put_u64_be(header + 24, size);
}

static void images_that_need_other_files_are_refused(void **state)
{
	uint8_t header[IMAGE_HEADER_SIZE];
	struct image_facts facts;
	struct err e = {0};

	(void)state;
	make_qcow2(header, 1 << 30);
	assert_ok(image_inspect(header, sizeof(header), 200000, &facts, &e));
	assert_int_equal(facts.format, STORE_FORMAT_QCOW2);
	assert_int_equal(facts.size, 1 << 30);
	for (size_t n = 4; n < 80; n++)
		assert_true(image_inspect(header, n, 200000, &facts, &e) < 0);
	put_u64_be(header + 8, 512);
	assert_true(image_inspect(header, sizeof(header), 200000, &facts, &e) < 0);
	assert_non_null(strstr(e.message, "overlay"));
	make_qcow2(header, 1 << 30);
	put_u64_be(header + 72, 4);
	assert_true(image_inspect(header, sizeof(header), 200000, &facts, &e) < 0);
	make_qcow2(header, UINT64_MAX);
	assert_true(image_inspect(header, sizeof(header), 200000, &facts, &e) < 0);

	memset(header, 0, sizeof(header));
	assert_ok(image_inspect(header, sizeof(header), 1 << 20, &facts, &e));
	assert_int_equal(facts.format, STORE_FORMAT_RAW);
	assert_true(image_inspect(header, sizeof(header), 1000, &facts, &e) < 0);
	assert_true(image_inspect(header, 0, 0, &facts, &e) < 0);
}

static void text_is_cut_between_characters(void **state)
{
	char out[6];

	(void)state;
	copy_utf8(out, sizeof(out), "short");
	assert_string_equal(out, "short");
	copy_utf8(out, sizeof(out), "four\xc3\xa9");
	assert_string_equal(out, "four");
	assert_true(is_id("i-0123456789abcdef01234567"));
	assert_false(is_id("i-0123456789abcdef0123456"));
	assert_false(is_id("i-0123456789ABCDEF01234567"));
	assert_false(is_id(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_route_says_who_may_use_it),
		cmocka_unit_test(the_access_table_grants_nothing_by_default),
		cmocka_unit_test(the_interface_is_published_whole),
		cmocka_unit_test(tokens_are_limited_apart),
		cmocka_unit_test(images_that_need_other_files_are_refused),
		cmocka_unit_test(text_is_cut_between_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
