/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/buf.h"
#include "base/chacha20.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/reader.h"
#include "base/source.h"
#include "base/str.h"
#include "unit.h"

static void chacha20_matches_rfc8439_block(void **state)
{
	/* RFC 8439 section 2.3.2. */
	static const char expected[] =
		"10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
		"d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e";
	static const uint8_t nonce[CHACHA20_NONCE] = {0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0};
	uint8_t key[CHACHA20_KEY], out[CHACHA20_BLOCK];
	char text[2 * CHACHA20_BLOCK + 1];

	(void)state;
	for (uint8_t i = 0; i < CHACHA20_KEY; i++)
		key[i] = i;
	chacha20_stream(key, nonce, 1, out, 1);
	hex_encode(out, sizeof(out), text);
	assert_string_equal(text, expected);
}

static void chacha20_matches_libsodium_for_every_length(void **state)
{
	uint8_t key[CHACHA20_KEY], nonce[CHACHA20_NONCE];
	uint8_t ours[33 * CHACHA20_BLOCK], theirs[33 * CHACHA20_BLOCK];

	(void)state;
	for (size_t blocks = 0; blocks <= 33; blocks++) {
		randombytes_buf(key, sizeof(key));
		randombytes_buf(nonce, sizeof(nonce));
		memset(theirs, 0, sizeof(theirs));
		memset(ours, 0, sizeof(ours));
		chacha20_stream(key, nonce, (uint32_t)blocks * 7, ours, blocks);
		assert_ok(crypto_stream_chacha20_ietf_xor_ic(
			theirs, theirs, blocks * CHACHA20_BLOCK, nonce, (uint32_t)blocks * 7, key));
		assert_memory_equal(ours, theirs, sizeof(ours));
	}
}

static void siphash128_matches_reference_vectors(void **state)
{
	/* From the reference implementation's vectors for 128-bit output, lengths 0, 1, 7, 8, 15.
	 */
	static const struct {
		size_t n;
		const char *expected;
	} vectors[] = {
		{0, "a3817f04ba25a8e66df67214c7550293"},
		{1, "da87c1d86b99af44347659119b22fc45"},
		{7, "a1f1ebbed8dbc153c0b84aa61ff08239"},
		{8, "3b62a9ba6258f5610f83e264f31497b4"},
		{15, "5493e99933b0a8117e08ec0f97cfc3d9"},
	};
	uint8_t key[16], input[16], out[16];
	char text[33];

	(void)state;
	for (uint8_t i = 0; i < 16; i++)
		key[i] = input[i] = i;
	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		siphash128(key, input, vectors[i].n, out);
		hex_encode(out, sizeof(out), text);
		assert_string_equal(text, vectors[i].expected);
	}
}

static void crc32c_matches_rfc3720(void **state)
{
	uint8_t bytes[32] = {0};

	(void)state;
	assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x8a9136aa);
	memset(bytes, 0xff, sizeof(bytes));
	assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x62a8ab43);
	for (uint8_t i = 0; i < 32; i++)
		bytes[i] = i;
	assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x46dd794e);
	assert_int_equal(crc32c(crc32c(0, bytes, 5), bytes + 5, 27), 0x46dd794e);
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
}

static void buffer_keeps_to_its_maximum(void **state)
{
	CLEANUP_BUF struct buf b = BUF_INIT(10);

	(void)state;
	assert_string_equal(buf_text(&b), "");
	assert_ok(buf_printf(&b, "%s-%d", "abc", 7));
	assert_int_equal(buf_puts(&b, "too long"), -E2BIG);
	assert_int_equal(buf_putc(&b, '!'), -E2BIG);
	assert_int_equal(buf_error(&b), -E2BIG);
	assert_string_equal(buf_text(&b), "abc-7");
	buf_reset(&b);
	assert_ok(buf_puts(&b, "0123456789"));
	buf_consume(&b, 4);
	assert_string_equal(buf_text(&b), "456789");
	assert_int_equal(b.size, 6);
}

static void reader_stops_at_the_end_and_stays_failed(void **state)
{
	static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7};
	struct reader r = reader_init(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(reader_u16(&r), 0x0201);
	assert_int_equal(reader_u16_be(&r), 0x0304);
	assert_int_equal(reader_u32(&r), 0);
	assert_true(r.failed);
	assert_int_equal(reader_u8(&r), 0);
	assert_null(reader_bytes(&r, 0));
}

static void varints_survive_the_round_trip_and_refuse_overflow(void **state)
{
	static const uint64_t values[] = {0, 1, 127, 128, 16383, 16384, UINT32_MAX, UINT64_MAX};
	uint8_t bytes[VARINT_MAX];
	struct reader r;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		size_t n = put_varint(bytes, values[i]);

		r = reader_init(bytes, n);
		assert_true(reader_varint(&r) == values[i]);
		assert_false(r.failed);
		assert_int_equal(r.left, 0);
		r = reader_init(bytes, n - 1);
		(void)reader_varint(&r);
		assert_true(r.failed);
	}
	memset(bytes, 0xff, sizeof(bytes));
	r = reader_init(bytes, sizeof(bytes));
	(void)reader_varint(&r);
	assert_true(r.failed);
}

static void names_and_numbers_are_checked(void **state)
{
	char long_name[NAME_MAX_LENGTH + 2];
	uint64_t v = 42;

	(void)state;
	memset(long_name, 'a', sizeof(long_name));
	long_name[NAME_MAX_LENGTH + 1] = '\0';
	assert_false(name_valid(long_name));
	long_name[NAME_MAX_LENGTH] = '\0';
	assert_true(name_valid(long_name));
	assert_true(name_valid("a"));
	assert_true(name_valid("web-1.x_y"));
	assert_false(name_valid(""));
	assert_false(name_valid(NULL));
	assert_false(name_valid(".."));
	assert_false(name_valid("-rf"));
	assert_false(name_valid("a/b"));
	assert_false(name_valid("a b"));
	assert_int_equal(parse_u64("", 9, &v), -EINVAL);
	assert_int_equal(parse_u64("-1", 9, &v), -EINVAL);
	assert_int_equal(parse_u64("10", 9, &v), -ERANGE);
	assert_int_equal(parse_u64("18446744073709551616", UINT64_MAX, &v), -ERANGE);
	assert_int_equal(v, 42);
	assert_ok(parse_size("2G", &v));
	assert_true(v == 2ULL << 30);
	assert_int_equal(parse_size("2X", &v), -EINVAL);
	assert_int_equal(parse_size("99999999999999T", &v), -ERANGE);
	assert_ok(parse_duration_ns("250ms", &v));
	assert_true(v == 250000000ULL);
	assert_ok(parse_duration_ns("2", &v));
	assert_true(v == 2000000000ULL);
}

static void hexadecimal_survives_the_round_trip(void **state)
{
	uint8_t bytes[3];
	char text[7];

	(void)state;
	assert_ok(hex_decode("00fFa5", bytes, 3));
	hex_encode(bytes, 3, text);
	assert_string_equal(text, "00ffa5");
	assert_int_equal(hex_decode("00ff", bytes, 3), -EINVAL);
	assert_int_equal(hex_decode("00ffg5", bytes, 3), -EINVAL);
}

static void timestamps_are_rfc3339(void **state)
{
	char text[TIMESTAMP_SIZE];

	(void)state;
	format_timestamp(1700000000000000042ULL, text);
	assert_string_equal(text, "2023-11-14T22:13:20.000000042Z");
}

static void directories_are_made_with_their_parents(void **state)
{
	char template[] = "/tmp/sosie-test-XXXXXX", path[64], file[96];
	struct stat st;
	FILE *f;

	(void)state;
	assert_non_null(mkdtemp(template));
	assert_ok(path_join(path, sizeof(path), template, "a/b"));
	assert_ok(make_directories(path, 0700));
	assert_ok(make_directories(path, 0700));
	assert_ok(stat(path, &st));
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_ok(path_join(file, sizeof(file), path, "f"));
	f = fopen(file, "w");
	assert_non_null(f);
	assert_ok(fclose(f));
	assert_ok(path_join(file, sizeof(file), path, "f/g"));
	assert_int_equal(make_directories(file, 0700), -ENOTDIR);
	assert_int_equal(path_join(file, 5, path, "f"), -ENAMETOOLONG);
	assert_ok(path_join(file, sizeof(file), path, "f"));
	assert_ok(unlink(file));
	assert_ok(rmdir(path));
	*strrchr(path, '/') = '\0';
	assert_ok(rmdir(path));
	assert_ok(rmdir(template));
}

static void every_error_code_has_one_name_and_a_status(void **state)
{
	struct err e;

	(void)state;
	for (unsigned int i = 0; i < ERR_CODES; i++) {
		enum err_code code = (enum err_code)i;

		assert_int_equal(err_from_name(err_name(code)), code);
		assert_in_range(err_http_status(code), 200, 599);
		assert_in_range(err_exit_status(code), 0, 9);
		assert_true(strlen(err_meaning(code)) > 0);
	}
	assert_int_equal(err_from_name("no such code"), ERR_INTERNAL);
	assert_int_equal(err_set(&e, ERR_NOT_FOUND, "no %s", "host"), -ENOENT);
	assert_string_equal(e.message, "no host");
	assert_string_equal(e.hint, "");
	assert_int_equal(err_hint(&e, "try %d", 2), -ENOENT);
	assert_string_equal(e.hint, "try 2");
	assert_int_equal(err_errno(&e, -ENOSPC, "write x"), -ENOSPC);
	assert_int_equal(e.code, ERR_NO_CAPACITY);
	assert_string_equal(e.message, "write x: No space left on device");
	assert_int_equal(err_set(NULL, ERR_INVALID, "x"), -EINVAL);
}

static void log_values_are_quoted_when_they_must_be(void **state)
{
	(void)state;
	assert_string_equal(log_quote("plain-1"), "plain-1");
	assert_string_equal(log_quote(""), "\"\"");
	assert_string_equal(log_quote("two words"), "\"two words\"");
	assert_string_equal(log_quote("a\"b\\\n"), "\"a\\\"b\\\\\\x0a\"");
	assert_string_equal(log_quote(NULL), "-");
}

static void system_source_answers(void **state)
{
	uint8_t a[64], b[64];
	uint64_t first = source_system.clock_ns(NULL, CLOCK_MONOTONIC);

	(void)state;
	assert_true(first > 0);
	assert_true(source_system.clock_ns(NULL, CLOCK_MONOTONIC) >= first);
	assert_ok(source_system.random(NULL, a, sizeof(a)));
	assert_ok(source_system.random(NULL, b, sizeof(b)));
	assert_memory_not_equal(a, b, sizeof(a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chacha20_matches_rfc8439_block),
		cmocka_unit_test(chacha20_matches_libsodium_for_every_length),
		cmocka_unit_test(siphash128_matches_reference_vectors),
		cmocka_unit_test(crc32c_matches_rfc3720),
		cmocka_unit_test(buffer_keeps_to_its_maximum),
		cmocka_unit_test(reader_stops_at_the_end_and_stays_failed),
		cmocka_unit_test(varints_survive_the_round_trip_and_refuse_overflow),
		cmocka_unit_test(names_and_numbers_are_checked),
		cmocka_unit_test(hexadecimal_survives_the_round_trip),
		cmocka_unit_test(timestamps_are_rfc3339),
		cmocka_unit_test(directories_are_made_with_their_parents),
		cmocka_unit_test(every_error_code_has_one_name_and_a_status),
		cmocka_unit_test(log_values_are_quoted_when_they_must_be),
		cmocka_unit_test(system_source_answers),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
