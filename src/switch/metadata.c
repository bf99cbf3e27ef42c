/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who asks is known by the wire alone:
 *
 *   the NIC's socket ──> its own stack ──> its own unix socket ──> its own HTTP server
 *
 * Each NIC has a libslirp instance for 169.254.169.254 and nothing else. What comes from the NIC's
 * socket goes into that instance, and what the instance sends goes to that socket; it turns the
 * guest's TCP connections into connections to one unix socket in the switch's own folder, whose
 * HTTP server holds this NIC's data. There is no place where two instances' requests meet, so no
 * address, header or token could be taken for another's; source addresses are not looked at. (A
 * shared stack would lead all guests' connections to one listener, and leave only the source
 * address to tell them apart.)
 *
 * Session tokens are as in EC2's second version: got by PUT, with a time to live, which a request
 * forged through a proxy or a careless program in the guest can rarely do. A token is its expiry
 * with a keyed hash; the key is the NIC's own and lives as long as the process, so that a token
 * means nothing to another NIC, and after a restart is refused, upon which clients get a new one.
 */
#include "switch/metadata.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/reader.h"
#include "base/str.h"
#include "io/http_server.h"
#include "switch/network.h"

#define TTL_HEADER     "X-aws-ec2-metadata-token-ttl-seconds"
#define TOKEN_HEADER   "X-aws-ec2-metadata-token"
#define TTL_MAX        21600
#define TOKEN_SIZE     (8 + 16) /* the expiry in seconds, its hash */
#define ANSWER_MAX     (128U << 10)
#define CONNECTIONS    16
#define STACK_IP       IP4(169, 254, 169, 252)
#define TEXT_PLAIN     "text/plain"
#define HTTP_STATUS_OK 200U

struct metadata {
	struct nic *nic;
	struct mac router;
	struct stack *stack;
	struct http_server *server;
	json_t *data; /* NULL: none */
	char hostname[NAME_MAX_LENGTH + 1];
	uint8_t token_key[16];
};

static uint64_t now_s(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec;
}

static const char *data_text(const struct metadata *m, const char *name)
{
	const char *text = json_string_value(json_object_get(m->data, name));

	return text ? text : "";
}

static const char *hostname(const struct metadata *m)
{
	const char *own = data_text(m, "hostname");

	if (own[0] != '\0')
		return own;
	return m->hostname[0] != '\0' ? m->hostname : data_text(m, "instance_id");
}

/* Session tokens. */

static void make_token(const struct metadata *m, uint64_t expiry, char out[2 * TOKEN_SIZE + 1])
{
	uint8_t token[TOKEN_SIZE];

	put_u64(token, expiry);
	siphash128(m->token_key, token, 8, token + 8);
	hex_encode(token, sizeof(token), out);
}

static bool token_is_valid(const struct metadata *m, const char *text)
{
	uint8_t token[TOKEN_SIZE], hash[16];
	struct reader r = reader_init(token, sizeof(token));

	if (hex_decode(text, token, sizeof(token)) < 0)
		return false;
	siphash128(m->token_key, token, 8, hash);
	return sodium_memcmp(hash, token + 8, sizeof(hash)) == 0 && reader_u64(&r) > now_s();
}

static void answer_error(struct http_request *q, enum err_code code, const char *message)
{
	struct err e;

	(void)err_set(&e, code, "%s", message);
	http_answer_error(q, &e);
}

static void give_token(const struct metadata *m, struct http_request *q)
{
	const char *ttl = http_header(q, TTL_HEADER);
	char token[2 * TOKEN_SIZE + 1];
	uint64_t seconds = 0;

	if (http_method(q) != HTTP_PUT) {
		answer_error(q, ERR_NOT_FOUND, "a token is asked for by PUT");
	} else if (http_header(q, "X-Forwarded-For")) {
		answer_error(q, ERR_FORBIDDEN, "no tokens through proxies");
	} else if (!ttl || parse_u64(ttl, TTL_MAX, &seconds) < 0 || seconds == 0) {
		answer_error(q, ERR_USAGE, TTL_HEADER " must be 1 to 21600");
	} else {
		make_token(m, now_s() + seconds, token);
		(void)http_answer_header(q, TTL_HEADER, ttl);
		http_answer(q, HTTP_STATUS_OK, TEXT_PLAIN, token, strlen(token));
	}
}

/* Without a token, when that is allowed; a wrong one is refused in any case. */
static bool may_read(const struct metadata *m, const struct http_request *q)
{
	const char *token = http_header(q, TOKEN_HEADER);

	if (token)
		return token_is_valid(m, token);
	return !json_is_true(json_object_get(m->data, "token_required"));
}

/* The documents. Each writes to b; -ENOENT when there is no such thing. */

static int put_user_data(const struct metadata *m, struct buf *b)
{
	const char *text = data_text(m, "user_data"), *coded = data_text(m, "user_data_base64");
	size_t room = strlen(coded) / 4 * 3 + 3, n = 0;
	uint8_t *bytes;
	int r = -ENOENT;

	if (coded[0] == '\0')
		return text[0] != '\0' ? buf_puts(b, text) : -ENOENT;
	bytes = malloc(room);
	if (!bytes)
		return -ENOMEM;
	if (sodium_base642bin(bytes, room, coded, strlen(coded), "\r\n ", &n, NULL,
		    sodium_base64_VARIANT_ORIGINAL) == 0)
		r = buf_append(b, bytes, n);
	free(bytes);
	return r;
}

static int put_public_keys(const struct metadata *m, const char *rest, struct buf *b)
{
	const json_t *keys = json_object_get(m->data, "public_keys");
	char index[8] = "";
	uint64_t i;
	const char *slash = strchr(rest, '/');
	size_t n = slash ? (size_t)(slash - rest) : strlen(rest);

	if (rest[0] == '\0') {
		for (i = 0; i < json_array_size(keys); i++)
			(void)buf_printf(b, "%s%" PRIu64 "=key-%" PRIu64, i > 0 ? "\n" : "", i, i);
		return json_array_size(keys) > 0 ? buf_error(b) : -ENOENT;
	}
	if (n >= sizeof(index))
		return -ENOENT;
	memcpy(index, rest, n);
	if (parse_u64(index, PUBLIC_KEYS_MAX, &i) < 0 || i >= json_array_size(keys))
		return -ENOENT;
	if (!slash || slash[1] == '\0')
		return buf_puts(b, "openssh-key");
	if (strcmp(slash + 1, "openssh-key") != 0)
		return -ENOENT;
	return buf_puts(b, json_string_value(json_array_get(keys, (size_t)i)));
}

static int put_text(struct buf *b, const char *text)
{
	return text[0] != '\0' ? buf_puts(b, text) : -ENOENT;
}

#define ITEM_TABLE(X)                                     \
	X("hostname", hostname(m))                        \
	X("instance-id", data_text(m, "instance_id"))     \
	X("instance-type", data_text(m, "instance_type")) \
	X("local-hostname", hostname(m))                  \
	X("local-ipv4", ip)                               \
	X("mac", mac)                                     \
	X("placement/availability-zone", data_text(m, "zone"))

static int put_item(const struct metadata *m, const char *name, struct buf *b)
{
	char ip[IP4_TEXT], mac[MAC_TEXT];

	ip4_format(m->nic->ip, ip);
	mac_format(m->nic->mac, mac);
#define X(item, text)            \
	if (!strcmp(name, item)) \
		return put_text(b, text);
	ITEM_TABLE(X)
#undef X
	if (name[0] == '\0')
		return buf_puts(b, "hostname\ninstance-id\ninstance-type\nlocal-hostname\n"
				   "local-ipv4\nmac\nplacement/\npublic-keys/");
	if (!strcmp(name, "placement/"))
		return buf_puts(b, "availability-zone");
	if (!strcmp(name, "public-keys"))
		return put_public_keys(m, "", b);
	if (str_starts_with(name, "public-keys/"))
		return put_public_keys(m, name + strlen("public-keys/"), b);
	return -ENOENT;
}

/* What cloud-init's NoCloud reads: YAML, of which JSON strings are a part. */
static int put_nocloud(const struct metadata *m, const char *name, struct buf *b)
{
	const json_t *keys = json_object_get(m->data, "public_keys");

	if (!strcmp(name, "user-data")) {
		int r = put_user_data(m, b);

		return r == -ENOENT ? 0 : r;
	}
	if (!strcmp(name, "vendor-data"))
		return 0; /* it asks, and is content with nothing */
	if (strcmp(name, "meta-data") != 0)
		return -ENOENT;
	(void)buf_printf(b, "instance-id: %s\nlocal-hostname: %s\n", data_text(m, "instance_id"),
		hostname(m));
	if (json_array_size(keys) > 0) {
		CLEANUP_FREE char *list = json_dumps(keys, JSON_COMPACT);

		if (!list)
			return -ENOMEM;
		(void)buf_printf(b, "public-keys: %s\n", list);
	}
	return buf_error(b);
}

/* Behind "/latest" or "/2009-04-04": every version is the same. */
static const char *behind_version(const char *path)
{
	size_t n = strcspn(path + 1, "/");

	if (n == strlen("latest") && !strncmp(path + 1, "latest", n))
		return path + 1 + n;
	if (n == strlen("2009-04-04") && strspn(path + 1, "0123456789-") == n)
		return path + 1 + n;
	return NULL;
}

static int put_document(const struct metadata *m, const char *path, struct buf *b)
{
	const char *rest;

	if (!strcmp(path, "/"))
		return buf_puts(b, "latest");
	if (str_starts_with(path, "/nocloud/"))
		return put_nocloud(m, path + strlen("/nocloud/"), b);
	rest = behind_version(path);
	if (!rest)
		return -ENOENT;
	if (!strcmp(rest, "") || !strcmp(rest, "/"))
		return buf_puts(b, "meta-data\nuser-data");
	if (!strcmp(rest, "/user-data"))
		return put_user_data(m, b);
	if (!strcmp(rest, "/meta-data"))
		return put_item(m, "", b);
	if (str_starts_with(rest, "/meta-data/"))
		return put_item(m, rest + strlen("/meta-data/"), b);
	return -ENOENT;
}

static void on_request(struct http_request *q, void *userdata)
{
	const struct metadata *m = userdata;
	CLEANUP_BUF struct buf b = BUF_INIT(ANSWER_MAX);
	int r;

	if (!m->data) {
		answer_error(q, ERR_NOT_FOUND, "there is no metadata for this NIC");
		return;
	}
	if (!strcmp(http_path(q), "/latest/api/token")) {
		give_token(m, q);
		return;
	}
	if (http_method(q) != HTTP_GET && http_method(q) != HTTP_HEAD) {
		answer_error(q, ERR_NOT_FOUND, "metadata can only be read");
		return;
	}
	if (!may_read(m, q)) {
		answer_error(q, ERR_UNAUTHENTICATED, "a valid " TOKEN_HEADER " is needed");
		return;
	}
	r = put_document(m, http_path(q), &b);
	if (r == -ENOENT)
		answer_error(q, ERR_NOT_FOUND, "no such metadata");
	else if (r < 0)
		answer_error(q, ERR_INTERNAL, "out of memory");
	else
		http_answer(q, HTTP_STATUS_OK, TEXT_PLAIN, buf_text(&b), b.size);
}

/* From the stack to the guest; the stack knows no Ethernet addresses. */
static void on_output(uint8_t *frame, size_t n, void *userdata)
{
	struct metadata *m = userdata;

	frame_readdress(frame, m->nic->mac, m->router);
	nic_send(m->nic, frame, n);
}

void metadata_input(struct metadata *m, const uint8_t *frame, size_t n)
{
	stack_input(m->stack, frame, n);
}

void metadata_set(struct metadata *m, json_t *data, const char *name)
{
	json_decref(m->data);
	m->data = json_incref(data);
	(void)snprintf(m->hostname, sizeof(m->hostname), "%s", name);
}

void metadata_free(struct metadata *m)
{
	if (!m)
		return;
	stack_free(m->stack);
	http_server_free(m->server);
	json_decref(m->data);
	free(m);
}

int metadata_new(sd_event *event, struct nic *nic, struct mac router, uint16_t mtu,
	unsigned int number, struct metadata **ret, struct err *e)
{
	CLEANUP(metadata_free_p) struct metadata *m = calloc(1, sizeof(*m));
	const struct stack_options options = {.network = LINK_LOCAL,
		.host = STACK_IP,
		.mac = router,
		.mtu = mtu,
		.isolated = true};
	char path[32];
	const struct http_server_options server = {
		.unix_path = path, .max_connections = CONNECTIONS};
	int r;

	if (!m)
		return err_errno(e, -ENOMEM, "metadata service");
	m->nic = nic;
	m->router = router;
	randombytes_buf(m->token_key, sizeof(m->token_key));
	/* In the current folder, the switch's own, so that its length is no matter. */
	(void)snprintf(path, sizeof(path), "metadata-%u.sock", number);
	r = http_server_new(event, &server, on_request, m, &m->server, e);
	if (r < 0)
		return r;
	r = stack_new(event, &options, on_output, m, &m->stack);
	if (r == 0)
		r = stack_serve(m->stack, path, METADATA_IP, METADATA_PORT);
	if (r < 0)
		return err_errno(e, r, "stack of the metadata service");
	*ret = TAKE_PTR(m);
	return 0;
}
