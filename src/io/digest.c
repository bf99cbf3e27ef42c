/* SPDX-License-Identifier: Apache-2.0 */
#include "io/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/str.h"

/* A group of base64 and what it stands for; blocks are encoded in whole groups. */
#define GROUP_TEXT  4
#define GROUP_BYTES 3
#define BLOCK_BYTES (768 * GROUP_BYTES)
#define BLOCK_TEXT  (768 * GROUP_TEXT)

struct digest {
	EVP_MD_CTX *context;
};

struct digest *digest_new(void)
{
	struct digest *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->context = EVP_MD_CTX_new();
	if (!d->context || EVP_DigestInit_ex(d->context, EVP_sha256(), NULL) != 1) {
		digest_free(d);
		return NULL;
	}
	return d;
}

void digest_free(struct digest *d)
{
	if (!d)
		return;
	EVP_MD_CTX_free(d->context);
	free(d);
}

int digest_add(struct digest *d, const void *bytes, size_t n)
{
	return EVP_DigestUpdate(d->context, bytes, n) == 1 ? 0 : -EIO;
}

int digest_end(struct digest *d, char out[DIGEST_HEX_SIZE])
{
	unsigned char bytes[DIGEST_SIZE];

	if (EVP_DigestFinal_ex(d->context, bytes, NULL) != 1)
		return -EIO;
	hex_encode(bytes, sizeof(bytes), out);
	return 0;
}

int digest_text(const void *bytes, size_t n, char out[DIGEST_HEX_SIZE])
{
	struct digest *d = digest_new();
	int r;

	if (!d)
		return -ENOMEM;
	r = digest_add(d, bytes, n);
	if (r == 0)
		r = digest_end(d, out);
	digest_free(d);
	return r;
}

int base64_encode(struct buf *out, const void *bytes, size_t n)
{
	const unsigned char *at = bytes;
	unsigned char text[BLOCK_TEXT + 1];

	while (n > 0) {
		size_t take = MIN(n, (size_t)BLOCK_BYTES);
		int size = EVP_EncodeBlock(text, at, (int)take);
		int r = buf_append(out, text, (size_t)size);

		if (r < 0)
			return r;
		at += take;
		n -= take;
	}
	return 0;
}

int base64_decode(struct buf *out, const char *text)
{
	unsigned char bytes[BLOCK_BYTES];
	size_t left = strlen(text);

	if (left % GROUP_TEXT != 0)
		return -EINVAL;
	while (left > 0) {
		size_t take = MIN(left, (size_t)BLOCK_TEXT), padding = 0;
		int size, r;

		/* Padding ends the text and nothing else; libcrypto would let more pass. */
		if (take == left)
			padding = text[take - 1] != '=' ? 0 : text[take - 2] != '=' ? 1 : 2;
		if (strcspn(text, "= \t\r\n") < take - padding)
			return -EINVAL;
		size = EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)take);
		if (size < (int)padding)
			return -EINVAL;
		r = buf_append(out, bytes, (size_t)size - padding);
		if (r < 0)
			return r;
		text += take;
		left -= take;
	}
	return 0;
}
